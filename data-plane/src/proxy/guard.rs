//! Guessing keys is slow: an address that shows too many unknown keys is told nothing about others for a while.
//! Callers with a known key are served from there all the same.
//!
//! Only unknown keys count. A disabled or expired key is a known one, and its program may try for hours
//! without locking out its neighbours behind the same address.

use crate::config::Config;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Addresses that are remembered. Beyond it those without a running block are forgotten first, then all.
const MAX_ADDRESSES: usize = 65_536;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    window_ends_ms: i64,
    blocked_until_ms: i64,
}

/// Failures by address, shared by all threads.
#[derive(Default)]
pub struct Guard(Mutex<HashMap<IpAddr, Failures>>);

impl Guard {
    /// Milliseconds for which `address` is still refused.
    pub fn blocked(&self, address: IpAddr, now_ms: i64) -> Option<u64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = seen.get(&address)?;
        u64::try_from(failures.blocked_until_ms - now_ms).ok().filter(|left| *left > 0)
    }

    /// `address` showed a key that nobody knows.
    pub fn failed(&self, config: &Config, address: IpAddr, now_ms: i64) {
        if config.auth_failure_limit == 0 {
            return;
        }
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_ADDRESSES {
            seen.retain(|_, failures| failures.blocked_until_ms > now_ms);
            if seen.len() >= MAX_ADDRESSES {
                seen.clear();
            }
        }
        let fresh = Failures {
            count: 0,
            window_ends_ms: now_ms + millis(config.auth_failure_window),
            blocked_until_ms: 0,
        };
        let failures = seen.entry(address).or_insert(fresh);
        if failures.window_ends_ms <= now_ms {
            *failures = fresh;
        }
        failures.count += 1;
        if failures.count >= config.auth_failure_limit {
            failures.blocked_until_ms = now_ms + millis(config.auth_failure_block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_after_the_limit_and_forgets() {
        let key = "00".repeat(32);
        let pairs = [("CONTROL_TOKEN", "t"), ("SECRETS_KEY", &key), ("AUTH_FAILURE_LIMIT", "3")];
        let config = Config::from_pairs(&pairs).expect("config");
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
}
