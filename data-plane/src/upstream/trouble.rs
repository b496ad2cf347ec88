//! Whether it is this proxy that cannot reach anybody. Trouble of its own is never a provider's fault: it is not
//! counted against one and not reported to the fleet, it is an alarm.
//!
//! Shared by all threads. Remembers a few hosts for half a minute; never does I/O.

use super::failure::{Failure, FailureClass, Local, Stage};
use crate::clock::now_ms;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Failures of several hosts within this time are at once, and a host that was reached within it proves the network.
const AT_ONCE_MS: i64 = 30_000;
/// How long a lack of descriptors keeps the proxy from being ready: until those in flight have given some back.
const SHORT_MS: i64 = 10_000;
/// Hosts that are remembered; two would do.
const MAX_HOSTS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Trouble {
    /// When a host was last reached, Unix milliseconds.
    reached_ms: AtomicI64,
    /// When a name was last looked up and not remembered, Unix milliseconds.
    resolved_ms: AtomicI64,
    /// When descriptors were last missing.
    short_ms: AtomicI64,
    /// Hosts that could not be reached for a reason that may lie on either side, and when.
    unreached: Mutex<HashMap<Box<str>, i64>>,
    /// Hosts whose name could not be looked up: when first and when last.
    unnamed: Mutex<HashMap<Box<str>, (i64, i64)>>,
}

impl Trouble {
    /// A host was reached: it took the connection, or refused it.
    pub fn reached(&self) {
        self.reached_ms.fetch_max(now_ms(), Ordering::Relaxed);
    }

    /// The resolver answered.
    pub fn resolved(&self) {
        self.resolved_ms.fetch_max(now_ms(), Ordering::Relaxed);
    }

    /// Whether this proxy lately had no descriptor left for a connection.
    pub fn is_short(&self) -> bool {
        now_ms() < self.short_ms.load(Ordering::Relaxed) + SHORT_MS
    }

    /// Says of a failed connection whose trouble it is.
    pub fn judged(&self, host: &str, mut failure: Failure) -> Failure {
        match failure.class {
            FailureClass::Local(Local::Descriptors) => {
                self.short_ms.fetch_max(now_ms(), Ordering::Relaxed);
                failure
            }
            FailureClass::Unreachable | FailureClass::Timeout(Stage::Connect) => {
                if !self.is_alone(host) {
                    failure.class = FailureClass::Local(Local::Network);
                }
                failure
            }
            FailureClass::NoResolver => {
                if !self.others_resolve(host) {
                    failure.class = FailureClass::Local(Local::Resolver);
                }
                failure
            }
            // It refused, or spoke: the way to it is open.
            FailureClass::Connect | FailureClass::Tls => {
                self.reached();
                failure
            }
            _ => failure,
        }
    }

    /// Whether another name was looked up since this one fails. What was reached proves nothing here: names are remembered
    /// and addresses need no resolver.
    fn others_resolve(&self, host: &str) -> bool {
        let now_ms = now_ms();
        let mut unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
        unnamed.retain(|_, (_, last)| now_ms < *last + AT_ONCE_MS);
        let mut first = now_ms;
        if let Some(times) = unnamed.get_mut(host) {
            times.1 = now_ms;
            first = times.0;
        } else if unnamed.len() < MAX_HOSTS {
            unnamed.insert(host.into(), (now_ms, now_ms));
        }
        drop(unnamed);
        self.resolved_ms.load(Ordering::Relaxed) > first
    }

    /// Whether this host alone is in trouble, as far as this proxy can tell: others were reached lately, or nobody else
    /// was tried.
    fn is_alone(&self, host: &str) -> bool {
        let now_ms = now_ms();
        let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        unreached.retain(|_, at| now_ms < *at + AT_ONCE_MS);
        if unreached.len() < MAX_HOSTS || unreached.contains_key(host) {
            unreached.insert(host.into(), now_ms);
        }
        let others = unreached.len() > 1;
        let first = unreached.values().copied().min().unwrap_or(now_ms);
        drop(unreached);
        let reached_ms = self.reached_ms.load(Ordering::Relaxed);
        !others || reached_ms >= first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing;
    use std::time::Duration;

    fn judged(trouble: &Trouble, host: &str, class: FailureClass) -> FailureClass {
        trouble.judged(host, Failure::new(class)).class
    }

    const SILENT: FailureClass = FailureClass::Timeout(Stage::Connect);

    #[tokio::test(start_paused = true)]
    async fn one_host_that_is_away_is_its_own_fault_and_several_at_once_are_ours() {
        testing::set(1_000_000);
        for class in [SILENT, FailureClass::Unreachable] {
            let trouble = Trouble::default();
            for _ in 0..9 {
                assert_eq!(judged(&trouble, "a", class), class, "alone");
            }
            assert_eq!(judged(&trouble, "b", class), FailureClass::Local(Local::Network));
            assert_eq!(judged(&trouble, "a", class), FailureClass::Local(Local::Network));
            trouble.reached();
            assert_eq!(judged(&trouble, "a", class), class, "somebody was reached meanwhile");
            testing::pass(Duration::from_secs(31)).await;
            assert_eq!(judged(&trouble, "b", class), class, "that is long ago");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_ours_unless_it_knows_other_names() {
        testing::set(1_000_000);
        let trouble = Trouble::default();
        let ours = FailureClass::Local(Local::Resolver);
        trouble.resolved();
        for _ in 0..9 {
            testing::pass(Duration::from_secs(4)).await;
            assert_eq!(judged(&trouble, "a", FailureClass::NoResolver), ours);
            // Over a connection that rests, or to an address.
            trouble.reached();
        }
        trouble.resolved();
        assert_eq!(judged(&trouble, "a", FailureClass::NoResolver), FailureClass::NoResolver);
        assert_eq!(judged(&trouble, "b", FailureClass::NoResolver), ours, "not since that one fails");
        assert_eq!(judged(&trouble, "a", FailureClass::Dns), FailureClass::Dns, "it answered: no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_proves_the_network() {
        testing::set(1_000_000);
        let trouble = Trouble::default();
        judged(&trouble, "a", SILENT);
        assert_eq!(judged(&trouble, "b", FailureClass::Connect), FailureClass::Connect);
        assert_eq!(judged(&trouble, "c", SILENT), SILENT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_descriptors_is_ours_and_passes() {
        testing::set(1_000_000);
        let trouble = Trouble::default();
        assert!(!trouble.is_short());
        let local = FailureClass::Local(Local::Descriptors);
        assert_eq!(judged(&trouble, "a", local), local);
        assert!(trouble.is_short());
        testing::pass(Duration::from_secs(10)).await;
        assert!(!trouble.is_short());
    }
}
