//! What becomes of requests that are under way when their proxy is killed: a record each, which costs what a caller's
//! hang-up at that moment costs.

use super::answers::{self, Used, document, request};
use super::call::Call;
use super::reply::Reply;
use super::walk::{Walk, run};
use crate::upstream::memory::Door;
use contract::ids::ProviderId;
use contract::usage::{Dialect, Outcome, UsageRecord, UsageSource};
use rust_decimal::Decimal;
use serde_json::json;

const DIALECT: Dialect = Dialect::Anthropic;

fn ask() -> Call {
    Call::post(answers::path(DIALECT), request(DIALECT, "m", true).to_string())
}

async fn two() -> Walk {
    Walk::new().providers([1, 2], |id, row| row.priority = i32::try_from(id).unwrap()).start().await
}

/// The record of the one call that was under way at a kill.
async fn killed_while(walk: &mut Walk, call: Call) -> UsageRecord {
    drop(walk.begin(call));
    walk.quiet().await;
    walk.kill().await;
    let mut records = walk.records().await;
    assert_eq!(records.len(), 1, "{records:?}");
    walk.kill().await;
    assert_eq!(walk.records().await.len(), 0, "once");
    records.remove(0)
}

#[test]
fn only_what_the_upstream_had_at_a_kill_is_billed() {
    let down = || Reply::error(500, "api_error", "down");
    let opening = || Reply::events().all(answers::opening(DIALECT, Used { input: 9, output: 1 }));
    let words = || opening().all(answers::content(DIALECT, "words")).silence();
    let refusal = || Reply::pieces(400, "application/json").piece("{").silence();
    run(async {
        for (name, first, second, provider, is_billed) in [
            ("no connection yet", None, None, 1, false),
            ("waits for the head", Some(Reply::never()), None, 1, true),
            ("waits for content", Some(opening().silence()), None, 1, true),
            ("in the midst of an answer", Some(words()), None, 1, true),
            ("in the midst of a refusal", Some(refusal()), None, 1, false),
            ("between two attempts", Some(down()), None, 1, false),
            ("no connection to the next one", Some(Reply::hang_up()), None, 2, false),
            ("at the next one", Some(Reply::hang_up()), Some(Reply::never()), 2, true),
        ] {
            let mut walk = two().await;
            for (id, reply) in [(1, first), (2, second)] {
                match reply {
                    Some(reply) => _ = walk.host(id).always(reply),
                    None => _ = walk.host(id).door(Door::Silent),
                }
            }
            if provider == 2 {
                walk.rows.providers[0].max_attempts = Some(1);
                walk.publish();
            }
            let record = killed_while(&mut walk, ask()).await;
            assert_eq!((record.outcome, record.status), (Outcome::Interrupted, 502), "{name}");
            assert_eq!(record.provider_id, Some(ProviderId(provider)), "{name}");
            let cost = record.cost.expect("a price");
            let source = if is_billed { UsageSource::Estimated } else { UsageSource::None };
            assert_eq!((record.usage_source, !cost.is_zero()), (source, is_billed), "{name}");
            // A milli-USD per token of the input.
            assert_eq!(cost, Decimal::new(record.tokens.input.try_into().unwrap(), 3), "{name}");
            assert_eq!(record.tokens.input > 0, is_billed, "{name}");
        }
    });
}

#[test]
fn an_interrupted_request_costs_the_price_classes_of_its_conversations_last_answer() {
    let cached = json!({
        "type": "message", "model": "m", "content": [{"type": "text", "text": "hi"}],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 990, "output_tokens": 1}
    });
    run(async {
        for (session, is_cached) in [("s", true), ("another", false)] {
            let mut walk = two().await;
            walk.host(1).next(Reply::json(200, &cached)).always(Reply::never());
            let said = |session: &str| ask().header("x-session-id", session);
            assert_eq!(walk.send(said("s")).await.status, 200);
            assert_eq!(walk.records().await.len(), 1);
            let record = killed_while(&mut walk, said(session)).await;
            let tokens = record.tokens;
            assert_eq!(tokens.cache_read > tokens.input, is_cached, "{session}: {tokens:?}");
            assert!(is_cached || tokens.cache_read == 0, "{session}: {tokens:?}");
            assert_eq!(record.usage_source, UsageSource::Estimated);
        }
    });
}

#[test]
fn an_interrupted_form_is_billed_by_what_is_text_in_it() {
    let part = |name: &str, more: &str, content: &str| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\n{content}\r\n")
    };
    let form = [
        part("model", "", "m"),
        part("file", "; filename=\"a.mp3\"\r\ncontent-type: audio/mpeg", &"x".repeat(64 << 10)),
        "--b--\r\n".to_owned(),
    ];
    let form = form.concat();
    run(async {
        let mut walk = Walk::new().providers([1], |_, row| row.kind = answers::kind(Dialect::OpenAi));
        walk = walk.start().await;
        walk.host(1).always(Reply::never());
        let call = Call::post("/v1/audio/transcriptions", form.clone())
            .header("content-type", "multipart/form-data; boundary=b");
        let record = killed_while(&mut walk, call).await;
        assert_eq!(record.request_bytes, form.len() as u64);
        assert!((1..1_000).contains(&record.tokens.input), "{:?}", record.tokens);
    });
}

#[test]
fn a_hang_up_and_a_kill_cost_the_same() {
    run(async {
        for reply in [
            Reply::never(),
            document(DIALECT, Used { input: 1, output: 1 }).after(std::time::Duration::from_secs(60)),
        ] {
            for (speed, times) in [("standard", 1), ("fast", 6)] {
                let mut body = request(DIALECT, "m", true);
                body["speed"] = json!(speed);
                let ask = || Call::post(answers::path(DIALECT), body.to_string());
                let mut walk = two().await;
                walk.host(1).always(reply.clone());
                let left = walk.send(ask().patience(std::time::Duration::from_secs(5))).await;
                assert!(left.left);
                let hang_up = walk.records().await.remove(0);
                let kill = killed_while(&mut walk, ask()).await;
                assert_eq!((hang_up.outcome, kill.outcome), (Outcome::Aborted, Outcome::Interrupted));
                assert_eq!((hang_up.cost, hang_up.tokens), (kill.cost, kill.tokens));
                let milli = i64::try_from(hang_up.tokens.input).unwrap() * times;
                assert_eq!(hang_up.cost, Some(Decimal::new(milli, 3)), "{speed}");
            }
        }
    });
}
