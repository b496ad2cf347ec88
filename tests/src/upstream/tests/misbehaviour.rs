//! Scripts and directives, one by one.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::answer::{Break, Kind};
use super::super::{Answer, Keep, Upstream};
use super::{KEY, PATHS, ask, parse, question, send, text};

#[tokio::test]
async fn scripts_are_used_up_in_order() {
    let upstream = Upstream::start().await;
    let body = question("/v1/messages", "hi", false);
    upstream.script([Answer::status(429).retry_after(3), Answer::status(500)]);
    upstream.script_for("abcd", [Answer::status(529)], false);
    let mut got = Vec::new();
    for _ in 0..4 {
        let answer = ask(&upstream, "/v1/messages", &body).await.expect("an answer");
        let wait = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        got.push((answer.status().as_u16(), wait));
    }
    let wanted = [(529, None), (429, Some("3".to_owned())), (500, None), (200, None)];
    assert_eq!(got, wanted);
    upstream.always([Answer::status(503), Answer::ok()]);
    for wanted in [503, 200, 503, 200] {
        assert_eq!(ask(&upstream, "/v1/messages", &body).await.expect("an answer").status(), wanted);
    }
}

#[tokio::test]
async fn errors_speak_the_dialect() {
    let upstream = Upstream::start().await;
    upstream.always([Answer::status(429)]);
    for path in PATHS {
        let got = text(ask(&upstream, path, &question(path, "hi", true)).await).await.expect("a body");
        let got: Value = serde_json::from_str(&got).expect("JSON");
        let wanted = if path == "/v1/messages" { "rate_limit_error" } else { "requests" };
        assert_eq!(got["error"]["type"], wanted, "{path}");
    }
}

#[tokio::test]
async fn streams_break_after_the_wanted_number_of_events() {
    let upstream = Upstream::start().await;
    for path in PATHS {
        let body = question(path, "hi", true);
        upstream.script([Answer::ok().events(20).cut(4), Answer::ok().end_early(5), Answer::error_event()]);

        let mut cut = ask(&upstream, path, &body).await.expect("a head").into_body();
        let mut seen = Vec::new();
        while let Ok(frame) = cut.frame().await.expect("a frame or an error, not the end") {
            seen.extend_from_slice(frame.data_ref().expect("data"));
        }
        assert_eq!(parse(&String::from_utf8_lossy(&seen)).len(), 4, "{path}");

        let early = text(ask(&upstream, path, &body).await).await.expect("a clean end");
        assert_eq!(parse(&early).len(), 5, "{path}");

        let error = parse(&text(ask(&upstream, path, &body).await).await.expect("a clean end"));
        assert_eq!(error.len(), 1);
        assert!(error[0].1.to_string().contains("overloaded"), "{path}: {error:?}");
    }
    assert_eq!(upstream.stats().of(KEY).errors, 9);
}

#[tokio::test]
async fn plain_bodies_break_in_the_middle() {
    let upstream = Upstream::start().await;
    upstream.script([Answer::ok().cut(1)]);
    let body = question("/v1/chat/completions", "hi", false);
    let answer = ask(&upstream, "/v1/chat/completions", &body).await;
    assert!(answer.is_ok(), "the head comes");
    assert!(text(answer).await.is_err());
}

#[tokio::test]
async fn fake_answers_have_status_200() {
    let upstream = Upstream::start().await;
    upstream.script([
        Answer::fake200(),
        Answer::fake200_json(),
        Answer::empty200(),
        Answer::ok().body("custom"),
    ]);
    for wanted in ["<!DOCTYPE html>", r#""error":{"#, "", "custom"] {
        let answer =
            ask(&upstream, "/v1/messages", &question("/v1/messages", "hi", true)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let got = text(Ok(answer)).await.expect("a body");
        assert!(got.contains(wanted) && got.is_empty() == wanted.is_empty(), "{got}");
    }
    assert_eq!(upstream.stats().of(KEY).errors, 3);
}

#[tokio::test]
async fn silence_and_refusal() {
    let upstream = Upstream::start().await;
    let body = question("/v1/messages", "hi", true);
    upstream.script([
        Answer::refuse(),
        Answer::silence(),
        Answer::ok().hang(2),
        Answer::ok().delay_body(PATIENT),
    ]);
    assert!(ask(&upstream, "/v1/messages", &body).await.is_err());

    let silent = async { ask(&upstream, "/v1/messages", &body).await.is_ok() };
    let is_answered = tokio::select! {
        answered = silent => answered,
        _ = upstream.eventually(|stats| stats.of(KEY).in_flight == 1) => false,
    };
    assert!(!is_answered);
    // The caller is gone: its connection ends, and that is counted.
    upstream.eventually(|stats| stats.of(KEY).aborted == 1 && stats.of(KEY).in_flight == 0).await;

    let mut hung = ask(&upstream, "/v1/messages", &body).await.expect("a head").into_body();
    let first = hung.frame().await.expect("a frame").expect("data").into_data().expect("data");
    assert!(first.starts_with(b"event: message_start"));
    drop(hung);
    upstream.eventually(|stats| stats.of(KEY).aborted == 2).await;

    let headers_only = ask(&upstream, "/v1/messages", &body).await.expect("a head without a body");
    assert_eq!(headers_only.status(), 200);
    assert_eq!(upstream.in_flight(), 1);
}

const PATIENT: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn directives_come_by_header_and_by_model() {
    let upstream = Upstream::start().await;
    let mut body = question("/v1/messages", "hi", false);
    let by_header = |text: &'static str| [("x-api-key", KEY), ("x-demo", text)];
    let cases = [("status=418", 418), ("status=503, retry_after=1", 503), ("what=1", 400), ("status=9", 400)];
    for (text, wanted) in cases {
        let got = send(&upstream, "/v1/messages", &by_header(text), &body).await.expect("an answer");
        assert_eq!(got.status(), wanted, "{text}");
    }
    for (model, wanted) in [("ft:gpt-4o:org", 200), ("claude-sonnet-4-5:status=529", 529), ("m:fake200", 200)]
    {
        body["model"] = model.into();
        let got = ask(&upstream, "/v1/messages", &body).await.expect("an answer");
        assert_eq!(got.status(), wanted, "{model}");
        assert_eq!(got.headers()["content-type"] == "text/html; charset=utf-8", model == "m:fake200");
    }
}

#[tokio::test]
async fn scripts_come_by_http() {
    let upstream = Upstream::start().await;
    let script = |body: Value| {
        let upstream = &upstream;
        async move { send(upstream, "/_script", &[], &body).await.expect("an answer").status().as_u16() }
    };
    assert_eq!(script(json!({"credential": "abcd", "steps": [{"status": 500}], "repeat": true})).await, 200);
    assert_eq!(script(json!({"steps": [{"stauts": 500}]})).await, 400);
    assert_eq!(script(json!({"steps": [], "repaet": true})).await, 400);
    let body = question("/v1/messages", "hi", false);
    for _ in 0..2 {
        assert_eq!(ask(&upstream, "/v1/messages", &body).await.expect("an answer").status(), 500);
    }
    let other = send(&upstream, "/v1/messages", &[("x-api-key", "other")], &body).await.expect("an answer");
    assert_eq!(other.status(), 200);
    assert_eq!(script(json!({"credential": "abcd", "steps": []})).await, 200);
    assert_eq!(ask(&upstream, "/v1/messages", &body).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_stopped_upstream_comes_back_on_its_port() {
    let upstream = Upstream::start().await;
    let addr = upstream.addr();
    upstream.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    let again = Upstream::start_on(addr, Keep::TEST).await.expect("the same port");
    assert!(ask(&again, "/v1/models", &Value::Null).await.is_ok());
}

#[test]
fn steps_are_read_strictly() {
    let all = json!({"status": 503, "retry_after": 7, "delay": 1, "delay_body": 2, "gap": 3, "cut": 4, "events": 5,
        "text": "t", "body": {"a": 1}, "headers": {"x-a": "b"}, "usage": {"input": 1, "cache_write_1h": 2}});
    let step = Answer::from_json(&all).expect("a step");
    assert_eq!((step.status, step.break_at, step.events), (Some(503), Some((4, Break::Cut)), Some(5)));
    assert_eq!((step.tokens.input, step.tokens.cache_write_1h, step.headers.len()), (Some(1), Some(2), 2));
    assert_eq!((step.delay, step.delay_body, step.gap), (millis(1), millis(2), millis(3)));
    assert_eq!(Answer::from_directive("silence").map(|step| step.kind), Ok(Kind::Silence));
    assert_eq!(Answer::from_directive("error_event;gap=5").map(|step| step.gap), Ok(millis(5)));
    let bad = [
        (json!({"cut": "x"}), "cut: expected a whole number"),
        (json!({"status": 99}), "status: expected a status from 200 to 599"),
        (json!({"usage": {"inptu": 1}}), "inptu: no such behaviour"),
        (json!({"nap": 1}), "nap: no such behaviour"),
        (json!([]), "a step is an object of behaviours"),
    ];
    for (step, wanted) in bad {
        assert_eq!(Answer::from_json(&step).map_err(|error| error.to_string()), Err(wanted.to_owned()));
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
