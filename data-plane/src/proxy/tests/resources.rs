//! What upstream accounts keep, where the owner lets callers reach it: who is held to money or to models makes nothing
//! there, and nothing is billed twice.

use super::answers::{self, Used, request};
use super::call::Call;
use super::reply::Reply;
use super::walk::{Walk, key, run, usd};
use crate::table::fixtures;
use contract::ids::UserId;
use contract::table::{Limit, Measure, OwnerConfig, ProviderKind, Scope};
use contract::usage::Dialect;
use contract::window::Window;
use http::Method;
use llm::dialect::ROWS;
use serde_json::json;
use std::collections::BTreeSet;

const KINDS: [ProviderKind; 3] = [ProviderKind::Claude, ProviderKind::OpenAiCompatible, ProviderKind::Codex];
const FORM: &str = "multipart/form-data; boundary=b";

/// Keys and users 1 to 7, the first two of which are held to nothing that this is about; providers of each kind.
async fn house() -> Walk {
    let windows = [Window::Total, Window::Month, Window::Day { reset_minute: 0 }];
    let money = windows.map(|window| Limit { window, ..usd(1_000_000) });
    let requests = Limit { measure: Measure::Requests, window: Window::Minute, amount: 1_000_000, ..usd(0) };
    let walk = Walk::new().rows(|rows| {
        let owner = OwnerConfig::new(UserId(1), chrono_tz::UTC);
        rows.owners.push(OwnerConfig { upstream_resources: true, ..owner });
        rows.users = (1..=7).map(|id| fixtures::user(id, &format!("user{id}"))).collect();
        rows.users.iter_mut().for_each(|user| user.owner_id = UserId(1));
        rows.keys = (1..=7).map(|id| key(id, id)).collect();
        rows.keys[1].limits = vec![requests.clone()];
        rows.keys[2].limits = vec![money[0].clone()];
        rows.keys[3].limits = vec![requests, money[1].clone()];
        rows.users[4].limits = vec![money[2].clone()];
        rows.users[5].allowed_models = vec!["m".to_owned()];
        rows.users[6].allowed_models = vec!["m".to_owned()];
        rows.users[6].limits = vec![money[0].clone()];
    });
    let walk = walk.providers([1, 2, 3], |id, row| {
        row.owner_id = UserId(1);
        row.kind = KINDS[usize::try_from(id).unwrap() - 1];
    });
    walk.start().await
}

fn is_held(id: i64) -> bool {
    id > 2
}

fn asked(walk: &Walk) -> usize {
    (1..=3).map(|id| walk.host(id).count()).sum()
}

/// Every path of a resource, with names in place of placeholders.
fn paths() -> BTreeSet<String> {
    let rows = ROWS.iter().filter(|row| row.kind.is_resource());
    let named = |path: &str| {
        let segments = path.split('/').map(|word| if word.starts_with('{') { "x" } else { word });
        segments.collect::<Vec<_>>().join("/")
    };
    let below = |path: &'static str| match path.strip_suffix('…') {
        Some(path) => vec![named(path), named(path) + "/x", named(path) + "/x/y/z"],
        None => vec![named(path)],
    };
    rows.flat_map(|row| below(row.path)).collect()
}

#[test]
fn who_is_held_to_money_or_models_makes_nothing_and_others_do() {
    run(async {
        let walk = house().await;
        (1..=3).for_each(|id| _ = walk.host(id).always(Reply::json(200, "{\"id\":\"made\"}")));
        let mut made = 0;
        for path in paths() {
            for method in [Method::POST, Method::PUT, Method::PATCH] {
                for (content_type, body) in [
                    ("application/json", "{\"model\":\"m\",\"purpose\":\"batch\"}".to_owned()),
                    (
                        FORM,
                        "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n"
                            .to_owned(),
                    ),
                ] {
                    let ask = |id| {
                        let call = Call::new(method.clone(), &format!("/v1/{path}")).body(body.clone());
                        walk.send(call.key(id).header("content-type", content_type))
                    };
                    let full = format!("/v1/{path}");
                    let route = llm::dialect::route(method.as_str(), &full, &|_| None::<&str>);
                    // A path that is stored answers to those who read it takes questions of those who make it.
                    if route.as_ref().is_some_and(|route| !route.kind.is_resource()) {
                        continue;
                    }
                    for id in 1..=7 {
                        let answer = ask(id).await;
                        let want = match &route {
                            None => (404, 0),
                            Some(_) if is_held(id) => (403, 0),
                            Some(_) => (200, 1),
                        };
                        let seen = (answer.status, asked(&walk));
                        assert_eq!(seen, want, "{id}: {method} {path} {}", answer.text());
                    }
                    let exists = route.is_some();
                    made += usize::from(exists);
                }
            }
        }
        assert!(made > 50, "{made} calls");
    });
}

#[test]
fn an_answer_in_the_background_is_for_who_is_held_to_nothing() {
    run(async {
        let walk = house().await;
        walk.host(3).always(answers::document(Dialect::Responses, Used { input: 1, output: 1 }));
        for (background, makes) in [(json!(true), true), (json!("yes"), true), (json!(false), false)] {
            let mut body = request(Dialect::Responses, "m", false);
            body["background"] = background;
            for id in 1..=7 {
                let answer = walk.send(Call::post("/v1/responses", body.to_string()).key(id)).await;
                let want = if makes && is_held(id) { (403, 0) } else { (200, 1) };
                assert_eq!((answer.status, asked(&walk)), want, "{id}: {body} {}", answer.text());
            }
        }
        // A WebSocket would be one more way to ask for answers.
        for path in ["/v1/realtime", "/v1/responses"] {
            for id in 1..=7 {
                let call = Call::new(Method::GET, path).key(id).header("upgrade", "websocket");
                assert_eq!((walk.send(call).await.status, asked(&walk)), (426, 0), "{id}: {path}");
            }
        }
    });
}

#[test]
fn what_is_stored_is_billed_when_it_is_made_and_not_when_it_is_read() {
    let usage = json!({"input_tokens": 100, "output_tokens": 50, "total_tokens": 150});
    let stored = |status: &str, usage: &serde_json::Value| {
        let body = json!({"id": "resp_1", "object": "response", "status": status, "model": "m",
            "output": [], "usage": usage});
        Reply::json(200, body)
    };
    let events = || {
        let used = Used { input: 100, output: 50 };
        answers::stream(Dialect::Responses, used)
    };
    run(async {
        let walk = house().await;
        let mut ask = request(Dialect::Responses, "m", false);
        ask["store"] = json!(true);
        let mut later = ask.clone();
        later["background"] = json!(true);
        let read = |path: &str| Call::new(Method::GET, path);
        let calls = [
            (Call::post("/v1/responses", ask.to_string()), stored("completed", &usage), true),
            (read("/v1/responses/resp_1"), stored("completed", &usage), false),
            (read("/v1/responses/resp_1?stream=true"), events(), false),
            (Call::post("/v1/responses", later.to_string()), stored("queued", &json!(null)), true),
            (read("/v1/responses/resp_1"), stored("in_progress", &json!(null)), false),
            (read("/v1/responses/resp_1"), stored("completed", &usage), false),
            (read("/v1/responses/resp_1"), stored("completed", &usage), false),
            (read("/v1/responses/resp_1?stream=true&starting_after=1"), events(), false),
            (Call::post("/v1/responses/resp_1/cancel", "{}"), stored("cancelled", &usage), false),
        ];
        for (at, (call, reply, is_billed)) in calls.into_iter().enumerate() {
            walk.host(3).next(reply);
            let before = walk.spent_by(1);
            assert_eq!(walk.send(call).await.status, 200, "{at}");
            let records = walk.records().await;
            let [record] = records.as_slice() else { panic!("{at}: {records:?}") };
            assert_eq!(record.cost.is_some_and(|cost| !cost.is_zero()), is_billed, "{at}: {record:?}");
            assert_eq!(walk.spent_by(1) > before, is_billed, "{at}");
        }
        assert_eq!(walk.ledger.sum(Scope::User(UserId(1)), 0), walk.spent_by(1));
    });
}
