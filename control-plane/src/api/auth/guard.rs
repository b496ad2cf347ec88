//! Failed logins by address: ten unknown credentials within five minutes lock an address out for a quarter
//! of an hour. In memory and bounded; each replica counts for itself.
//!
//! A credential that comes with a request counts as well, but each only once: a script that goes on with a key that was
//! removed must not lock out its neighbours.

use crate::rules::key;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures that are forgiven.
const FAILURES: u32 = 10;
/// In how long.
const WINDOW: Duration = Duration::from_secs(300);
/// How long the lock holds.
const LOCK: Duration = Duration::from_secs(900);
/// Most addresses remembered.
const ADDRESSES: usize = 10_000;

/// The failed logins of all addresses.
#[derive(Debug, Default)]
pub struct Guard {
    by_address: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    failures: u32,
    since: Instant,
    locked_until: Option<Instant>,
    /// The beginnings of the hashes of what came with requests, no more than failures are forgiven.
    guesses: Vec<[u8; 8]>,
}

impl Entry {
    fn new(since: Instant) -> Self {
        Self { failures: 0, since, locked_until: None, guesses: Vec::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.locked_until {
            Some(end) => end <= now,
            None => now.duration_since(self.since) >= WINDOW,
        }
    }
}

impl Guard {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Every change under the lock is one insert or remove, so a panicked holder left it whole.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an address has still to wait.
    pub fn locked(&self, address: &str, now: Instant) -> Option<Duration> {
        let end = self.lock().get(&network(address))?.locked_until?;
        end.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Counts an unknown credential of a login.
    pub fn failed(&self, address: &str, now: Instant) {
        self.count(address, None, now);
    }

    /// Counts an unknown credential of any other request.
    pub fn guessed(&self, address: &str, credential: &str, now: Instant) {
        let hash = key::hash(credential);
        self.count(address, hash.first_chunk().copied(), now);
    }

    fn count(&self, address: &str, guess: Option<[u8; 8]>, now: Instant) {
        let mut entries = self.lock();
        let network = network(address);
        if entries.len() >= ADDRESSES && !entries.contains_key(&network) {
            make_room(&mut entries, now);
        }
        let entry = entries.entry(network).or_insert_with(|| Entry::new(now));
        if entry.is_over(now) {
            *entry = Entry::new(now);
        }
        if let Some(guess) = guess {
            if entry.guesses.contains(&guess) || entry.failures >= FAILURES {
                return;
            }
            entry.guesses.push(guess);
        }
        entry.failures += 1;
        let (failures, is_locked) = (entry.failures, entry.failures >= FAILURES);
        if is_locked {
            entry.locked_until = Some(now + LOCK);
        }
        drop(entries);
        // Who was refused has no account that a log of accesses could name.
        tracing::warn!(client_ip = address, failures, is_locked, "unknown credential");
    }

    /// Forgets an address: it knew an admin's credential.
    pub fn succeeded(&self, address: &str) {
        self.lock().remove(&network(address));
    }
}

fn make_room(entries: &mut HashMap<String, Entry>, now: Instant) {
    entries.retain(|_, entry| !entry.is_over(now));
    if entries.len() >= ADDRESSES {
        // Someone fills the map on purpose; who failed once and least recently is the least harm to forget.
        let oldest = entries.iter().min_by_key(|(_, entry)| (entry.locked_until.is_some(), entry.since));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            entries.remove(&key);
        }
    }
}

/// One IPv6 customer has a /64, so that counts as one address.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_none() => hex::encode(&ip.octets()[..8]),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_lock_for_a_quarter_of_an_hour() {
        let (guard, start) = (Guard::default(), Instant::now());
        for _ in 0..9 {
            guard.failed("1.2.3.4", start);
        }
        assert_eq!(guard.locked("1.2.3.4", start), None);
        guard.failed("1.2.3.4", start + Duration::from_secs(1));
        assert_eq!(guard.locked("1.2.3.4", start + Duration::from_secs(1)), Some(LOCK));
        assert_eq!(guard.locked("1.2.3.5", start), None);
        assert_eq!(guard.locked("1.2.3.4", start + LOCK + Duration::from_secs(1)), None);
        guard.failed("1.2.3.4", start + LOCK + Duration::from_secs(2));
        assert_eq!(guard.locked("1.2.3.4", start + LOCK + Duration::from_secs(2)), None);
    }

    #[test]
    fn a_guess_counts_once() {
        let (guard, start) = (Guard::default(), Instant::now());
        for _ in 0..100 {
            guard.guessed("a", "stale", start);
        }
        assert_eq!(guard.locked("a", start), None);
        for n in 0..9 {
            assert_eq!(guard.locked("a", start), None);
            guard.guessed("a", &format!("guess {n}"), start);
        }
        assert_eq!(guard.locked("a", start), Some(LOCK));
    }

    #[test]
    fn old_failures_do_not_count() {
        let (guard, start) = (Guard::default(), Instant::now());
        for _ in 0..9 {
            guard.failed("a", start);
        }
        guard.failed("a", start + WINDOW);
        assert_eq!(guard.locked("a", start + WINDOW), None);
        guard.succeeded("a");
        assert!(guard.lock().is_empty());
    }

    #[test]
    fn the_map_is_bounded() {
        let (guard, start) = (Guard::default(), Instant::now());
        for n in 0..ADDRESSES + 50 {
            guard.failed(&format!("10.{n}"), start);
        }
        assert_eq!(guard.lock().len(), ADDRESSES);
        assert_eq!(network("2001:db8::1"), network("2001:db8::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8::2"));
    }
}
