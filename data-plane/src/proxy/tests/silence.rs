//! How long an upstream may be silent, and what its caller gets meanwhile: minutes, in paused time.

use super::answers::{self, Used, request};
use super::call::{Answer, Call};
use super::reply::Reply;
use super::walk::{Walk, run};
use contract::usage::{Dialect, Outcome};
use llm::sse::keep_alive;
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };
const DIALECTS: [Dialect; 3] = [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two providers, of which the first is asked first, once; the second answers.
async fn pair(dialect: Dialect) -> Walk {
    let walk = Walk::new().setting("MAX_ATTEMPTS_PER_PROVIDER", 1).providers([1, 2], |id, row| {
        row.kind = answers::kind(dialect);
        row.priority = i32::try_from(id).unwrap();
    });
    let walk = walk.start().await;
    walk.host(2).always(answers::stream(dialect, USED));
    walk
}

async fn ask(walk: &Walk, dialect: Dialect, stream: bool) -> Answer {
    walk.post(answers::path(dialect), request(dialect, "m", stream)).await
}

/// When keep-alives came, in seconds, and all other text.
fn apart(answer: &Answer, dialect: Dialect) -> (Vec<u64>, String) {
    let (beats, rest): (Vec<_>, Vec<_>) =
        answer.pieces.iter().partition(|(_, piece)| piece.as_ref() == keep_alive(dialect));
    let text: Vec<u8> = rest.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
    (beats.iter().map(|(at, _)| at.as_secs()).collect(), String::from_utf8(text).unwrap())
}

#[test]
fn a_caller_hears_something_every_ten_seconds() {
    run(async {
        for dialect in DIALECTS {
            let (opening, closing) = (|| answers::opening(dialect, USED), || answers::closing(dialect, USED));
            let content = || answers::content(dialect, "hi");
            // The filter of the usage that we ask for holds a half frame itself: its caller is between two.
            let in_half = if dialect == Dialect::OpenAi { vec![10, 20, 30] } else { vec![] };
            // Long enough to be known as no error; a shorter one would be held, too.
            let begun = format!(": {}\nevent: x\nda", "x".repeat(300));
            let half = || Reply::events().all(opening()).all(content()).piece(begun.clone());
            let cases = [
                (
                    "before the head",
                    answers::stream(dialect, USED).after(seconds(45)),
                    vec![10, 20, 30, 40],
                    45,
                ),
                (
                    "before the content",
                    Reply::events().all(opening()).wait(seconds(25)).all(content()).all(closing()).end(),
                    vec![10, 20],
                    25,
                ),
                (
                    "in mid-stream",
                    Reply::events()
                        .all(opening())
                        .all(content())
                        .wait(seconds(25))
                        .all(content())
                        .wait(seconds(15))
                        .all(closing())
                        .end(),
                    vec![10, 20, 35],
                    0,
                ),
                (
                    "never in a half frame",
                    half().wait(seconds(35)).piece("ta: {}\n\n").all(closing()).end(),
                    in_half,
                    0,
                ),
                ("never too early", answers::stream(dialect, USED).after(seconds(9)), vec![], 9),
            ];
            for (name, reply, beats, first) in cases {
                let walk = pair(dialect).await;
                walk.host(1).next(reply);
                let answer = ask(&walk, dialect, true).await;
                let (got, text) = apart(&answer, dialect);
                assert_eq!((answer.status, answer.broke), (200, false), "{dialect:?} {name}");
                assert_eq!(got, beats, "{dialect:?} {name}: {text}");
                assert!(text.contains("hi") && !text.contains("error"), "{dialect:?} {name}: {text}");
                let records = walk.records().await;
                let [record] = records.as_slice() else { panic!("{records:?}") };
                assert_eq!(
                    (record.outcome, record.tokens.output),
                    (Outcome::Completed, 5),
                    "{dialect:?} {name}"
                );
                assert_eq!(record.ttft_ms.map(|ms| ms / 1000), Some(first), "{dialect:?} {name}");
            }
        }
    });
}

#[test]
fn documents_and_who_switched_it_off_wait_for_the_truth() {
    run(async {
        let dialect = Dialect::Anthropic;
        let walk = pair(dialect).await;
        walk.host(1).next(Reply::error(400, "invalid_request_error", "no").after(seconds(45)));
        let answer = ask(&walk, dialect, false).await;
        assert_eq!((answer.status, answer.pieces.len()), (400, 1));
        let walk = Walk::new().setting("SSE_KEEPALIVE", 0).providers([1], |_, _| {}).start().await;
        walk.host(1).next(Reply::error(400, "invalid_request_error", "no").after(seconds(45)));
        walk.host(1).next(answers::stream(dialect, USED).after(seconds(45)));
        assert_eq!(ask(&walk, dialect, true).await.status, 400);
        assert_eq!(apart(&ask(&walk, dialect, true).await, dialect).0, [0; 0]);
    });
}

/// How long a stream may show no sign of life, and no content, before the next provider is asked; D-A2.
#[test]
fn a_provider_that_hangs_is_left_and_learnt() {
    run(async {
        let comments =
            |every: u64| (0..20).fold(Reply::events(), |reply, _| reply.wait(seconds(every)).comment());
        let cases = [
            ("nothing", Dialect::Anthropic, Reply::never(), 60),
            ("nothing", Dialect::Responses, Reply::never(), 60),
            ("a head", Dialect::Anthropic, Reply::events().silence(), 60),
            ("a sign", Dialect::Anthropic, Reply::events().wait(seconds(50)).comment().silence(), 110),
            (
                "a blank line",
                Dialect::Responses,
                Reply::events().wait(seconds(50)).piece("\n").silence(),
                110,
            ),
            (
                "an event",
                Dialect::Responses,
                Reply::events().wait(seconds(5)).all(answers::opening(Dialect::Responses, USED)).silence(),
                65,
            ),
        ];
        for (name, dialect, reply, left) in cases {
            let walk = pair(dialect).await;
            walk.host(1).next(reply);
            let answer = ask(&walk, dialect, true).await;
            let (beats, text) = apart(&answer, dialect);
            assert!(text.contains("hi"), "{dialect:?} {name}: {text}");
            assert_eq!((beats.len() as u64, answer.took.as_secs()), (left / 10, left), "{dialect:?} {name}");
            assert_eq!((walk.health(1).failures, walk.host(1).left()), (1, 1), "{dialect:?} {name}");
            let records = walk.records().await;
            let [record] = records.as_slice() else { panic!("{records:?}") };
            assert_eq!(
                (record.outcome, record.attempts.len()),
                (Outcome::Completed, 2),
                "{dialect:?} {name}"
            );
        }
        // Beyond the time for failover nobody else is asked, but the silence is learnt all the same.
        for (name, dialect, reply, left) in [
            ("nothing", Dialect::OpenAi, Reply::never(), 300),
            ("signs without end", Dialect::Anthropic, comments(50), 600),
            ("signs without end", Dialect::OpenAi, comments(200), 600),
        ] {
            let walk = pair(dialect).await;
            walk.host(1).next(reply);
            let answer = ask(&walk, dialect, true).await;
            assert_eq!(answer.took.as_secs(), left, "{dialect:?} {name}");
            assert!(apart(&answer, dialect).1.contains("error"), "{dialect:?} {name}: {}", answer.text());
            assert_eq!((walk.health(1).failures, walk.host(2).count()), (1, 0), "{dialect:?} {name}");
            let records = walk.records().await;
            let [record] = records.as_slice() else { panic!("{records:?}") };
            assert_eq!((record.outcome, record.status), (Outcome::Exhausted, 503), "{dialect:?} {name}");
        }
    });
}

#[test]
fn a_providers_own_patience_comes_first() {
    run(async {
        let dialect = Dialect::OpenAi;
        for (stream, left) in [(true, 20), (false, 30)] {
            let walk = Walk::new().setting("MAX_ATTEMPTS_PER_PROVIDER", 1).providers([1, 2], |id, row| {
                row.kind = answers::kind(dialect);
                row.priority = i32::try_from(id).unwrap();
                row.first_byte_timeout = seconds(20);
                row.total_timeout = seconds(30);
            });
            let walk = walk.start().await;
            walk.host(1).next(Reply::never());
            walk.host(2).next(if stream {
                answers::stream(dialect, USED)
            } else {
                answers::document(dialect, USED)
            });
            let answer = ask(&walk, dialect, stream).await;
            assert_eq!((answer.status, answer.took.as_secs()), (200, left), "{}", answer.text());
        }
    });
}

#[test]
fn a_caller_who_leaves_behind_a_keep_alive_leaves_one_record() {
    run(async {
        let dialect = Dialect::Responses;
        let walk = pair(dialect).await;
        walk.host(1).next(Reply::events().all(answers::opening(dialect, USED)).silence());
        let call = Call::post(answers::path(dialect), request(dialect, "m", true).to_string());
        let answer = walk.send(call.patience(seconds(35))).await;
        assert_eq!((answer.status, answer.left, apart(&answer, dialect).0), (200, true, vec![10, 20, 30]));
        let records = walk.records().await;
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.outcome, record.status, record.ttft_ms), (Outcome::Aborted, 499, None));
        assert_eq!((walk.host(1).left(), walk.host(2).count()), (1, 0));
    });
}

/// What an upstream refuses late keeps its type and code; what a later try may cure says so; nothing of it is doubled.
#[test]
fn what_fails_behind_a_keep_alive_is_an_event() {
    run(async {
        let busy = |dialect| match dialect {
            Dialect::Anthropic => r#""type":"overloaded_error""#,
            Dialect::Responses => r#""code":"rate_limit_exceeded","message":"#,
            _ => r#""type":"service_unavailable_error""#,
        };
        for dialect in DIALECTS {
            let error =
                |status| Reply::error(status, "invalid_request_error", "what you said").after(seconds(15));
            let document = || answers::document(dialect, USED).after(seconds(15));
            for (reply, part, outcome, status) in [
                (error(400), "invalid_request_error", Outcome::Rejected, 400),
                (error(413), "what you said", Outcome::Rejected, 413),
                (error(503), busy(dialect), Outcome::Exhausted, 503),
                (error(429), busy(dialect), Outcome::Exhausted, 503),
                (document(), "without `stream`", Outcome::Completed, 200),
            ] {
                let walk = Walk::new().setting("MAX_ATTEMPTS_PER_PROVIDER", 1);
                let walk = walk.providers([1], |_, row| row.kind = answers::kind(dialect)).start().await;
                walk.host(1).always(reply);
                let answer = ask(&walk, dialect, true).await;
                let (beats, text) = apart(&answer, dialect);
                assert_eq!(
                    (answer.status, answer.broke, beats),
                    (200, false, vec![10]),
                    "{dialect:?} {text}"
                );
                assert!(text.contains(part) && text.ends_with("\n\n"), "{dialect:?} {status}: {text}");
                assert_eq!(text.matches("data: ").count(), 1, "{dialect:?} {text}");
                let records = walk.records().await;
                let [record] = records.as_slice() else { panic!("{records:?}") };
                assert_eq!((record.outcome, record.status), (outcome, status), "{dialect:?} {text}");
                // What was generated is paid for, though the caller cannot be given it.
                let is_free = record.cost.is_none_or(|cost| cost.is_zero());
                assert_eq!(is_free, outcome != Outcome::Completed, "{dialect:?} {text}");
            }
        }
    });
}
