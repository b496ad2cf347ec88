//! Answers are read by what they are, whatever their label or their compression says; and upstreams that do not want
//! to be asked for usage are not.

use super::answers::{self, Used, request};
use super::call::{Answer, Call};
use super::host::Seen;
use super::reply::Reply;
use super::walk::{Walk, key, run};
use crate::table::fixtures;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use contract::table::ProviderKind;
use contract::usage::{Dialect, Outcome, UsageRecord, UsageSource};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const USED: Used = Used { input: 10, output: 5 };
const DIALECTS: [Dialect; 3] = [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses];

async fn one(kind: ProviderKind) -> Walk {
    let walk = Walk::new().setting("MAX_ATTEMPTS_PER_PROVIDER", 1);
    walk.providers([1], |_, row| row.kind = kind).start().await
}

/// A whole stream of that dialect, as text.
fn events(dialect: Dialect) -> String {
    let opening = answers::opening(dialect, USED);
    let all =
        opening.into_iter().chain(answers::content(dialect, "hi")).chain(answers::closing(dialect, USED));
    all.map(|(name, data)| {
        let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
        format!("{name}data: {data}\n\n")
    })
    .collect()
}

async fn ask(walk: &Walk, dialect: Dialect, stream: bool) -> (Answer, UsageRecord) {
    let answer = walk.post(answers::path(dialect), request(dialect, "m", stream)).await;
    let mut records = walk.records().await;
    assert_eq!(records.len(), 1, "{records:?}");
    (answer, records.remove(0))
}

fn assert_reported(record: &UsageRecord, what: &str) {
    assert_eq!((record.outcome, record.usage_source), (Outcome::Completed, UsageSource::Reported), "{what}");
    assert_eq!((record.tokens.input, record.tokens.output), (10, 5), "{what}");
}

#[test]
fn whatever_the_label_says_usage_is_read() {
    run(async {
        for dialect in DIALECTS {
            let walk = one(answers::kind(dialect)).await;
            for label in [
                "Text/Event-Stream; charset=UTF-8",
                "text/plain",
                "application/json",
                "application/octet-stream",
            ] {
                let what = format!("{dialect:?} {label}");
                let text = events(dialect);
                let (first, rest) = text.split_at(3);
                walk.host(1).next(
                    Reply::pieces(200, label).piece(first).wait(Duration::from_secs(3)).piece(rest).end(),
                );
                let (answer, record) = ask(&walk, dialect, true).await;
                assert_reported(&record, &what);
                assert!(
                    answer.header("content-type").to_lowercase().starts_with("text/event-stream"),
                    "{what}"
                );
                assert!(answer.text().contains("hi"), "{what}");
                // As a stream, not as a document at its end.
                let open =
                    Reply::pieces(200, label).piece(&text[..text.len() - 40]).wait(Duration::from_secs(7));
                walk.host(1).next(open.piece(&text[text.len() - 40..]).end());
                let (answer, record) = ask(&walk, dialect, true).await;
                assert_reported(&record, &what);
                assert_eq!(answer.pieces[0].0.as_secs(), 0, "{what}");
                let document = answers::document(dialect, USED).header("content-type", label);
                walk.host(1).next(document);
                let (answer, record) = ask(&walk, dialect, false).await;
                assert_reported(&record, &what);
                assert!(answer.json().is_object(), "{what}");
            }
            // Blank lines to keep the connection alive are no answer yet.
            let text = answers::document(dialect, USED).steps().remove(2);
            let super::reply::Step::Send(body) = text else { panic!("{text:?}") };
            let reply = Reply::pieces(200, "application/json").piece("\n").wait(Duration::from_secs(30));
            walk.host(1).next(reply.piece(body).end());
            assert_reported(&ask(&walk, dialect, false).await.1, "blank lines");
        }
    });
}

async fn pack(encoding: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match encoding {
        "gzip" => GzipEncoder::new(text.as_bytes()).read_to_end(&mut out).await,
        "deflate" => ZlibEncoder::new(text.as_bytes()).read_to_end(&mut out).await,
        "br" => BrotliEncoder::new(text.as_bytes()).read_to_end(&mut out).await,
        _ => ZstdEncoder::new(text.as_bytes()).read_to_end(&mut out).await,
    };
    read.unwrap();
    out
}

#[test]
fn a_compressed_answer_is_read_and_passed_on_as_text() {
    run(async {
        for dialect in DIALECTS {
            let walk = one(answers::kind(dialect)).await;
            for encoding in ["gzip", "deflate", "br", "zstd"] {
                let what = format!("{dialect:?} {encoding}");
                let packed = pack(encoding, &events(dialect)).await;
                let (first, rest) = packed.split_at(packed.len() / 2);
                let reply = Reply::events().header("content-encoding", encoding).piece(first);
                walk.host(1).next(reply.wait(Duration::from_secs(1)).piece(rest).end());
                let (answer, record) = ask(&walk, dialect, true).await;
                assert_reported(&record, &what);
                assert!(answer.header("content-encoding").is_empty() && !answer.broke, "{what}");
                assert!(answer.text().contains("hi"), "{what}");
                // What was asked for by us only is left out of a compressed stream, too.
                assert!(dialect != Dialect::OpenAi || !answer.text().contains("prompt_tokens"), "{what}");
                let text = serde_json::json!({"usage": {"prompt_tokens": 10, "completion_tokens": 5,
                    "input_tokens": 10, "output_tokens": 5}});
                let body = pack(encoding, &text.to_string()).await;
                walk.host(1).next(
                    Reply::document(200, "application/json", body).header("content-encoding", encoding),
                );
                let (answer, record) = ask(&walk, dialect, false).await;
                assert_reported(&record, &what);
                assert_eq!(answer.json(), text, "{what}");
                // Cut off or damaged, it is no answer; a refusal is read like any other.
                walk.host(1).next(Reply::events().header("content-encoding", encoding).piece(first).cut());
                assert_eq!(ask(&walk, dialect, true).await.1.outcome, Outcome::Exhausted, "{what}");
                let refusal = pack(encoding, r#"{"error":{"message":"your fault"}}"#).await;
                walk.host(1).next(
                    Reply::document(400, "application/json", refusal).header("content-encoding", encoding),
                );
                let (answer, _) = ask(&walk, dialect, true).await;
                assert!(
                    answer.status == 400 && answer.text().contains("your fault"),
                    "{what}: {}",
                    answer.status
                );
            }
            walk.host(1).next(answers::document(dialect, USED).header("content-encoding", "compress"));
            assert_eq!(ask(&walk, dialect, false).await.1.outcome, Outcome::Exhausted);
        }
    });
}

/// D-B8: strict upstreams refuse the member that we put in.
#[test]
fn who_refuses_to_be_asked_for_usage_is_asked_without_and_remembered() {
    run(async {
        for path in ["/v1/chat/completions", "/v1/completions"] {
            let mut walk = one(ProviderKind::OpenAiCompatible).await;
            walk.host(1).by(|seen| {
                let body = seen.json();
                if body["stream_options"].is_null() {
                    return answers::stream(Dialect::OpenAi, USED);
                }
                let detail =
                    serde_json::json!([{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]);
                Reply::json(422, serde_json::json!({ "detail": detail }))
            });
            let asked = async |walk: &Walk, options: serde_json::Value| {
                let mut body = request(Dialect::OpenAi, "m", true);
                if !options.is_null() {
                    body["stream_options"] = options;
                }
                let answer = walk.post(path, body).await;
                (answer.status, walk.host(1).count(), walk.records().await.remove(0))
            };
            let (status, count, record) = asked(&walk, serde_json::Value::Null).await;
            assert_eq!((status, count, record.attempts.len()), (200, 2, 1), "{path}");
            let (status, count, _) = asked(&walk, serde_json::Value::Null).await;
            assert_eq!((status, count), (200, 1), "{path}: remembered");
            walk.rows.providers[0].weight += 1;
            walk.publish();
            let (status, count, _) = asked(&walk, serde_json::Value::Null).await;
            assert_eq!((status, count), (200, 2), "{path}: forgotten with the row");
            // Who asks by itself is told the truth.
            let (status, count, _) = asked(&walk, serde_json::json!({"include_usage": true})).await;
            assert_eq!((status, count), (422, 1), "{path}");
        }
    });
}

/// A caller has its own URL quoted, or sends a member of that name itself: nobody's usage becomes an estimate by it.
#[test]
fn nobody_teaches_others_that_a_provider_refuses_to_be_asked() {
    run(async {
        let walk = Walk::new().providers([1], |_, row| row.kind = ProviderKind::OpenAiCompatible);
        let walk = walk.rows(|rows| {
            for id in [2, 3] {
                rows.users.push(fixtures::user(id, "another"));
                rows.keys.push(key(id, id));
            }
        });
        let walk = walk.start().await;
        let call = |key: i64, member: &str| {
            let mut body = request(Dialect::OpenAi, "m", true);
            body[member] = serde_json::json!({ "url": "https://a.example/stream_options.png" });
            Call::post("/v1/chat/completions", body.to_string()).key(key)
        };
        let asked = |walk: &Walk| {
            walk.host(1).seen().iter().filter(|seen| !seen.json()["stream_options"].is_null()).count()
        };
        let quoted = "Failed to download https://a.example/stream_options.png: include_usage";
        let pointed = serde_json::json!({ "error": { "message": "no", "param": "stream_options" } });
        let good = || answers::stream(Dialect::OpenAi, USED);
        for key in [1, 2] {
            for (member, refusal) in [
                ("image", Reply::error(400, "invalid_request_error", quoted)),
                ("stream_options", Reply::json(400, &pointed)),
            ] {
                walk.host(1).next(refusal).next(good()).next(good());
                assert_eq!(walk.send(call(key, member)).await.status, 400);
                walk.host(1).count();
                // Whoever asks next, it is asked for usage.
                for key in [key, 3] {
                    assert_eq!(walk.send(call(key, "image")).await.status, 200);
                }
                assert_eq!(asked(&walk), 2, "{member} {key}");
                walk.host(1).count();
            }
        }
        // One account that is refused learns it for itself, two for everybody, and nobody for ever.
        let refuses = |seen: &Seen| match seen.json()["stream_options"].is_null() {
            true => answers::stream(Dialect::OpenAi, USED),
            false => Reply::json(
                400,
                serde_json::json!({ "error": { "message": "no", "param": "stream_options" } }),
            ),
        };
        walk.host(1).by(refuses);
        let sends = async |key: i64| {
            assert_eq!(walk.send(call(key, "image")).await.status, 200);
            walk.host(1).count()
        };
        for (key, count) in [(1, 2), (1, 1), (2, 2), (3, 1), (1, 1)] {
            assert_eq!(sends(key).await, count, "{key}");
        }
        tokio::time::sleep(Duration::from_secs(601)).await;
        assert_eq!((sends(3).await, sends(1).await), (2, 2));
    });
}

#[test]
fn a_refusal_that_means_the_caller_is_not_taken_for_ours() {
    run(async {
        let walk = one(ProviderKind::OpenAiCompatible).await;
        walk.host(1).always(Reply::json(
            400,
            r#"{"error":{"message":"it is unknown","param":"stream_options.odd"}}"#,
        ));
        for _ in 0..2 {
            let (answer, _) = ask(&walk, Dialect::OpenAi, true).await;
            assert_eq!((answer.status, walk.host(1).count()), (400, 2), "nothing is learnt from it");
        }
    });
}

/// D-E5, D-E6.
#[test]
fn a_stream_of_known_length_that_breaks_still_ends_in_its_error_event() {
    run(async {
        let dialect = Dialect::Anthropic;
        let walk = one(answers::kind(dialect)).await;
        let text = events(dialect);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        walk.host(1).next(Reply::raw(head + &text[..text.len() - 30]).cut());
        let (answer, record) = ask(&walk, dialect, true).await;
        assert_eq!(answer.header("content-length"), "");
        assert!(answer.text().contains("upstream_cut"), "{}", answer.text());
        assert_eq!(record.outcome, Outcome::Cut);
    });
}

#[test]
fn a_long_event_counts_like_a_body_and_passes_unread_where_there_is_no_room() {
    run(async {
        let dialect = Dialect::Responses;
        let text = "x".repeat(300_000);
        let usage = serde_json::json!({ "input_tokens": 10, "output_tokens": 5 });
        let last = serde_json::json!({ "type": "response.completed", "response": {
            "status": "completed", "model": "m", "output": [{ "text": text }], "usage": usage }});
        let last = format!("event: response.completed\ndata: {last}\n\n");
        for (budget, source) in [(1_000_000, UsageSource::Reported), (200_000, UsageSource::Estimated)] {
            let walk = Walk::new().setting("BODY_BUDGET_BYTES", budget);
            let walk = walk.providers([1], |_, row| row.kind = answers::kind(dialect)).start().await;
            let begun =
                Reply::events().all(answers::opening(dialect, USED)).all(answers::content(dialect, "hi"));
            let pieces = last.as_bytes().chunks(50_000);
            let pieces = pieces.fold(begun, |reply, piece| reply.wait(Duration::from_secs(1)).piece(piece));
            walk.host(1).next(pieces.end());
            let (answer, record) = ask(&walk, dialect, true).await;
            assert!(answer.text().ends_with(&last) && !answer.broke, "nothing is missing, nothing added");
            assert_eq!((record.outcome, record.usage_source), (Outcome::Completed, source));
        }
    });
}
