//! All providers at limits of their own: nobody is asked, and the caller has used up nothing.

use super::answers::{self, Used, request};
use super::call::Call;
use super::walk::{Walk, run};
use contract::table::{Limit, Measure};
use contract::usage::Dialect;
use contract::window::Window;

fn limit(measure: Measure, window: Window, amount: i64) -> Limit {
    Limit { measure, window, amount, since_ms: None, absent_until_ms: None }
}

/// More providers than are asked at once, and fewer.
#[test]
fn who_finds_no_room_with_any_provider_keeps_their_own_places() {
    for count in [11, 3] {
        run(async {
            let ids: Vec<i64> = (1..=count).collect();
            let sessions = |amount| limit(Measure::Sessions, Window::Concurrent, amount);
            let walk = Walk::new().setting("QUOTA_STATUS", 429);
            let walk = walk.providers(ids.clone(), |_, row| row.limits = vec![sessions(1)]).rows(|rows| {
                let rpm = limit(Measure::Requests, Window::Minute, count + 1);
                rows.users[0].limits = vec![sessions(count + 1), rpm];
            });
            let walk = walk.start().await;
            for id in &ids {
                let used = Used { input: 1, output: 1 };
                walk.host(*id).always(answers::document(Dialect::Anthropic, used));
            }
            let ask = async |session: i64| {
                let body = request(Dialect::Anthropic, "m", false).to_string();
                let call = Call::post("/v1/messages", body).header("x-session-id", &format!("s{session}"));
                let answer = walk.send(call).await;
                walk.quiet().await;
                (answer.status, answer.code())
            };
            for session in 0..count {
                assert_eq!(ask(session).await.0, 200);
            }
            for session in count..count + 5 {
                // The caller has room for one more session, and for one more request.
                assert_eq!(ask(session).await, (503, "rate_limit_exceeded".to_owned()), "session {session}");
            }
            assert_eq!(ask(0).await.0, 200, "one that is known has its place");
            assert_eq!(ask(0).await.0, 429, "the requests that were served count");
        });
    }
}
