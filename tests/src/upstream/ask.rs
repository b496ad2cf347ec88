//! What a request asks for: its route, its credential and the members of its body that an answer depends on. Pure.

use http::{HeaderMap, Method, header};
use serde_json::Value;

/// A protocol that the upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Chat Completions; also the dialect of errors on other OpenAI paths.
    Chat,
    /// OpenAI Responses.
    Responses,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A model's answer.
    Generate(Dialect),
    CountTokens,
    Embeddings,
    Models,
    /// The reachability probe of Claude Code, and people who open the URL.
    Root,
    Stats,
    Script,
    Reset,
    Unknown,
}

/// The route of a method and path, with or without `/v1`.
pub(super) fn route(method: &Method, path: &str) -> Route {
    let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    match (method.as_str(), path.trim_end_matches('/')) {
        ("POST", "/messages") => Route::Generate(Dialect::Messages),
        ("POST", "/messages/count_tokens") => Route::CountTokens,
        ("POST", "/chat/completions") => Route::Generate(Dialect::Chat),
        ("POST", "/responses") => Route::Generate(Dialect::Responses),
        ("POST", "/embeddings") => Route::Embeddings,
        ("GET", "/models") => Route::Models,
        ("GET" | "HEAD", "" | "/livez") => Route::Root,
        ("GET", "/_stats") => Route::Stats,
        ("POST", "/_script") => Route::Script,
        ("POST", "/_reset") => Route::Reset,
        _ => Route::Unknown,
    }
}

impl Route {
    /// The dialect in which errors on this route are written.
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::Generate(dialect) => dialect,
            Self::CountTokens => Dialect::Messages,
            _ => Dialect::Chat,
        }
    }

    /// Whether scripts, counters and the list of requests apply.
    pub(super) fn is_counted(self) -> bool {
        matches!(self, Self::Generate(_) | Self::CountTokens | Self::Embeddings)
    }
}

/// The credential of a request, or an empty text.
pub(super) fn credential(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let found = bearer.or_else(|| ["x-api-key", "api-key", "x-goog-api-key"].into_iter().find_map(text));
    found.unwrap_or_default().to_owned()
}

/// A function that the caller offers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    /// JSON schema of its arguments.
    pub(super) schema: Value,
}

/// What one request asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) stream: bool,
    /// Chat Completions: whether a stream ends with a usage chunk.
    pub(super) include_usage: bool,
    /// The text of the last turn, when the caller's user spoke it.
    pub(super) prompt: String,
    /// The function to call, when one is offered and the prompt says "use the tool".
    pub(super) tool: Option<Tool>,
    /// Size of the body: the measure of input tokens.
    pub(super) body_bytes: usize,
    /// Responses: the tools, which the answer repeats.
    pub(super) tools: Value,
}

impl Ask {
    /// Reads a body; the error is a text for the caller.
    pub(super) fn parse(dialect: Dialect, bytes: &[u8]) -> Result<Self, String> {
        let body: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("invalid JSON body: {error}"))?;
        let model = body["model"].as_str().filter(|model| !model.is_empty());
        let model = model.ok_or("model: a text is required")?.to_owned();
        let turns = match dialect {
            Dialect::Messages | Dialect::Chat => &body["messages"],
            Dialect::Responses => &body["input"],
        };
        let prompt = match turns {
            Value::Array(turns) => turns.last().map(last_words).unwrap_or_default(),
            Value::String(text) if dialect == Dialect::Responses => text.clone(),
            _ if dialect == Dialect::Responses => {
                return Err("input: a text or a list is required".to_owned());
            }
            _ => return Err("messages: a list is required".to_owned()),
        };
        if dialect == Dialect::Messages && !body["max_tokens"].is_u64() {
            return Err("max_tokens: a whole number is required".to_owned());
        }
        let is_asked_for = prompt.to_lowercase().contains("use the tool");
        Ok(Self {
            tool: if is_asked_for { first_tool(dialect, &body["tools"]) } else { None },
            stream: body["stream"] == true,
            include_usage: body["stream_options"]["include_usage"] == true,
            tools: body["tools"].as_array().cloned().unwrap_or_default().into(),
            body_bytes: bytes.len(),
            model,
            prompt,
        })
    }
}

/// The text of a turn that the user spoke: a text, or the text parts of a list. Tool results say nothing.
fn last_words(turn: &Value) -> String {
    if turn.get("role").is_some_and(|role| role != "user") {
        return String::new();
    }
    match &turn["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// The first tool that the caller itself runs and that takes JSON arguments.
fn first_tool(dialect: Dialect, tools: &Value) -> Option<Tool> {
    tools.as_array()?.iter().find_map(|tool| {
        let (function, schema) = match dialect {
            Dialect::Messages => (tool, "input_schema"),
            Dialect::Chat => (&tool["function"], "parameters"),
            Dialect::Responses if tool["type"] == "function" => (tool, "parameters"),
            Dialect::Responses => return None,
        };
        let schema = match dialect {
            Dialect::Messages => function.get(schema)?.clone(),
            Dialect::Chat | Dialect::Responses => function[schema].clone(),
        };
        Some(Tool { name: function["name"].as_str()?.to_owned(), schema })
    })
}
