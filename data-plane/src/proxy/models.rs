//! `GET /v1/models`: the models that the caller's providers serve and that the caller may use.

use super::body::Body;
use super::caller::Caller;
use super::head::header;
use super::refuse::{Refusal, json};
use crate::table::{Snapshot, Upstream, of_kind};
use contract::table::MatchType;
use contract::usage::Dialect;
use http::request::Parts;
use http::{Response, StatusCode};
use llm::dialect::Route;
use llm::models::Model;
use std::collections::BTreeSet;

/// The list, or one entry of it where the path names a model, in the caller's form.
pub fn answer(table: &Snapshot, caller: &Caller, head: &Parts, route: &Route<'_>) -> Response<Body> {
    let agent = header(&head.headers, "user-agent").unwrap_or_default();
    // When a model became known is not kept; a constant keeps the answer the same over all proxies.
    let models: Vec<Model> =
        names(table, caller, agent).into_iter().map(|id| Model { id, created: 0 }).collect();
    let Some(id) = route.model_id() else {
        return json(StatusCode::OK, llm::models::render_list(route.dialect, &models));
    };
    match llm::models::render_one(route.dialect, &models, id) {
        Some(body) => json(StatusCode::OK, body),
        None => Refusal::UnknownUpstream(id.to_owned()).response(route.dialect),
    }
}

fn names(table: &Snapshot, caller: &Caller, agent: &str) -> BTreeSet<String> {
    let groups = caller.groups();
    let serves = |up: &Upstream| up.row.enabled && up.serves_group(groups) && up.serves_client(agent);
    let mut names = BTreeSet::new();
    for dialect in Dialect::ALL {
        let pool = table.upstreams(caller.user.owner_id, *dialect);
        for up in pool.iter().filter(|up| serves(up)) {
            served(table, up, &mut names);
        }
    }
    let allowed = &caller.user.allowed_models;
    if !allowed.is_empty() {
        names.retain(|name| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)));
    }
    names
}

/// What one provider serves: its allow list where it has one, else the priced models of its vendor; and
/// the names that it redirects.
fn served(table: &Snapshot, up: &Upstream, names: &mut BTreeSet<String>) {
    if up.row.allowed_models.is_empty() {
        names.extend(table.priced_models().filter(|model| of_kind(up.row.kind, model)).map(str::to_owned));
    }
    let rules = up.row.allowed_models.iter();
    let exact = rules.filter(|rule| rule.match_type == MatchType::Exact).map(|rule| &rule.pattern);
    names.extend(exact.cloned());
    let sources = up.row.redirects.iter().filter(|rule| rule.match_type == MatchType::Exact);
    names.extend(sources.map(|rule| rule.pattern.clone()).filter(|model| up.allows_model(model)));
}
