//! What ends while Redis is away is charged at its time, later.

use super::*;
use crate::store::Ask;
use contract::table::CounterNaming;
use std::time::Duration;

#[test]
fn what_redis_could_not_be_told_is_charged_at_its_time() {
    let ask = Ask {
        request: fresh_id(1),
        home: Home { owner: UserId(1), naming: CounterNaming::ByOwner },
        user: UserId(2),
        now_ms: 1,
        counters: &Counters::default(),
        estimate: NanoUsd(0),
        session: None,
        session_ttl: Duration::from_secs(1),
    };
    let holder = Holder::new(&ask);
    let spend = |at_ms, nano| holder.state.borrow_mut().spend(nano, at_ms);
    let charges = || {
        let next = || holder.unsent().inspect(|_| holder.sent());
        std::iter::from_fn(next).map(|unsent| (unsent.ended_ms, unsent.nano)).collect::<Vec<_>>()
    };
    spend(1_000, 5);
    spend(3_000, 7);
    spend(2_000, 0);
    let both = holder.unsent().expect("a charge");
    let money = holder.money();
    let charge = holder.charge(&both, &money);
    assert_eq!((charge.now_ms, charge.last_ms), (1_000, 3_000), "the time of the first, and of the last");
    assert_eq!(charges(), [(1_000, 12)]);
    // An outage of Redis: what is being sent stays as it is.
    spend(10_000, 1);
    assert_eq!(holder.unsent().map(|unsent| unsent.nano), Some(1));
    for (at_ms, nano) in [(11_000, 2), (12_000, 4), (25_000, 8), (600_000, 16)] {
        spend(at_ms, nano);
    }
    assert_eq!(charges(), [(10_000, 1), (11_000, 6), (25_000, 8), (600_000, 16)]);
    (0..1_000).for_each(|n| spend(n * CHARGE_MS, 1));
    assert_eq!(holder.state.borrow().unsent.len(), MAX_UNSENT);
    assert_eq!(charges().iter().map(|(_, nano)| nano).sum::<i64>(), 1_000);
}
