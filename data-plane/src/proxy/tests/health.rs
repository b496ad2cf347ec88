//! Whose fault a failure is, seen from the walk: hang-ups, trouble of this proxy, what is sent once, how often at most.

use super::answers::{self, Used, request};
use super::call::Call;
use super::reply::Reply;
use super::walk::{Walk, key, run};
use crate::table::fixtures;
use crate::upstream::memory::Door;
use contract::ids::UserId;
use contract::table::{CircuitState, OwnerConfig};
use contract::usage::{AttemptResult, Dialect};
use http::Method;
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };
/// `EMFILE`, `ENETUNREACH`, `ECONNREFUSED`.
const SHORT: i32 = 24;
const NO_ROUTE: i32 = 101;
const REFUSED: i32 = 111;

/// Two providers, the first one first, each opened by one failure; users 1 and 2 with keys 1 and 2.
fn duel() -> Walk {
    let walk = Walk::new().rows(|rows| {
        rows.users.push(fixtures::user(2, "bob"));
        rows.keys.push(key(2, 2));
    });
    walk.providers([1, 2], |id, row| {
        row.priority = i32::try_from(id).unwrap();
        row.breaker.failure_threshold = 1;
    })
}

#[test]
fn callers_who_leave_silent_streams_weigh_half_and_only_two_accounts_open_a_circuit() {
    run(async {
        let walk = duel().start().await;
        walk.host(1).always(Reply::never());
        let leave = async |id: i64, stream: bool, seconds: u64| {
            let body = request(Dialect::Anthropic, "m", stream).to_string();
            let call = Call::post("/v1/messages", body).key(id).patience(Duration::from_secs(seconds));
            assert!(walk.send(call).await.left);
            walk.quiet().await;
            walk.health(1).state
        };
        for (id, stream, seconds, why) in [
            (1, true, 29, "not long enough"),
            (2, true, 29, "not long enough"),
            (1, false, 50, "documents are silent by nature"),
            (2, false, 50, "documents are silent by nature"),
            (1, true, 31, "half a failure"),
            (1, true, 50, "of one account"),
            (1, true, 50, "of one account"),
        ] {
            assert_eq!(leave(id, stream, seconds).await, CircuitState::Closed, "{why}");
        }
        assert_eq!(leave(2, true, 31).await, CircuitState::Open, "and of another");
    });
}

#[test]
fn what_one_account_alone_breaks_keeps_nobody_else_away() {
    run(async {
        let walk = duel().start().await;
        for id in [1, 2] {
            walk.host(id).by(|seen| match seen.json()["messages"][0]["content"] == "poison" {
                true => Reply::error(500, "api_error", "boom"),
                false => answers::document(Dialect::Anthropic, USED),
            });
        }
        let send = async |id: i64, text: &str| {
            let mut body = request(Dialect::Anthropic, "m", false);
            body["messages"] = serde_json::json!([{ "role": "user", "content": text }]);
            let answer = walk.send(Call::post("/v1/messages", body.to_string()).key(id)).await;
            walk.quiet().await;
            answer.status
        };
        assert_eq!(send(2, "hi").await, 200, "somebody else is there");
        for _ in 0..3 {
            assert_eq!(send(1, "poison").await, 503);
            assert_eq!([1, 2].map(|id| walk.health(id).state), [CircuitState::Closed; 2]);
        }
        assert_eq!(walk.shared().health.suspected().await.len(), 2, "the gateway is to ask itself");
        walk.host(1).count();
        assert_eq!((send(2, "hi").await, walk.host(1).count()), (200, 1));
        // What fails for two accounts is broken, and so is what fails for the only one that asks.
        send(1, "poison").await;
        send(2, "poison").await;
        assert_eq!(walk.health(1).state, CircuitState::Open);
        let walk = duel().start().await;
        walk.host(1).always(Reply::error(500, "api_error", "down"));
        walk.host(2).always(answers::document(Dialect::Anthropic, USED));
        assert_eq!(walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await.status, 200);
        assert_eq!(walk.health(1).state, CircuitState::Open);
    });
}

#[test]
fn trouble_of_this_proxy_is_no_providers_fault() {
    run(async {
        for (number, state, failures) in [
            (SHORT, CircuitState::Closed, 0),
            (NO_ROUTE, CircuitState::Closed, 0),
            (REFUSED, CircuitState::Open, 1),
        ] {
            let walk = duel().start().await;
            walk.host(1).door(Door::Refuses(number));
            walk.host(2).always(answers::document(Dialect::Anthropic, USED));
            for _ in 0..3 {
                let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await;
                assert_eq!(answer.status, 200, "{number}: {}", answer.text());
            }
            let health = walk.health(1);
            assert_eq!((health.state, health.failures), (state, failures), "{number}");
        }
    });
}

#[test]
fn a_creation_is_sent_once_unless_nothing_was_sent() {
    run(async {
        let walk = Walk::new().rows(|rows| {
            let owner = OwnerConfig::new(UserId(1), chrono_tz::UTC);
            rows.owners.push(OwnerConfig { upstream_resources: true, ..owner });
        });
        let walk = walk.providers([1, 2], |id, row| row.priority = i32::try_from(id).unwrap()).start().await;
        walk.host(2).always(Reply::json(200, r#"{"id":"b"}"#));
        let path = "/v1/messages/batches";
        let create = || Call::post(path, "{}");
        let look = || Call::new(Method::GET, path);
        for (reply, status) in [
            (Reply::error(502, "api_error", "down"), 502),
            (Reply::error(504, "api_error", "late"), 504),
            (Reply::hang_up(), 502),
            // Last, because afterwards such calls rest there.
            (Reply::error(429, "rate_limit_error", "slow"), 429),
        ] {
            walk.host(1).always(reply);
            let answer = walk.send(create()).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!((walk.host(1).count(), walk.host(2).count()), (1, 0), "{status}");
            let answer = walk.send(look()).await;
            assert_eq!(answer.status, 200, "what only looks goes on: {}", answer.text());
            assert_eq!(walk.host(2).count(), 1, "{status}");
            walk.host(1).count();
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
        walk.host(1).door(Door::Refuses(REFUSED));
        assert_eq!(walk.send(create()).await.status, 200, "nothing was sent");
        let records = walk.records().await;
        let tried: Vec<i64> = records.last().unwrap().attempts.iter().map(|at| at.provider_id.0).collect();
        assert_eq!(tried, [1, 1, 2]);
    });
}

#[test]
fn the_sends_of_one_request_are_bounded() {
    run(async {
        let walk =
            Walk::new().setting("MAX_ATTEMPTS_PER_REQUEST", 3).providers(1..=9, |_, _| {}).start().await;
        for id in 1..=9 {
            walk.host(id).always(Reply::error(500, "api_error", "down"));
        }
        let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await;
        assert_eq!(answer.status, 503);
        assert_eq!((1..=9).map(|id| walk.host(id).count()).sum::<usize>(), 3);
        assert_eq!(walk.records().await[0].attempts.len(), 3);
    });
}

#[test]
fn a_second_send_over_a_stale_connection_stands_in_the_trail() {
    run(async {
        let walk = duel().start().await;
        let good = || answers::document(Dialect::Anthropic, USED);
        walk.host(1).next(good()).next(Reply::hang_up()).next(good());
        for trail in
            [&[AttemptResult::Success][..], &[AttemptResult::SystemError, AttemptResult::RetrySuccess]]
        {
            let answer = walk.post("/v1/messages", request(Dialect::Anthropic, "m", false)).await;
            assert_eq!(answer.status, 200);
            let records = walk.records().await;
            let seen: Vec<AttemptResult> = records[0].attempts.iter().map(|at| at.result).collect();
            assert_eq!(seen, trail);
        }
        assert_eq!((walk.host(1).count(), walk.host(2).count()), (3, 0));
        assert_eq!(walk.health(1).failures, 0);
    });
}
