//! `GET /v1/models`: the models that the caller's providers serve and that the caller may use.

use super::body::Body;
use super::caller::Caller;
use super::head::header;
use super::refuse::{Refusal, json};
use crate::table::{Snapshot, Upstream, of_kind};
use contract::ids::KeyId;
use contract::table::MatchType;
use contract::usage::Dialect;
use http::request::Parts;
use http::{Response, StatusCode};
use llm::dialect::Route;
use llm::models::Model;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// Lists that are remembered per worker; beyond, all are forgotten and made again.
const MOST_LISTS: usize = 256;
/// A longer name of a program is cut, as in records.
const MAX_AGENT: usize = 256;

/// The lists of this worker's callers, made once per table: a list of all priced models is long, and whoever may ask
/// for it may ask often.
#[derive(Default)]
pub struct Lists(RefCell<Known>);

#[derive(Default)]
struct Known {
    /// Where the table lies that they were made from. Held weakly, so that its place is not given to another one.
    table: Weak<Snapshot>,
    lists: HashMap<(KeyId, String), Rc<[Model]>>,
}

impl Lists {
    fn get(&self, table: &Arc<Snapshot>, caller: &Caller, agent: &str) -> Rc<[Model]> {
        let mut known = self.0.borrow_mut();
        if !std::ptr::eq(known.table.as_ptr(), Arc::as_ptr(table)) {
            *known = Known { table: Arc::downgrade(table), lists: HashMap::new() };
        }
        let agent = &agent[..agent.floor_char_boundary(MAX_AGENT.min(agent.len()))];
        let key = (caller.key.id, agent.to_owned());
        if let Some(list) = known.lists.get(&key) {
            return Rc::clone(list);
        }
        // When a model became known is not kept; a constant keeps the answer the same over all proxies.
        let models = names(table, caller, agent).into_iter().map(|id| Model { id, created: 0 });
        let list: Rc<[Model]> = models.collect();
        if known.lists.len() >= MOST_LISTS {
            known.lists.clear();
        }
        known.lists.insert(key, Rc::clone(&list));
        list
    }
}

/// The list, or one entry of it where the path names a model, in the caller's form.
pub fn answer(
    lists: &Lists,
    table: &Arc<Snapshot>,
    caller: &Caller,
    head: &Parts,
    route: &Route<'_>,
) -> Response<Body> {
    let agent = header(&head.headers, "user-agent").unwrap_or_default();
    let models = lists.get(table, caller, agent);
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
