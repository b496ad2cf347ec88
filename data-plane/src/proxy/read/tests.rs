use super::*;
use crate::table::fixtures::{key, sealer, user};
use crate::table::{Builder, Change, RawSection};
use contract::ids::UserId;
use contract::table::{Limit, OwnerConfig, Rows};
use contract::window::Window;
use http::Request;
use std::sync::Arc;

const FORM: &str = "multipart/form-data; boundary=b";
const MODEL: &str = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--";
const FILE: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n--b--";

fn call(method: &str, path: &str, types: &[&str]) -> Parts {
    let mut request = Request::builder().method(method).uri(path);
    for content_type in types {
        request = request.header("content-type", *content_type);
    }
    request.body(()).expect("request").into_parts().0
}

fn routed(head: &Parts) -> Route<'_> {
    llm::dialect::route(head.method.as_str(), head.uri.path(), &|_| None).expect("a known call")
}

/// The model that is read, `-` for a body that passes unread, else the refusal.
fn model(call: &Parts, body: &str) -> String {
    let body = Bytes::copy_from_slice(body.as_bytes());
    match read(call, &routed(call), &body) {
        Ok(Some(ask)) => ask.model.as_deref().unwrap_or_default().to_owned(),
        Ok(None) => "-".to_owned(),
        Err(refusal) => {
            assert_eq!(refusal.status(), 400, "{refusal}");
            refusal.to_string()
        }
    }
}

#[test]
fn every_metered_body_names_its_model() {
    let json = r#"{"model":"m","prompt":"p"}"#;
    let missing = "`model` is missing in the request body";
    for (path, content_type, body, want) in [
        ("/v1/images/edits", FORM, MODEL, "m"),
        ("/v1/images/variations", FORM, MODEL, "m"),
        ("/v1/audio/transcriptions", FORM, MODEL, "m"),
        ("/v1/audio/translations", "Multipart/Form-Data;boundary=b", MODEL, "m"),
        ("/v1/images/edits", "application/json", json, "m"),
        ("/v1/images/edits", FORM, FILE, missing),
        ("/v1/images/generations", "application/json", r#"{"prompt":"p"}"#, missing),
        ("/v1/images/generations", "application/json", r#"{"model":null,"prompt":"p"}"#, missing),
        ("/v1/images/generations", "application/json", r#"{"model":"","prompt":"p"}"#, missing),
        ("/v1/completions", "text/plain", r#"{"prompt":"p"}"#, missing),
        ("/v1/embeddings", "application/octet-stream", json, "m"),
        ("/v1/responses/compact", "application/json", "{}", missing),
        ("/v1/responses/input_tokens", "application/json", "{}", missing),
        ("/v1/messages/count_tokens", "application/json", "{}", missing),
        ("/v1/moderations", "application/json", r#"{"input":"p"}"#, ""),
        ("/v1/moderations", "application/json", r#"{"input":"p","model":"m"}"#, "m"),
    ] {
        assert_eq!(model(&call("POST", path, &[content_type]), body), want, "{path} {content_type} {body}");
    }
    for (path, types, body) in [
        // What calls itself one thing and is another.
        ("/v1/images/edits", &["application/json"][..], MODEL),
        ("/v1/images/edits", &[FORM], json),
        ("/v1/images/edits", &[], MODEL),
        ("/v1/chat/completions", &[FORM], MODEL),
        ("/v1/messages", &[FORM], MODEL),
        ("/v1/moderations", &["text/plain"], "hello"),
        ("/v1/audio/speech", &["application/octet-stream"], "\u{feff}{\"model\":\"m\"}"),
        ("/v1/images/edits", &["application/json", FORM], json),
        ("/v1/embeddings", &["application/json", "application/json"], json),
        ("/v1/images/generations", &["application/json"], ""),
    ] {
        let said = model(&call("POST", path, types), body);
        assert!(said.len() > 20, "{path} {types:?} {body}: {said}");
    }
    for (method, content_type, body, want) in [
        ("POST", FORM, FILE, "-"),
        ("POST", "application/json", json, "m"),
        ("POST", "application/json", "{}", ""),
        ("GET", "application/json", "", "-"),
    ] {
        assert_eq!(model(&call(method, "/v1/files", &[content_type]), body), want, "{method} {body}");
    }
}

fn table(upstream_resources: bool) -> Arc<Snapshot> {
    let owner = OwnerConfig { upstream_resources, ..OwnerConfig::new(UserId(1), chrono_tz::UTC) };
    let rows = Rows { owners: vec![owner], ..Rows::default() };
    let mut builder = Builder::new(sealer());
    let applied = builder.apply(Change::whole(1, vec![RawSection::of("owners", &rows)]));
    applied.map(|applied| applied.snapshot).unwrap_or_else(|_| panic!("a table"))
}

/// A caller without limits, one with a limit of requests, one with money on the key, on the user, with a list of models.
fn callers() -> [(Caller, bool); 5] {
    let limit = |measure, window| Limit { measure, window, amount: 1, since_ms: None, absent_until_ms: None };
    let (usd, rpm) = (limit(Measure::Usd, Window::Month), limit(Measure::Requests, Window::Minute));
    let made = |change: &dyn Fn(&mut contract::table::Key, &mut contract::table::User)| {
        let (mut key, mut user) = (key(7), user(7, "ann"));
        change(&mut key, &mut user);
        Caller::new(Arc::new(key), Arc::new(user))
    };
    [
        (made(&|_, _| {}), false),
        (made(&|key, _| key.limits.push(rpm.clone())), false),
        (made(&|key, _| key.limits.push(usd.clone())), true),
        (made(&|_, user| user.limits.push(usd.clone())), true),
        (made(&|_, user| user.allowed_models.push("m".to_owned())), true),
    ]
}

#[test]
fn resources_are_for_those_who_may() {
    let kind =
        |answer: Result<(), Refusal>| answer.err().map(|refusal| (refusal.status().as_u16(), refusal.kind()));
    let (off, on) = (table(false), table(true));
    let closed = Some((403, "upstream_resources_off"));
    let unaccounted = Some((403, "unaccounted_resource"));
    for (caller, is_held) in callers() {
        for (method, path, makes) in [
            ("GET", "/v1/files", false),
            ("GET", "/v1/organization/costs", false),
            ("DELETE", "/v1/files/f", false),
            ("GET", "/v1/responses/r", false),
            ("POST", "/v1/files", true),
            ("POST", "/v1/batches", true),
            ("POST", "/v1/messages/batches", true),
            ("POST", "/v1/threads/t/runs", true),
        ] {
            let head = call(method, path, &[]);
            let route = routed(&head);
            assert_eq!(kind(may_reach(&off, &caller, &head, &route)), closed, "{path}");
            let want = unaccounted.filter(|_| makes && is_held);
            assert_eq!(kind(may_reach(&on, &caller, &head, &route)), want, "{method} {path}");
        }
        for path in ["/v1/messages", "/v1/images/edits", "/v1/moderations"] {
            let head = call("POST", path, &[]);
            assert_eq!(kind(may_reach(&off, &caller, &head, &routed(&head))), None, "{path}");
        }
        for (path, body, stores) in [
            ("/v1/responses", r#"{"model":"m","background":true}"#, true),
            ("/v1/responses", r#"{"model":"m","Background":1}"#, true),
            ("/v1/responses", r#"{"model":"m","background":true,"background":false}"#, true),
            ("/v1/responses", r#"{"model":"m","background":false}"#, false),
            ("/v1/responses", r#"{"model":"m","background":null}"#, false),
            ("/v1/responses", r#"{"model":"m"}"#, false),
            ("/v1/images/generations", r#"{"model":"m","background":"transparent"}"#, false),
        ] {
            let (head, body) = (call("POST", path, &[]), Bytes::copy_from_slice(body.as_bytes()));
            let route = routed(&head);
            let ask = read(&head, &route, &body).expect("a good body");
            let of = |table: &Snapshot| kind(may_store(table, &caller, &route, ask.as_ref()));
            assert_eq!(of(&off), stores.then_some((400, "upstream_resources_off")), "{body:?}");
            assert_eq!(of(&on), unaccounted.filter(|_| stores && is_held), "{body:?}");
        }
    }
}

#[test]
fn only_a_websocket_is_told_that_there_is_none() {
    let asks = |method: &str, upgrade: &str| {
        let mut head = call(method, "/v1/responses", &[]);
        head.headers.insert("upgrade", upgrade.parse().expect("value"));
        wants_websocket(&head)
    };
    assert!(asks("GET", "websocket") && asks("GET", "WebSocket"));
    assert!(!asks("POST", "websocket") && !asks("GET", "h2c"));
}
