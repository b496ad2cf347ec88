//! Guessing keys is slow: an address that shows too many unknown keys is told nothing about others for a while.
//! Callers with a known key are served from there all the same.
//!
//! Only unknown keys count. A disabled or expired key is a known one, and its program may try for hours
//! without locking out its neighbours behind the same address.

use crate::config::Config;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Addresses that are remembered; at it the one that matters least makes room.
const MAX_ADDRESSES: usize = 65_536;
/// How often a full memory is searched for what is over; in between a few are compared.
const SWEEP_EVERY_MS: i64 = 1_000;
/// So many are compared for the one to forget.
const COMPARED: usize = 8;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    window_ends_ms: i64,
    blocked_until_ms: i64,
}

impl Failures {
    /// A block outlives whatever is only counted, and a longer one a shorter.
    fn worth(&self) -> (i64, i64) {
        (self.blocked_until_ms, self.window_ends_ms)
    }

    fn is_over(&self, now_ms: i64) -> bool {
        self.blocked_until_ms <= now_ms && self.window_ends_ms <= now_ms
    }
}

#[derive(Default)]
struct Seen {
    by_address: HashMap<IpAddr, Failures>,
    swept_ms: i64,
}

impl Seen {
    /// Makes room for one more, without looking at all of them each time: whoever fills the memory would make this
    /// thread search it for every further key.
    fn make_room(&mut self, now_ms: i64) {
        if self.by_address.len() < MAX_ADDRESSES {
            return;
        }
        if now_ms - self.swept_ms >= SWEEP_EVERY_MS {
            self.swept_ms = now_ms;
            self.by_address.retain(|_, failures| !failures.is_over(now_ms));
        }
        if self.by_address.len() >= MAX_ADDRESSES {
            let few = self.by_address.iter().take(COMPARED);
            let least = few.min_by_key(|(_, failures)| failures.worth()).map(|(address, _)| *address);
            least.map(|address| self.by_address.remove(&address));
        }
    }
}

/// Failures by address, shared by all threads.
#[derive(Default)]
pub struct Guard(Mutex<Seen>);

impl Guard {
    /// Milliseconds for which `address` is still refused.
    pub fn blocked(&self, address: IpAddr, now_ms: i64) -> Option<u64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = seen.by_address.get(&network(address))?;
        u64::try_from(failures.blocked_until_ms - now_ms).ok().filter(|left| *left > 0)
    }

    /// `address` showed a key that nobody knows.
    pub fn failed(&self, config: &Config, address: IpAddr, now_ms: i64) {
        if config.auth_failure_limit == 0 {
            return;
        }
        let address = network(address);
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.by_address.contains_key(&address) {
            seen.make_room(now_ms);
        }
        let fresh = Failures {
            count: 0,
            window_ends_ms: now_ms + millis(config.auth_failure_window),
            blocked_until_ms: 0,
        };
        let failures = seen.by_address.entry(address).or_insert(fresh);
        if failures.window_ends_ms <= now_ms {
            *failures = fresh;
        }
        failures.count += 1;
        if failures.count >= config.auth_failure_limit {
            failures.blocked_until_ms = now_ms + millis(config.auth_failure_block);
        }
    }
}

/// What counts as one address: of IPv6 the network, since whoever has one address has 2^64 of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => match long.to_ipv4_mapped() {
            Some(short) => short.into(),
            None => Ipv6Addr::from_bits(long.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(limit: &str) -> Config {
        let key = "00".repeat(32);
        let pairs = [("CONTROL_TOKEN", "t"), ("SECRETS_KEY", &key), ("AUTH_FAILURE_LIMIT", limit)];
        Config::from_pairs(&pairs).expect("config")
    }

    #[test]
    fn blocks_after_the_limit_and_forgets() {
        let config = config("3");
        let (guard, bad) = (Guard::default(), IpAddr::from([192, 0, 2, 1]));
        for at in 0..3 {
            assert_eq!(guard.blocked(bad, at), None);
            guard.failed(&config, bad, at);
        }
        assert_eq!(guard.blocked(bad, 2), Some(600_000));
        assert_eq!(guard.blocked(bad, 600_002), None, "the block ends");
        assert_eq!(guard.blocked(IpAddr::from([192, 0, 2, 2]), 3), None, "others are not touched");
        guard.failed(&config, bad, 700_000);
        assert_eq!(guard.blocked(bad, 700_000), None, "a new window counts from one");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let config = config("2");
        let guard = Guard::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        guard.failed(&config, address("2001:db8:0:1::1"), 0);
        guard.failed(&config, address("2001:db8:0:1:ffff::2"), 0);
        assert!(guard.blocked(address("2001:db8:0:1::3"), 1).is_some());
        assert!(guard.blocked(address("2001:db8:0:2::1"), 1).is_none(), "the neighbour");
        guard.failed(&config, address("::ffff:192.0.2.1"), 0);
        guard.failed(&config, address("192.0.2.1"), 0);
        assert!(guard.blocked(address("192.0.2.1"), 1).is_some(), "written either way");
    }

    #[test]
    fn a_full_memory_keeps_its_blocks() {
        let guard = Guard::default();
        let bad = IpAddr::from([192, 0, 2, 1]);
        guard.failed(&config("1"), bad, 0);
        let many = config("5");
        for at in 0..2 * MAX_ADDRESSES as u32 {
            guard.failed(&many, IpAddr::from(at.to_be_bytes()), 1);
        }
        assert!(guard.blocked(bad, 2).is_some(), "others only made it forget what is not blocked");
        let length = || guard.0.lock().expect("lock").by_address.len();
        assert_eq!(length(), MAX_ADDRESSES);
        // Their windows are over, its block is not.
        guard.failed(&many, IpAddr::from([1, 2, 3, 4]), 400_000);
        assert_eq!(length(), 2);
        assert!(guard.blocked(bad, 400_000).is_some());
    }
}
