//! Who is let in: keys, limits and what a refusal says. A refused request holds nothing and leaves no record.

use super::answers::{self, Used, request};
use super::call::Call;
use super::walk::{Walk, key, rpm, run, usd};
use crate::clock::testing::pass;
use crate::table::fixtures;
use contract::table::Limit;
use contract::usage::Dialect;
use std::time::Duration;

fn hello() -> Call {
    Call::post("/v1/messages", request(Dialect::Anthropic, "m", false).to_string())
}

/// User 1 with key 1 is limited, user 2 with key 2 is not.
async fn limited(limit: Limit) -> Walk {
    let walk = Walk::new().setting("QUOTA_STATUS", 429).providers([1], |_, _| {}).rows(|rows| {
        rows.users[0].limits = vec![limit];
        rows.users.push(fixtures::user(2, "bob"));
        rows.keys.push(key(2, 2));
    });
    let walk = walk.start().await;
    walk.host(1).always(answers::document(Dialect::Anthropic, Used { input: 100, output: 0 }));
    walk
}

#[test]
fn who_has_no_key_learns_nothing_and_reaches_nobody() {
    run(async {
        let walk = limited(usd(1_000)).await;
        for (call, code) in [
            (hello().key(99), "invalid_api_key"),
            (hello().header("x-api-key", ""), "missing"),
            (hello().header("authorization", "Bearer 2"), "ambiguous"),
        ] {
            let answer = walk.send(call).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, code), "{}", answer.text());
        }
        assert_eq!((walk.host(1).count(), walk.records().await.len()), (0, 0));
    });
}

#[test]
fn a_limit_refuses_its_own_user_until_there_is_room_again() {
    run(async {
        let walk = limited(rpm(2)).await;
        let statuses = async |id: i64| walk.send(hello().key(id)).await.status;
        assert_eq!([statuses(1).await, statuses(1).await, statuses(1).await], [200, 200, 429]);
        assert_eq!(statuses(2).await, 200);
        let refused = walk.send(hello()).await;
        assert_eq!((refused.header("retry-after"), refused.code().as_str()), ("60", "rate_limit_exceeded"));
        pass(Duration::from_secs(60)).await;
        assert_eq!(statuses(1).await, 200);
        assert_eq!((walk.records().await.len(), walk.host(1).count()), (4, 4), "refusals leave nothing");
    });
}

#[test]
fn money_is_refused_once_it_is_spent_and_not_before() {
    run(async {
        let walk = limited(usd(150)).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(walk.send(hello()).await.status);
            walk.quiet().await;
        }
        assert_eq!(statuses, [200, 200, 429, 429], "the one that crosses the line is served");
        walk.records().await;
        assert_eq!(walk.spent_by(1), 200_000_000);
    });
}

#[test]
fn what_goes_to_a_provider_is_its_own_credential_and_path() {
    run(async {
        let walk = limited(usd(150)).await;
        walk.send(hello().header("x-custom", "kept")).await;
        let seen = &walk.host(1).seen()[0];
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/messages"));
        assert_eq!(seen.header("x-api-key"), Some("sk-1"));
        assert_eq!((seen.header("x-custom"), seen.header("host")), (Some("kept"), Some("p1")));
    });
}
