//! Beside the walk: what callers bring to light makes the gateway ask by itself, and not more often than it should.

use super::answers::{self, Used, request};
use super::host::Seen;
use super::reply::Reply;
use super::walk::{Walk, price, run};
use contract::table::CircuitState;
use contract::usage::Dialect;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };
/// What is asked for in the end.
const COMMON: &str = "claude-haiku-4-5";

/// Callers say "hello …".
fn is_probe(seen: &Seen) -> bool {
    seen.json()["messages"][0]["content"] == "hi"
}

fn refusal() -> Reply {
    Reply::error(401, "authentication_error", "invalid x-api-key")
}

fn fine() -> Reply {
    answers::document(Dialect::Anthropic, USED)
}

/// These providers, of which the last one serves all callers: the others are asked first, and refuse them.
async fn refused(ids: impl IntoIterator<Item = i64> + Clone) -> Walk {
    let models = (1..=12).map(|number| price(&format!("m{number}"), 1, 2));
    let walk = Walk::new().rows(|rows| rows.prices.extend(models));
    let last = ids.clone().into_iter().last().unwrap();
    let walk = walk.providers(ids, |id, row| row.priority = i32::try_from(id).unwrap()).start().await;
    walk.host(last).always(answers::stream(Dialect::Anthropic, USED));
    walk
}

/// Callers ask for one model after another, each in a conversation of its own: what was refused rests at who refused it,
/// and a conversation stays where it was served.
async fn call(walk: &Walk, models: impl IntoIterator<Item = i64>) {
    for number in models {
        let mut body = request(Dialect::Anthropic, &format!("m{number}"), true);
        body["messages"][0]["content"] = format!("hello {number}").into();
        assert_eq!(walk.post("/v1/messages", body).await.status, 200, "the last one serves");
        walk.quiet().await;
    }
}

/// Callers are refused; questions of the gateway's own are counted and answered so.
fn answer(walk: &Walk, id: i64, answer: impl Fn(&Seen) -> Reply + 'static) -> Rc<Cell<usize>> {
    let probes: Rc<Cell<usize>> = Rc::default();
    let counted = Rc::clone(&probes);
    walk.host(id).by(move |seen| {
        if !is_probe(seen) {
            return refusal();
        }
        counted.set(counted.get() + 1);
        answer(seen)
    });
    probes
}

#[test]
fn however_often_callers_are_refused_a_provider_is_asked_once_in_a_while() {
    run(async {
        let busy = || Reply::error(529, "overloaded_error", "busy");
        let cases: [(fn() -> Reply, _); 3] =
            [(busy, CircuitState::Closed), (refusal, CircuitState::Disabled), (fine, CircuitState::Closed)];
        for (reply, state) in cases {
            let walk = refused([1, 2]).await;
            let probes = answer(&walk, 1, move |_| reply());
            let prober = walk.probe();
            call(&walk, 1..=9).await;
            assert_eq!((probes.get(), walk.health(1).state), (1, state), "once, however many are refused");
            // Whoever is refused is asked again in any case, the others when callers are refused again.
            tokio::time::sleep(Duration::from_secs(61)).await;
            call(&walk, 10..=12).await;
            assert_eq!((probes.get(), walk.health(1).state), (2, state), "later once more");
            prober.abort();
        }
    });
}

#[test]
fn a_provider_whose_remembered_model_is_gone_comes_back_alone() {
    run(async {
        let walk = refused([1, 2]).await;
        walk.host(1).always(answers::stream(Dialect::Anthropic, USED));
        call(&walk, [1]).await;
        let is_accepted = Rc::new(Cell::new(false));
        let knows = Rc::clone(&is_accepted);
        let probes = answer(&walk, 1, move |seen| match seen.json()["model"] == COMMON {
            true if knows.get() => Reply::error(404, "not_found_error", "model: claude-haiku-4-5"),
            true => refusal(),
            // Before the door.
            false => Reply::error(404, "not_found_error", "no such model"),
        });
        let prober = walk.probe();
        call(&walk, 2..=5).await;
        assert_eq!((probes.get(), walk.health(1).state), (2, CircuitState::Disabled));
        is_accepted.set(true);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((probes.get(), walk.health(1).state), (4, CircuitState::Closed));
        prober.abort();
    });
}

#[test]
fn one_that_says_nothing_holds_up_no_later_suspect() {
    run(async {
        let walk = refused([1, 2, 3]).await;
        let hangs = answer(&walk, 1, |_| Reply::never());
        let silent = answer(&walk, 2, |_| refusal());
        walk.host(2).always(answers::stream(Dialect::Anthropic, USED));
        let prober = walk.probe();
        call(&walk, 1..=3).await;
        assert_eq!((hangs.get(), silent.get()), (1, 0), "the first is asked");
        let refuses = answer(&walk, 2, |_| refusal());
        call(&walk, 4..=9).await;
        assert_eq!((hangs.get(), refuses.get()), (1, 1), "the first once, and the second meanwhile");
        assert_eq!(walk.health(2).state, CircuitState::Disabled);
        prober.abort();
    });
}
