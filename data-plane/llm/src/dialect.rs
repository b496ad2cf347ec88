//! Which protocol a call speaks and what it wants, from its method, path and headers. Pure.

mod kind;
mod table;
#[cfg(test)]
mod tests;

use contract::usage::Dialect;
pub use kind::{Class, EndpointKind};
pub use table::{Family, ROWS, Row};

/// A recognised call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'p> {
    /// The caller's protocol: decides the form of errors and which providers can serve.
    pub dialect: Dialect,
    /// What the call wants.
    pub kind: EndpointKind,
    /// The path without its `/v1`, starting with a slash: what is joined to a provider's base URL.
    pub tail: &'p str,
    /// Whether the call may be sent again when it is not known what became of it.
    pub repeatable: bool,
}

impl<'p> Route<'p> {
    /// Whether its answer may be an event stream that begins late. Speech and transcripts may be events, too, but
    /// nothing waits for their head in vain; everything else is one document.
    pub fn answers_events(&self) -> bool {
        match self.kind {
            EndpointKind::Messages | EndpointKind::Responses | EndpointKind::ChatCompletions => true,
            EndpointKind::OpenAiOther => self.tail == "/completions" || self.tail.starts_with("/images/"),
            _ => false,
        }
    }

    /// Whether its answer may be plain text, which is empty where there was nothing to hear.
    pub fn answers_plain_text(&self) -> bool {
        self.kind == EndpointKind::OpenAiOther
            && matches!(self.tail, "/audio/transcriptions" | "/audio/translations")
    }

    /// The model in the path of `GET /v1/models/{id}`; ids may hold slashes and percent escapes.
    pub fn model_id(&self) -> Option<&'p str> {
        (self.kind == EndpointKind::Model).then(|| self.tail.trim_start_matches("/models/"))
    }
}

/// Paths that callers also use without `/v1`, because their base URL lacks it.
const BARE: &[&str] = &["messages", "responses", "chat", "embeddings", "models"];

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
    let row = table::find(method, rest)?;
    // Only names of models are compared unescaped, and only by the gateway itself.
    if row.path != rest && is_disguised(rest, row.kind == EndpointKind::Model) {
        return None;
    }
    let (dialect, kind) = match row.family {
        Family::Of(dialect) => (dialect, row.kind),
        Family::Callers => {
            let dialect = caller(header);
            let anthropic = dialect == Dialect::Anthropic && row.kind == EndpointKind::OpenAiResource;
            (dialect, if anthropic { EndpointKind::AnthropicResource } else { row.kind })
        }
    };
    Some(Route { dialect, kind, tail, repeatable: row.repeatable })
}

/// Whether an upstream may read another path out of this one: `//`, `/./`, `%63hat`. What a call costs and which
/// limits hold is decided by the path as it is read here, so both must read the same.
fn is_disguised(rest: &str, may_be_escaped: bool) -> bool {
    let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.contains(['\\', ';']);
    rest.split('/').any(odd) || (!may_be_escaped && rest.contains('%'))
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
