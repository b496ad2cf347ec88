//! How requests end after their first byte, or without one: cuts, hang-ups, silence; and what each is billed.

use super::answers::{self, Used, request};
use super::call::Call;
use super::reply::Reply;
use super::walk::{Walk, run};
use contract::table::CircuitState;
use contract::usage::{Dialect, Outcome, UsageSource};
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };

async fn one(dialect: Dialect) -> Walk {
    let kind = answers::kind(dialect);
    Walk::new().providers([1], |_, row| row.kind = kind).start().await
}

fn begun(dialect: Dialect) -> Reply {
    Reply::events().all(answers::opening(dialect, USED)).all(answers::content(dialect, "some words"))
}

#[test]
fn a_stream_that_breaks_after_content_ends_with_an_error_and_is_the_providers_fault() {
    run(async {
        for dialect in [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses] {
            let silent = begun(dialect).silence();
            for (name, reply) in
                [("cut", begun(dialect).cut()), ("end", begun(dialect).end()), ("idle", silent)]
            {
                let walk = one(dialect).await;
                walk.host(1).next(reply);
                let answer = walk.post(answers::path(dialect), request(dialect, "m", true)).await;
                assert_eq!(answer.status, 200);
                assert!(answer.text().contains("some words"), "{dialect:?} {name}");
                assert!(
                    answer.broke || answer.text().contains("error"),
                    "{dialect:?} {name}: {}",
                    answer.text()
                );
                let record = &walk.records().await[0];
                assert_eq!((record.outcome, record.status), (Outcome::Cut, 502), "{dialect:?} {name}");
                assert!(
                    record.cost.is_some_and(|cost| !cost.is_zero()),
                    "{dialect:?} {name}: what came was used"
                );
                assert_eq!(walk.health(1).failures, 1, "{dialect:?} {name}");
            }
        }
    });
}

#[test]
fn an_upstreams_own_error_after_content_is_told_once_and_is_a_cut_however_regular_its_end() {
    run(async {
        for dialect in [Dialect::Anthropic, Dialect::OpenAi] {
            let failed = || begun(dialect).all(answers::error_event(dialect, "overloaded_error", "too busy"));
            let whole = failed().all(answers::closing(dialect, USED)).end();
            for (name, reply) in [("cut", failed().cut()), ("end", failed().end()), ("whole", whole)] {
                let walk = one(dialect).await;
                walk.host(1).next(reply);
                let answer = walk.post(answers::path(dialect), request(dialect, "m", true)).await;
                let text = answer.text();
                assert_eq!(text.matches("too busy").count(), 1, "{dialect:?} {name}: {text}");
                assert!(!text.contains("upstream_cut"), "{dialect:?} {name}: a second error in {text}");
                let record = &walk.records().await[0];
                assert_eq!((record.outcome, record.status), (Outcome::Cut, 502), "{dialect:?} {name}");
            }
        }
    });
}

#[test]
fn a_caller_who_leaves_is_recorded_once_cancels_the_upstream_and_blames_nobody() {
    let dialect = Dialect::Anthropic;
    let second = Duration::from_secs(1);
    run(async {
        let content = || answers::content(dialect, "more");
        let cases = [
            ("before the head", Reply::never(), Some(5 * second), None, 0),
            (
                "in a document",
                Reply::pieces(200, "application/json").piece("{").silence(),
                Some(5 * second),
                None,
                0,
            ),
            (
                "in a stream",
                begun(dialect).wait(60 * second).all(content()).silence(),
                Some(5 * second),
                None,
                200,
            ),
            ("after two pieces", begun(dialect).wait(second).all(content()).silence(), None, Some(2), 200),
        ];
        for (name, reply, patience, appetite, status) in cases {
            let walk =
                Walk::new().setting("HANGUP_READ_TIMEOUT", "0s").providers([1], |_, _| {}).start().await;
            walk.host(1).next(reply);
            let mut call =
                Call::post("/v1/messages", request(dialect, "m", name != "in a document").to_string());
            call = patience.into_iter().fold(call, Call::patience);
            let answer = walk.send(appetite.into_iter().fold(call, Call::appetite)).await;
            assert_eq!((answer.status, answer.left), (status, true), "{name}");
            let records = walk.records().await;
            let [record] = records.as_slice() else { panic!("{name}: {records:?}") };
            assert_eq!((record.outcome, record.status), (Outcome::Aborted, 499), "{name}");
            assert_eq!(walk.host(1).left(), 1, "{name}: the upstream is told");
            assert_eq!((walk.health(1).state, walk.health(1).failures), (CircuitState::Closed, 0), "{name}");
            let paid = record.cost.is_some_and(|cost| !cost.is_zero());
            assert!(paid || status == 0, "{name}: what was seen is paid");
            assert!(status == 0 || record.usage_source == UsageSource::Estimated, "{name}: {record:?}");
        }
    });
}

#[test]
fn a_stream_whose_caller_left_is_read_on_for_what_it_does_not_show() {
    run(async {
        for dialect in [Dialect::Anthropic, Dialect::OpenAi, Dialect::Responses] {
            let walk = one(dialect).await;
            // Thousands of tokens of reasoning that no event shows.
            let closing = answers::closing(dialect, Used { input: 10, output: 5_000 });
            walk.host(1).next(begun(dialect).wait(Duration::from_secs(3)).all(closing));
            let call = Call::post(answers::path(dialect), request(dialect, "m", true).to_string());
            let answer = walk.send(call.patience(Duration::from_secs(1))).await;
            assert!(answer.left, "{dialect:?}");
            assert_eq!(walk.records().await.len(), 0, "{dialect:?}: not yet");
            tokio::time::sleep(Duration::from_secs(4)).await;
            let record = walk.records().await.remove(0);
            assert_eq!((record.outcome, record.status), (Outcome::Aborted, 499), "{dialect:?}");
            assert_eq!(record.usage_source, UsageSource::Reported, "{dialect:?}");
            assert_eq!((record.tokens.input, record.tokens.output), (10, 5_000), "{dialect:?}");
            let seen: usize = answer.pieces.iter().map(|(_, piece)| piece.len()).sum();
            assert_eq!(record.response_bytes, seen as u64, "{dialect:?}: what the caller got");
            assert_eq!(walk.host(1).left(), 0, "{dialect:?}: it ended");
            assert_eq!((walk.health(1).state, walk.health(1).failures), (CircuitState::Closed, 0));
        }
    });
}

#[test]
fn reading_on_is_bounded_in_time_and_number_and_over_with_the_proxy() {
    let dialect = Dialect::Anthropic;
    let second = Duration::from_secs(1);
    run(async {
        let mut walk = Walk::new().setting("HANGUP_READ_STREAMS", 1).providers([1], |_, _| {}).start().await;
        walk.host(1).always(begun(dialect).silence());
        let leave = || {
            let call = Call::post(answers::path(dialect), request(dialect, "m", true).to_string());
            walk.send(call.appetite(1))
        };
        let (first, another) = tokio::join!(leave(), leave());
        assert!(first.left && another.left);
        assert_eq!(walk.records().await.len(), 1, "there is no place for two");
        tokio::time::sleep(4 * second).await;
        assert_eq!((walk.records().await.len(), walk.host(1).left()), (0, 1));
        tokio::time::sleep(second).await;
        let record = walk.records().await.remove(0);
        assert_eq!((record.outcome, record.usage_source), (Outcome::Aborted, UsageSource::Estimated));
        assert_eq!(walk.host(1).left(), 2, "the upstream is told");
        leave().await;
        walk.restart().await;
        assert_eq!((walk.records().await.len(), walk.host(1).left()), (1, 3), "at once");
    });
}

#[test]
fn only_what_will_be_billed_by_it_is_read_on() {
    let dialect = Dialect::Anthropic;
    let begun = || begun(dialect);
    let opening = || Reply::events().all(answers::opening(dialect, USED));
    let failed = || begun().all(answers::error_event(dialect, "api_error", "down"));
    run(async {
        for (name, free, reply, patience) in [
            ("hang-ups are free", true, begun().silence(), 5),
            ("no content", false, opening().silence(), 5),
            ("it failed", false, failed().silence(), 5),
            ("it was silent for long", false, begun().silence(), 40),
        ] {
            let walk = Walk::new().setting("BILL_ABORTED", if free { "free" } else { "estimate" });
            let walk = walk.providers([1], |_, row| row.idle_timeout = Duration::from_secs(60)).start().await;
            walk.host(1).always(reply);
            let call = Call::post(answers::path(dialect), request(dialect, "m", true).to_string());
            walk.send(call.patience(Duration::from_secs(patience))).await;
            assert_eq!(walk.records().await.len(), 1, "{name}: at once");
        }
    });
}

#[test]
fn usage_that_only_we_asked_for_is_not_shown() {
    run(async {
        let walk = one(Dialect::OpenAi).await;
        walk.host(1).always(answers::stream(Dialect::OpenAi, USED));
        let answer = walk.post("/v1/chat/completions", request(Dialect::OpenAi, "m", true)).await;
        let text = answer.text();
        assert!(text.contains("[DONE]") && !text.contains("prompt_tokens"), "{text}");
        assert_eq!(walk.host(1).seen()[0].json()["stream_options"]["include_usage"], true);
        assert_eq!(walk.records().await[0].tokens.input, 10);
    });
}

#[test]
fn a_body_that_breaks_off_reaches_no_provider_and_leaves_no_record() {
    run(async {
        let walk = one(Dialect::Anthropic).await;
        let call = Call { broken: true, ..Call::post("/v1/messages", "{\"model\":\"m\"") };
        assert_eq!(walk.send(call).await.status, 400);
        assert_eq!((walk.records().await.len(), walk.host(1).count()), (0, 0));
    });
}

#[test]
fn a_restart_and_a_kill_keep_the_records_and_the_limits() {
    run(async {
        let mut walk = Walk::new()
            .rows(|rows| rows.users[0].limits = vec![super::walk::usd(1_000)])
            .providers([1], |_, _| {})
            .start()
            .await;
        let call = || Call::post("/v1/messages", request(Dialect::Anthropic, "m", false).to_string());
        let used = Used { input: 100, output: 200 };
        walk.host(1).always(answers::document(Dialect::Anthropic, used));
        for (cost, status) in [(500, 200), (1_000, 200), (1_000, 402), (1_000, 402)] {
            assert_eq!(walk.send(call()).await.status, status);
            if cost == 500 {
                walk.kill().await
            } else {
                walk.restart().await
            }
            walk.records().await;
            assert_eq!(walk.spent_by(1), cost * 1_000_000, "in nano-USD");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
}
