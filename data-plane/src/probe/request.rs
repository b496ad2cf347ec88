//! What the gateway asks by itself: the smallest call of the provider's kind, for models that it may serve.
//! Pure.

use crate::table::Upstream;
use crate::upstream::{self, Failure, FailureClass, Outgoing};
use bytes::Bytes;
use contract::table::{MatchType, ProviderKind};
use contract::usage::Dialect;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use llm::EndpointKind;
use llm::dialect::Route;
use serde_json::json;

/// Output that is asked for; the least that the Responses API takes is sixteen.
const LEAST_OUTPUT: u32 = 16;

/// A call of the gateway's own.
#[derive(Debug)]
pub struct Question {
    dialect: Dialect,
    kind: EndpointKind,
    tail: &'static str,
    model: Box<str>,
    body: Bytes,
    /// Whether it asks for a model that every provider of the kind knows.
    common: bool,
}

impl Question {
    /// Whether it asks for what costs something.
    pub fn is_metered(&self) -> bool {
        self.kind.is_metered()
    }

    /// Whether it asks for what costs something, for a model that every provider of the kind knows.
    pub fn is_common(&self) -> bool {
        self.common && self.is_metered()
    }

    /// The provider's protocol.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The model that it asks for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// As callers would write it.
    pub fn path(&self) -> String {
        ["/v1", self.tail].concat()
    }

    /// Of its body.
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// As this provider gets it, with its credential and headers and none of anybody else.
    pub fn for_provider(&self, up: &Upstream) -> Result<Outgoing, Failure> {
        let mut head = http::Request::new(());
        *head.method_mut() = http::Method::POST;
        let headers = head.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.dialect == Dialect::Anthropic {
            let version = HeaderName::from_static("anthropic-version");
            headers.insert(version, HeaderValue::from_static("2023-06-01"));
        }
        let uri = self.path().parse().map_err(|_| Failure::new(FailureClass::Request))?;
        *head.uri_mut() = uri;
        let (head, ()) = head.into_parts();
        let route = Route { dialect: self.dialect, kind: self.kind, tail: self.tail, repeatable: true };
        upstream::request(up, &route, &head, self.body.clone(), &HeaderMap::new())
    }
}

/// What a provider is asked until an answer tells: of each model that it may serve the cheapest question first.
pub fn questions(up: &Upstream) -> Vec<Question> {
    models(up).into_iter().flat_map(|(model, common)| about(up, model, common)).collect()
}

/// The questions about one model: only if the answer to the last one is good, too, the credential is.
fn about(up: &Upstream, model: &str, common: bool) -> Vec<Question> {
    let said = json!([{"role": "user", "content": "hi"}]);
    let question = |dialect, kind, tail, body: serde_json::Value| {
        let body = Bytes::from(body.to_string());
        Question { dialect, kind, tail, model: model.into(), body, common }
    };
    match up.row.kind {
        ProviderKind::Claude | ProviderKind::ClaudeAuth => {
            let count = json!({"model": model, "messages": said});
            let say = json!({"model": model, "messages": said, "max_tokens": 1});
            let count =
                question(Dialect::Anthropic, EndpointKind::CountTokens, "/messages/count_tokens", count);
            let say = question(Dialect::Anthropic, EndpointKind::Messages, "/messages", say);
            if counts_tokens(up) { vec![count, say] } else { vec![say] }
        }
        ProviderKind::Codex => {
            let body =
                json!({"model": model, "input": said, "max_output_tokens": LEAST_OUTPUT, "store": false});
            vec![question(Dialect::Responses, EndpointKind::Responses, "/responses", body)]
        }
        ProviderKind::OpenAiCompatible => {
            let body = json!({"model": model, "messages": said, "max_tokens": 1});
            vec![question(Dialect::OpenAi, EndpointKind::ChatCompletions, "/chat/completions", body)]
        }
        // No call of theirs is routed yet.
        ProviderKind::Gemini | ProviderKind::GeminiCli => Vec::new(),
    }
}

/// One that it served since the table was loaded, and those that its rules name; each of them may be gone. In the end a
/// common one, whose absence it tells only to those that it lets in.
fn models(up: &Upstream) -> Vec<(&str, bool)> {
    let target = up.row.redirects.iter().find_map(|rule| rule.target.as_deref());
    let exact = up.row.allowed_models.iter().find(|rule| rule.match_type == MatchType::Exact);
    let allowed = exact.map(|rule| up.redirect(&rule.pattern));
    let common = match up.row.kind {
        ProviderKind::Claude | ProviderKind::ClaudeAuth => "claude-haiku-4-5",
        ProviderKind::Codex => "gpt-5-codex",
        ProviderKind::OpenAiCompatible => "gpt-4o-mini",
        ProviderKind::Gemini | ProviderKind::GeminiCli => "gemini-2.5-flash",
    };
    let mut models: Vec<(&str, bool)> = Vec::new();
    for model in [up.served.get().map(|model| &**model), target, allowed, Some(common)].into_iter().flatten()
    {
        if models.iter().all(|(have, _)| *have != model) {
            models.push((model, model == common));
        }
    }
    models
}

/// Whether it is one of Anthropic's own hosts, which count tokens for nothing; relays may not have the path.
fn counts_tokens(up: &Upstream) -> bool {
    let host = up.base.host_str().unwrap_or_default();
    host == "anthropic.com" || host.ends_with(".anthropic.com")
}
