//! The counters of keys that were asked for lately: their windows need the calendar of a time zone, and their
//! names in the store are text, so both are worked out once per window and not once per request.

use super::{Counter, Counters, counters, provider_counters};
use crate::map::Map;
use chrono_tz::Tz;
use contract::ids::{KeyId, ProviderId};
use contract::table::{Key, Limit, Provider, User};
use std::cell::RefCell;
use std::sync::Arc;

/// Keys that are remembered; beyond, all are forgotten. A list of all limits is about 3 KiB.
const MOST: usize = 8_192;

struct Plan {
    key: Arc<Key>,
    user: Arc<User>,
    zone: Tz,
    /// In which its windows are the current ones, Unix milliseconds.
    from_ms: i64,
    until_ms: i64,
    counters: Counters,
}

struct ProviderPlan {
    limits: Vec<Limit>,
    zone: Tz,
    from_ms: i64,
    until_ms: i64,
    counters: Counters,
}

/// The lists of one traffic thread.
#[derive(Default)]
pub struct Plans {
    plans: RefCell<Map<KeyId, Plan>>,
    providers: RefCell<Map<ProviderId, ProviderPlan>>,
}

impl Plans {
    /// [`counters`], remembered for as long as the rows of the table and the windows last.
    pub fn counters(&self, key: &Arc<Key>, user: &Arc<User>, zone: Tz, now_ms: i64) -> Counters {
        if key.limits.is_empty() && user.limits.is_empty() {
            return Counters::default();
        }
        let mut plans = self.plans.borrow_mut();
        if let Some(plan) = plans.get(&key.id)
            && Arc::ptr_eq(&plan.key, key)
            && Arc::ptr_eq(&plan.user, user)
            && plan.zone == zone
            && (plan.from_ms..plan.until_ms).contains(&now_ms)
        {
            return plan.counters.clone();
        }
        let counters = counters(key, user, zone, now_ms);
        let until_ms = until(&counters);
        if plans.len() >= MOST {
            plans.clear();
        }
        let (key, user) = (Arc::clone(key), Arc::clone(user));
        let plan = Plan { key, user, zone, from_ms: now_ms, until_ms, counters: counters.clone() };
        plans.insert(plan.key.id, plan);
        counters
    }

    /// [`provider_counters`], remembered alike.
    pub fn provider(&self, row: &Provider, zone: Tz, now_ms: i64) -> Counters {
        if row.limits.is_empty() {
            return Counters::default();
        }
        let mut plans = self.providers.borrow_mut();
        if let Some(plan) = plans.get(&row.id)
            && plan.limits == row.limits
            && plan.zone == zone
            && (plan.from_ms..plan.until_ms).contains(&now_ms)
        {
            return plan.counters.clone();
        }
        let counters = provider_counters(row, zone, now_ms);
        if plans.len() >= MOST {
            plans.clear();
        }
        let (limits, until_ms) = (row.limits.clone(), until(&counters));
        let plan = ProviderPlan { limits, zone, from_ms: now_ms, until_ms, counters: counters.clone() };
        plans.insert(row.id, plan);
        counters
    }
}

/// When the first of their windows ends.
fn until(counters: &Counters) -> i64 {
    counters.iter().filter_map(Counter::end_ms).min().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures;
    use contract::table::{Limit, Measure};
    use contract::window::Window;

    const DAY_MS: i64 = 86_400_000;

    fn limited(window: Window) -> Vec<Limit> {
        vec![Limit { measure: Measure::Usd, window, amount: 5, since_ms: None, absent_until_ms: None }]
    }

    #[test]
    fn a_list_lasts_as_long_as_its_rows_and_windows() {
        let zone = chrono_tz::UTC;
        let key = Arc::new(Key { limits: limited(Window::Day { reset_minute: 0 }), ..fixtures::key(1) });
        let user = Arc::new(User { limits: limited(Window::Total), ..fixtures::user(2, "u") });
        let plans = Plans::default();
        let at = |key: &Arc<Key>, now_ms| plans.counters(key, &user, zone, now_ms);
        let same = |a: &Counters, b: &Counters| std::ptr::eq(a.as_ptr(), b.as_ptr());
        let first = at(&key, DAY_MS + 5);
        assert_eq!(first[..], counters(&key, &user, zone, DAY_MS + 5)[..]);
        assert!(same(&first, &at(&key, 2 * DAY_MS - 1)));
        let next_day = at(&key, 2 * DAY_MS);
        assert_eq!(next_day[..], counters(&key, &user, zone, 2 * DAY_MS)[..]);
        assert!(first[..] != next_day[..]);
        // A clock that was set back.
        assert_eq!(at(&key, DAY_MS + 5)[..], first[..]);
        let changed = Arc::new(Key { limits: limited(Window::Total), ..(*key).clone() });
        assert_eq!(at(&changed, DAY_MS + 5)[..], counters(&changed, &user, zone, DAY_MS + 5)[..]);
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let plans = Plans::default();
        let (key, user) = (Arc::new(fixtures::key(1)), Arc::new(fixtures::user(2, "u")));
        assert!(plans.counters(&key, &user, chrono_tz::UTC, 5).is_empty());
        assert!(plans.plans.borrow().is_empty());
    }
}
