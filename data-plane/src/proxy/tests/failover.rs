//! What leads to another attempt, what to another provider, and what goes to the caller at once.

use super::answers::{self, Used, request};
use super::host::Host;
use super::reply::Reply;
use super::walk::{Walk, rpm, run};
use crate::upstream::memory::Door;
use contract::table::{MatchType, ModelRule};
use contract::usage::{AttemptResult, Dialect, Outcome, WhySkipped};
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };
/// `ECONNREFUSED`.
const REFUSED: i32 = 111;

/// Two providers, of which the first is asked first; the second answers.
async fn pair() -> Walk {
    let walk = Walk::new().providers([1, 2], |id, row| row.priority = i32::try_from(id).unwrap());
    let walk = walk.start().await;
    walk.host(2).by(|seen| {
        if seen.json()["stream"] == true {
            answers::stream(Dialect::Anthropic, USED)
        } else {
            answers::document(Dialect::Anthropic, USED)
        }
    });
    walk
}

#[test]
fn an_answer_passes_and_is_accounted_for() {
    run(async {
        for dialect in [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses] {
            let kind = answers::kind(dialect);
            let walk = Walk::new().providers([1], |_, row| row.kind = kind).start().await;
            walk.host(1).next(answers::document(dialect, USED));
            walk.host(1).next(answers::stream(dialect, USED));
            for stream in [false, true] {
                let answer = walk.post(answers::path(dialect), request(dialect, "m", stream)).await;
                assert_eq!((answer.status, answer.broke), (200, false), "{dialect:?}");
                let records = walk.records().await;
                let [record] = records.as_slice() else { panic!("{records:?}") };
                assert_eq!((record.outcome, record.status), (Outcome::Completed, 200), "{dialect:?}");
                assert_eq!((record.tokens.input, record.tokens.output), (10, 5), "{dialect:?} {stream}");
                assert_eq!(
                    record.cost.map(|cost| cost.to_string()).as_deref(),
                    Some("0.02"),
                    "10 + 2 * 5 milli"
                );
            }
            assert_eq!(
                (walk.host(1).connections(), walk.host(1).count()),
                (1, 2),
                "one connection serves both"
            );
        }
    });
}

type Case = (&'static str, bool, fn(&Host), &'static [AttemptResult]);

/// What the first provider does before content, and the trail at it; the second one answers in every case.
#[test]
fn whatever_a_provider_fails_with_before_content_the_next_one_answers() {
    use AttemptResult::{Failed, NotFound, SystemError};
    let cases: [Case; 17] = [
        ("500", false, |host| _ = host.always(Reply::error(500, "api_error", "down")), &[Failed, Failed]),
        ("503", true, |host| _ = host.always(Reply::error(503, "api_error", "down")), &[Failed, Failed]),
        (
            "529",
            true,
            |host| _ = host.always(Reply::error(529, "overloaded_error", "down")),
            &[Failed, Failed],
        ),
        (
            "429",
            false,
            |host| _ = host.always(Reply::error(429, "rate_limit_error", "slow").header("retry-after", "7")),
            &[Failed],
        ),
        ("401", false, |host| _ = host.always(Reply::error(401, "authentication_error", "who")), &[Failed]),
        ("404", false, |host| _ = host.always(Reply::error(404, "not_found_error", "model")), &[NotFound]),
        ("refused", false, |host| _ = host.door(Door::Refuses(REFUSED)), &[SystemError, SystemError]),
        ("no name", false, |host| _ = host.door(Door::Nameless), &[SystemError, SystemError]),
        ("never accepts", false, |host| _ = host.door(Door::Silent), &[SystemError, SystemError]),
        ("hangs up", false, |host| _ = host.always(Reply::hang_up()), &[SystemError, SystemError]),
        (
            "no HTTP",
            false,
            |host| _ = host.always(Reply::raw("nonsense\r\n\r\n")),
            &[SystemError, SystemError],
        ),
        ("empty", false, |host| _ = host.always(Reply::json(200, "")), &[Failed, Failed]),
        (
            "a web page",
            false,
            |host| _ = host.always(Reply::document(200, "text/html", "<html><body>hello</body></html>")),
            &[Failed, Failed],
        ),
        (
            "a document that breaks off",
            false,
            |host| _ = host.always(Reply::pieces(200, "application/json").piece("{\"id\":").cut()),
            &[SystemError, SystemError],
        ),
        (
            "a stream that breaks off before its content",
            true,
            |host| _ = host.always(Reply::events().all(answers::opening(Dialect::Anthropic, USED)).cut()),
            &[SystemError, SystemError],
        ),
        (
            "a stream that ends before its content",
            true,
            |host| _ = host.always(Reply::events().all(answers::opening(Dialect::Anthropic, USED)).end()),
            &[Failed, Failed],
        ),
        (
            "a stream that begins with an error",
            true,
            |host| {
                let error = answers::error_event(Dialect::Anthropic, "overloaded_error", "later");
                _ = host.always(Reply::events().all(error).end());
            },
            &[Failed, Failed],
        ),
    ];
    run(async {
        for (name, stream, fault, trail) in cases {
            let walk = pair().await;
            fault(walk.host(1));
            let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", stream)).await;
            assert_eq!((answer.status, answer.broke), (200, false), "{name}: {}", answer.text());
            let records = walk.records().await;
            let [record] = records.as_slice() else { panic!("{name}: {records:?}") };
            let at =
                |id: i64| record.attempts.iter().filter(move |at| at.provider_id.0 == id).map(|at| at.result);
            assert_eq!(at(1).collect::<Vec<_>>(), trail, "{name}");
            assert_eq!(at(2).collect::<Vec<_>>(), [AttemptResult::RetrySuccess], "{name}");
            assert_eq!((record.outcome, record.cost.is_some()), (Outcome::Completed, true), "{name}");
        }
    });
}

/// The caller's own fault: the first provider's words go to the caller, nobody else is asked.
#[test]
fn a_callers_own_fault_is_its_own() {
    run(async {
        for status in [400, 409, 413, 422, 451] {
            let walk = pair().await;
            walk.host(1).always(Reply::error(status, "invalid_request_error", "no"));
            let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, "invalid_request_error"));
            assert_eq!((walk.host(1).count(), walk.host(2).count()), (1, 0), "{status}");
            let record = &walk.records().await[0];
            assert_eq!((record.outcome, record.status), (Outcome::Rejected, status));
            assert_eq!(record.cost.map(|cost| cost.is_zero()), Some(true), "{status}");
            assert_eq!(walk.health(1).failures, 0, "{status}");
        }
    });
}

#[test]
fn nothing_is_tried_once_all_have_failed_and_the_caller_is_told() {
    run(async {
        let walk = pair().await;
        for id in [1, 2] {
            walk.host(id).always(Reply::error(500, "api_error", "down"));
        }
        let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", true)).await;
        assert_eq!((answer.status, answer.broke), (503, false));
        let record = &walk.records().await[0];
        assert_eq!((record.outcome, record.attempts.len()), (Outcome::Exhausted, 4));
        assert!(record.cost.is_some_and(|cost| cost.is_zero()));
    });
}

#[test]
fn the_head_of_a_stream_waits_for_content_and_then_everything_goes_at_once() {
    run(async {
        let walk = pair().await;
        let second = Duration::from_secs(1);
        walk.host(1).next(
            Reply::events()
                .after(second)
                .all(answers::opening(Dialect::Anthropic, USED))
                .comment()
                .wait(second)
                .all(answers::content(Dialect::Anthropic, "one"))
                .wait(second)
                .all(answers::content(Dialect::Anthropic, "two"))
                .wait(second)
                .all(answers::closing(Dialect::Anthropic, USED))
                .end(),
        );
        let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", true)).await;
        let came = |text: &str| {
            let has = |piece: &[u8]| String::from_utf8_lossy(piece).contains(text);
            answer.pieces.iter().find(|(_, piece)| has(piece)).map(|(at, _)| at.as_secs())
        };
        let times = ["message_start", "one", "two", "message_stop"].map(came);
        assert_eq!(times, [Some(2), Some(2), Some(3), Some(4)], "{answer:?}");
    });
}

#[test]
fn a_body_that_took_long_is_still_sent() {
    run(async {
        let walk = pair().await;
        walk.host(1).always(Reply::json(500, serde_json::json!({ "error": { "message": "x" } })));
        let body = request(Dialect::Anthropic, "m", false).to_string();
        let mut call = super::call::Call::post(answers::path(Dialect::Anthropic), String::new());
        // 13 pieces in 260 s, which is more than FAILOVER_TIMEOUT.
        let size = body.len().div_ceil(13);
        let pieces =
            body.as_bytes().chunks(size).map(|piece| (Duration::from_secs(20), piece.to_vec().into()));
        call.frames = pieces.collect();
        let answer = walk.send(call).await;
        assert_eq!(answer.status, 503, "one provider is asked, then the time is over");
        assert_eq!((walk.host(1).seen().len(), walk.host(2).seen().len()), (1, 0));
    });
}

#[test]
fn the_trail_tells_who_was_not_asked_and_why() {
    run(async {
        let walk = Walk::new().providers(1..=7, |id, row| {
            row.priority = i32::try_from(id).unwrap();
            row.breaker.failure_threshold = 1;
            row.max_attempts = Some(1);
            row.disable_session_reuse = true;
        });
        let walk = walk.rows(|rows| {
            let [_, busy, grouped, models, clients, off, _] = &mut rows.providers[..] else {
                panic!("seven")
            };
            busy.limits = vec![rpm(1)];
            grouped.groups = vec!["others".into()];
            models.allowed_models =
                vec![ModelRule { match_type: MatchType::Exact, pattern: "another".to_owned(), target: None }];
            clients.allowed_clients = vec!["another".to_owned()];
            off.enabled = false;
        });
        let walk = walk.start().await;
        (1..=7).for_each(|id| _ = walk.host(id).always(answers::document(Dialect::Anthropic, USED)));
        let ask = async |model: &str| {
            let answer = walk.post("/v1/messages", request(Dialect::Anthropic, model, false)).await;
            let record = walk.records().await.remove(0);
            let skipped = record.skipped.iter().map(|one| (one.provider_id.0, one.why)).collect::<Vec<_>>();
            (answer.status, record.provider_id.map(|id| id.0), skipped)
        };
        // Rules that are always the same are no news while the first choice serves.
        assert_eq!(ask("m").await, (200, Some(1), vec![]));
        let by_rules =
            [(5, WhySkipped::ClientNotServed), (4, WhySkipped::ModelNotServed), (3, WhySkipped::OtherGroup)];
        let with = |more: &[(i64, WhySkipped)]| [more, &by_rules].concat();
        walk.host(1).next(Reply::error(500, "api_error", "down"));
        assert_eq!(ask("m").await, (200, Some(2), with(&[])), "1 failed");
        let (full, open) = (WhySkipped::AtLimit, WhySkipped::CircuitOpen);
        assert_eq!(ask("m").await, (200, Some(7), vec![(2, full), (1, open)]), "nobody failed");
        walk.host(7).next(Reply::error(429, "rate_limit_error", "slow").header("retry-after", "30"));
        let (_, _, skipped) = ask("m").await;
        assert_eq!(skipped, [(2, full), (1, open)], "told before 7 failed");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (_, asked, skipped) = ask("m").await;
        assert_eq!((asked, skipped), (Some(1), vec![(7, WhySkipped::RateLimited)]), "1 is on trial");
    });
}

#[test]
fn a_refusal_tells_whom_it_could_not_ask() {
    run(async {
        let walk = Walk::new().providers([1, 2], |id, row| {
            row.groups = vec![if id == 1 { "others".into() } else { "default".into() }];
            row.allowed_clients = vec!["another".to_owned()];
        });
        let walk = walk.start().await;
        let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await;
        assert!(!answer.text().contains("client"), "callers are not told: {}", answer.text());
        let record = walk.records().await.remove(0);
        let skipped: Vec<_> = record.skipped.iter().map(|one| (one.provider_id.0, one.why)).collect();
        assert_eq!(skipped, [(2, WhySkipped::ClientNotServed), (1, WhySkipped::OtherGroup)]);
    });
}
