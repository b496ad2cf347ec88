//! What the body asks for, and whether the caller may ask for it. Pure.

use super::caller::Caller;
use super::head::{header, only};
use super::refuse::Refusal;
use crate::table::{Snapshot, client_allowed};
use bytes::Bytes;
use contract::table::Measure;
use http::Method;
use http::request::Parts;
use llm::EndpointKind;
use llm::dialect::Route;
use llm::request::{Ask, is_form, parse, parse_form};

/// Longest name of a model; a record holds it once per attempt.
const MAX_MODEL: usize = 256;

/// The members that a gateway must see. Only uploads and the like pass unread.
pub fn read<'a>(head: &Parts, route: &Route<'_>, body: &'a Bytes) -> Result<Option<Ask<'a>>, Refusal> {
    // An upstream may go by the second one.
    let content_type =
        only(&head.headers, "content-type").map_err(|several| Refusal::BodyInvalid(several.to_string()))?;
    let mut ask = match content_type.filter(|kind| is_form(kind)) {
        Some(kind) if route.kind.takes_form() => {
            parse_form(kind, body).map_err(|error| Refusal::BodyInvalid(error.to_string()))?
        }
        _ if route.kind.is_resource() && passes_unread(content_type, body) => return Ok(None),
        // Whatever it calls itself: an upstream may read it as JSON, too. It is told that it is.
        _ => {
            let mut ask = parse(body).map_err(|error| Refusal::BodyInvalid(error.to_string()))?;
            ask.mislabelled = !content_type.is_some_and(says_json);
            ask
        }
    };
    // What is never streamed is a document, whatever was asked for.
    ask.stream &= route.answers_events();
    if route.kind.needs_model() && ask.model.as_deref().is_none_or(str::is_empty) {
        return Err(Refusal::BodyInvalid("`model` is missing in the request body".to_owned()));
    }
    if ask.model.as_deref().is_some_and(|model| model.len() > MAX_MODEL) {
        return Err(Refusal::BodyInvalid(format!("`model` is longer than {MAX_MODEL} bytes")));
    }
    Ok(Some(ask))
}

/// Whether every reader takes this for what we do: JSON in UTF-8.
fn says_json(content_type: &str) -> bool {
    const JSON: &str = "application/json";
    let rest = content_type.get(..JSON.len()).filter(|kind| kind.eq_ignore_ascii_case(JSON));
    rest.is_some_and(|_| match content_type[JSON.len()..].trim_start().strip_prefix(';') {
        None => content_type.len() == JSON.len(),
        Some(charset) => charset.trim().eq_ignore_ascii_case("charset=utf-8"),
    })
}

fn passes_unread(content_type: Option<&str>, body: &Bytes) -> bool {
    body.is_empty() || content_type.is_some_and(|kind| !kind.contains("json"))
}

/// Whether the caller's lists of models and programs let the request through.
pub fn allowed(caller: &Caller, head: &Parts, body: &[u8], ask: Option<&Ask<'_>>) -> Result<(), Refusal> {
    let user = &caller.user;
    if let Some(model) = ask.and_then(|ask| ask.model.as_deref()) {
        let models = &user.allowed_models;
        if !models.is_empty() && !models.iter().any(|allowed| allowed.eq_ignore_ascii_case(model)) {
            return Err(Refusal::ModelNotAllowed(model.to_owned()));
        }
    }
    if let Some(ask) = ask
        && !user.allowed_models.is_empty()
    {
        // What an upstream may fall back to is served under this key like the first one.
        let others = ask.other_models(body).map_err(|error| Refusal::BodyInvalid(error.to_string()))?;
        let allowed = |model: &String| user.allowed_models.iter().any(|own| own.eq_ignore_ascii_case(model));
        if let Some(model) = others.into_iter().find(|model| !allowed(model)) {
            return Err(Refusal::ModelNotAllowed(model.chars().take(MAX_MODEL).collect()));
        }
    }
    if user.allowed_clients.is_empty() && user.blocked_clients.is_empty() {
        return Ok(());
    }
    let agent = header(&head.headers, "user-agent").unwrap_or_default();
    let fine = client_allowed(&user.allowed_clients, &user.blocked_clients, agent);
    if fine { Ok(()) } else { Err(Refusal::ClientNotAllowed) }
}

/// Whether the caller may reach what the upstream accounts keep. Known from the head, so that nothing is uploaded in
/// vain.
pub fn may_reach(table: &Snapshot, caller: &Caller, head: &Parts, route: &Route<'_>) -> Result<(), Refusal> {
    if !route.kind.is_resource() {
        return Ok(());
    }
    if !table.owner(caller.user.owner_id).upstream_resources {
        return Err(Refusal::ResourcesOff);
    }
    // What reads or removes costs nothing.
    let reads = [Method::GET, Method::HEAD, Method::DELETE].contains(&head.method);
    if reads { Ok(()) } else { accounted(caller, "this call") }
}

/// Whether the caller may have an answer stored, to read it later.
pub fn may_store(
    table: &Snapshot,
    caller: &Caller,
    route: &Route<'_>,
    ask: Option<&Ask<'_>>,
) -> Result<(), Refusal> {
    let responses = matches!(route.kind, EndpointKind::Responses | EndpointKind::ResponsesCompact);
    if !responses || !ask.is_some_and(|ask| ask.background) {
        return Ok(());
    }
    if !table.owner(caller.user.owner_id).upstream_resources {
        return Err(Refusal::BackgroundOff);
    }
    accounted(caller, "`background`")
}

/// What an account makes and keeps is neither billed nor checked for models, so it is nothing for callers who are held
/// to either.
fn accounted(caller: &Caller, what: &'static str) -> Result<(), Refusal> {
    let mut limits = caller.key.limits.iter().chain(&caller.user.limits);
    let is_held = limits.any(|limit| limit.measure == Measure::Usd) || !caller.user.allowed_models.is_empty();
    if is_held { Err(Refusal::Unaccounted(what)) } else { Ok(()) }
}

/// Whether a WebSocket is asked for. Clients that try one first go on over HTTP when they are told 426.
pub fn wants_websocket(head: &Parts) -> bool {
    head.method == Method::GET
        && header(&head.headers, "upgrade").is_some_and(|wish| wish.eq_ignore_ascii_case("websocket"))
}

#[cfg(test)]
mod tests;
