//! Which protocol a call speaks and what it wants, from its method, path and headers. Pure.

use contract::usage::Dialect;

/// What a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`: passed through, never billed.
    CountTokens,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/responses/compact`: passed through, not billed.
    ResponsesCompact,
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `GET /v1/models` and its variants: answered by the gateway.
    Models,
    /// `GET /v1/models/{id}`: answered by the gateway.
    Model,
    /// Other inference: embeddings, completions, images, audio, moderations, rerank. Passed through,
    /// metered by what usage the answer reports.
    OpenAiOther,
    /// Files, batches, fine-tuning, threads and all that is not inference: passed through, not billed.
    OpenAiResource,
    /// Anthropic's files, message batches and the like: passed through, not billed.
    AnthropicResource,
}

impl EndpointKind {
    /// Whether answers are scanned for usage and billed.
    pub fn is_metered(self) -> bool {
        matches!(self, Self::Messages | Self::Responses | Self::ChatCompletions | Self::OpenAiOther)
    }

    /// Whether the body must be a JSON object that names a model.
    pub fn needs_model(self) -> bool {
        matches!(
            self,
            Self::Messages
                | Self::CountTokens
                | Self::Responses
                | Self::ResponsesCompact
                | Self::ChatCompletions
        )
    }

    /// Whether the gateway answers by itself.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Models | Self::Model)
    }

    /// Whether it is a conversation, whose turns should stay with one provider.
    pub fn has_session(self) -> bool {
        self.needs_model()
    }
}

/// A recognised call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'p> {
    /// The caller's protocol: decides the form of errors and which providers can serve.
    pub dialect: Dialect,
    /// What the call wants.
    pub kind: EndpointKind,
    /// The path without its `/v1`, starting with a slash: what is joined to a provider's base URL.
    pub tail: &'p str,
}

impl<'p> Route<'p> {
    /// The model in the path of `GET /v1/models/{id}`; ids may hold slashes and percent escapes.
    pub fn model_id(&self) -> Option<&'p str> {
        (self.kind == EndpointKind::Model).then(|| self.tail.trim_start_matches("/models/"))
    }
}

/// Paths that callers also use without `/v1`, because their base URL lacks it.
const BARE: &[&str] = &["messages", "responses", "chat", "embeddings", "models"];

/// First segments of inference paths besides the three big ones.
const INFERENCE: &[&str] = &[
    "embeddings",
    "completions",
    "images",
    "audio",
    "moderations",
    "rerank",
    "rerankings",
    "videos",
    "edits",
];

/// Methods that are passed on. TRACE is not: an upstream that answers it echoes the credential it was sent.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Recognises a call; `None` for what is not proxied. `path` has no query. `header` gives the value of a
/// header by its lower-case name.
pub fn route<'p, 'h>(
    method: &str,
    path: &'p str,
    header: &dyn Fn(&str) -> Option<&'h str>,
) -> Option<Route<'p>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let tail = tail(path)?;
    let rest = tail.strip_prefix('/')?;
    let (post, get) = (method == "POST", method == "GET" || method == "HEAD");
    if !METHODS.contains(&method) || is_disguised(rest, get) {
        return None;
    }
    let (dialect, kind) = match rest {
        "messages" if post => (Dialect::Anthropic, EndpointKind::Messages),
        "messages/count_tokens" if post => (Dialect::Anthropic, EndpointKind::CountTokens),
        "responses" if post => (Dialect::Responses, EndpointKind::Responses),
        "responses/compact" if post => (Dialect::Responses, EndpointKind::ResponsesCompact),
        "chat/completions" if post => (Dialect::OpenAi, EndpointKind::ChatCompletions),
        "messages" | "messages/count_tokens" | "responses" => return None,
        "models" if get => (caller(header), EndpointKind::Models),
        "responses/models" if get => (Dialect::Responses, EndpointKind::Models),
        "chat/completions/models" if get => (Dialect::OpenAi, EndpointKind::Models),
        _ if get && rest.starts_with("models/") => (caller(header), EndpointKind::Model),
        _ => other(rest, post, header),
    };
    Some(Route { dialect, kind, tail })
}

/// Whether an upstream may read another path out of this one: `//`, `/./`, `%63hat`. What a call costs and which
/// limits hold is decided by the path as it is read here, so both must read the same.
fn is_disguised(rest: &str, get: bool) -> bool {
    let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.contains(['\\', ';']);
    rest.split('/').any(odd) || (!get && rest.contains('%'))
}

/// The part after `/v1`, which may be missing or, in misconfigured clients, doubled.
fn tail(path: &str) -> Option<&str> {
    if let Some(tail) = path.strip_prefix("/v1").filter(|tail| tail.starts_with('/')) {
        let tail = tail.strip_prefix("/v1").filter(|tail| tail.starts_with('/')).unwrap_or(tail);
        return (tail.len() > 1).then_some(tail);
    }
    let first = path.strip_prefix('/')?.split('/').next()?;
    BARE.contains(&first).then_some(path)
}

fn other<'h>(rest: &str, post: bool, header: &dyn Fn(&str) -> Option<&'h str>) -> (Dialect, EndpointKind) {
    let first = rest.split('/').next().unwrap_or(rest);
    match first {
        "messages" => (Dialect::Anthropic, EndpointKind::AnthropicResource),
        "responses" => (Dialect::Responses, EndpointKind::OpenAiResource),
        _ if post && INFERENCE.contains(&first) => (Dialect::OpenAi, EndpointKind::OpenAiOther),
        _ if caller(header) == Dialect::Anthropic => (Dialect::Anthropic, EndpointKind::AnthropicResource),
        _ => (Dialect::OpenAi, EndpointKind::OpenAiResource),
    }
}

/// The protocol in which a caller is told that its call is not recognised.
pub fn unrecognised<'h>(path: &str, header: &dyn Fn(&str) -> Option<&'h str>) -> Dialect {
    match tail(path).and_then(|tail| tail.split('/').nth(1)) {
        Some("messages") => Dialect::Anthropic,
        Some("responses") => Dialect::Responses,
        Some("chat") => Dialect::OpenAi,
        _ => caller(header),
    }
}

/// The protocol of a caller on a path that both families have.
fn caller<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> Dialect {
    let anthropic = header("anthropic-version").is_some() || header("x-api-key").is_some();
    if anthropic { Dialect::Anthropic } else { Dialect::OpenAi }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointKind::*;

    #[test]
    fn even_an_unrecognised_call_speaks_a_protocol() {
        let none: &dyn Fn(&str) -> Option<&'static str> = &|_| None;
        for (path, dialect) in [
            ("/v1/messages", Dialect::Anthropic),
            ("/messages/", Dialect::Anthropic),
            ("/v1/responses", Dialect::Responses),
            ("/v1/chat/completions", Dialect::OpenAi),
            ("/nowhere", Dialect::OpenAi),
        ] {
            assert_eq!(unrecognised(path, none), dialect, "{path}");
        }
        assert_eq!(
            unrecognised("/nowhere", &|name| (name == "anthropic-version").then_some("x")),
            Dialect::Anthropic
        );
    }

    fn routed(
        method: &str,
        path: &'static str,
        headers: &[&str],
    ) -> Option<(Dialect, EndpointKind, &'static str)> {
        let header = |name: &str| headers.contains(&name).then_some("x");
        route(method, path, &header).map(|route| (route.dialect, route.kind, route.tail))
    }

    #[test]
    fn recognises_every_endpoint() {
        use Dialect::*;
        for (call, expected) in [
            ("POST /v1/messages", Some((Anthropic, Messages, "/messages"))),
            ("POST /messages", Some((Anthropic, Messages, "/messages"))),
            ("POST /v1/v1/messages", Some((Anthropic, Messages, "/messages"))),
            ("POST /v1/messages/", Some((Anthropic, Messages, "/messages"))),
            ("POST /v1/messages/count_tokens", Some((Anthropic, CountTokens, "/messages/count_tokens"))),
            ("POST /v1/messages/batches", Some((Anthropic, AnthropicResource, "/messages/batches"))),
            ("GET /v1/messages", None),
            ("POST /v1/responses", Some((Dialect::Responses, EndpointKind::Responses, "/responses"))),
            ("POST /responses", Some((Dialect::Responses, EndpointKind::Responses, "/responses"))),
            (
                "POST /v1/responses/compact",
                Some((Dialect::Responses, ResponsesCompact, "/responses/compact")),
            ),
            ("GET /v1/responses/resp_1", Some((Dialect::Responses, OpenAiResource, "/responses/resp_1"))),
            ("POST /v1/chat/completions", Some((OpenAi, ChatCompletions, "/chat/completions"))),
            ("POST /chat/completions", Some((OpenAi, ChatCompletions, "/chat/completions"))),
            ("GET /v1/chat/completions", Some((OpenAi, OpenAiResource, "/chat/completions"))),
            ("POST /v1/embeddings", Some((OpenAi, OpenAiOther, "/embeddings"))),
            ("POST /embeddings", Some((OpenAi, OpenAiOther, "/embeddings"))),
            ("POST /v1/audio/speech", Some((OpenAi, OpenAiOther, "/audio/speech"))),
            ("GET /v1/files", Some((OpenAi, OpenAiResource, "/files"))),
            ("POST /v1/threads/t/runs", Some((OpenAi, OpenAiResource, "/threads/t/runs"))),
            ("DELETE /v1/models/m", Some((OpenAi, OpenAiResource, "/models/m"))),
            ("GET /v1/models", Some((OpenAi, Models, "/models"))),
            ("GET /models", Some((OpenAi, Models, "/models"))),
            ("GET /v1/responses/models", Some((Dialect::Responses, Models, "/responses/models"))),
            ("GET /v1/chat/completions/models", Some((OpenAi, Models, "/chat/completions/models"))),
            ("GET /v1/models/a/b", Some((OpenAi, Model, "/models/a/b"))),
            ("POST /v1/whatever", Some((OpenAi, OpenAiResource, "/whatever"))),
            ("GET /v1", None),
            ("GET /v1/", None),
            ("GET /", None),
            ("GET /v1x/models", None),
            ("POST /files", None),
            ("GET /dashboard", None),
        ] {
            let (method, path) = call.split_once(' ').unwrap();
            assert_eq!(routed(method, path, &[]), expected, "{call}");
        }
    }

    #[test]
    fn headers_decide_where_paths_do_not() {
        for headers in [&["anthropic-version"][..], &["x-api-key"]] {
            assert_eq!(routed("GET", "/v1/models", headers), Some((Dialect::Anthropic, Models, "/models")));
            assert_eq!(
                routed("POST", "/v1/files", headers),
                Some((Dialect::Anthropic, AnthropicResource, "/files"))
            );
        }
        let id = route("GET", "/v1/models/gpt-5", &|_| None).and_then(|route| route.model_id());
        assert_eq!(id, Some("gpt-5"));
    }
}
