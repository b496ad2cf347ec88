//! What the body asks for, and whether the caller may ask for it. Pure.

use super::caller::Caller;
use super::head::header;
use super::refuse::Refusal;
use crate::table::client_allowed;
use bytes::Bytes;
use http::request::Parts;
use llm::dialect::Route;
use llm::request::Ask;

/// Longest name of a model; a record holds it once per attempt.
const MAX_MODEL: usize = 256;

/// The members that a gateway must see. Bodies that are not JSON (uploads) pass unread.
pub fn read<'a>(head: &Parts, route: &Route<'_>, body: &'a Bytes) -> Result<Option<Ask<'a>>, Refusal> {
    let json = header(&head.headers, "content-type").is_none_or(|kind| kind.contains("json"));
    if body.is_empty() && !route.kind.needs_model() {
        return Ok(None);
    }
    // What is metered is read whatever it calls itself: an upstream may read it, too.
    let read = json || route.kind.is_metered() && body.trim_ascii_start().starts_with(b"{");
    if !read && !route.kind.needs_model() {
        return Ok(None);
    }
    let ask = llm::request::parse(body).map_err(|error| Refusal::BodyInvalid(error.to_string()))?;
    if route.kind.needs_model() && ask.model.as_deref().is_none_or(str::is_empty) {
        return Err(Refusal::BodyInvalid("`model` is missing in the request body".to_owned()));
    }
    if ask.model.as_deref().is_some_and(|model| model.len() > MAX_MODEL) {
        return Err(Refusal::BodyInvalid(format!("`model` is longer than {MAX_MODEL} bytes")));
    }
    Ok(Some(ask))
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
    let agent = header(&head.headers, "user-agent").unwrap_or_default();
    let fine = client_allowed(&user.allowed_clients, &user.blocked_clients, agent);
    if fine { Ok(()) } else { Err(Refusal::ClientNotAllowed) }
}
