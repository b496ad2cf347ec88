//! In which price classes the input of an answer lay, remembered per conversation: what is estimated later is split alike.

use contract::ids::UserId;
use contract::usage::TokenCounts;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts that make the whole; three shares of so many fit into [`SHARE_BITS`] each.
const WHOLE: u64 = 4_000;
const SHARE_BITS: u32 = 12;
const SHARE_MASK: u64 = (1 << SHARE_BITS) - 1;
/// What of a place in [`LastClasses`] holds the shares; the rest tells conversations apart.
const SHARES_MASK: u64 = (1 << (3 * SHARE_BITS)) - 1;
/// Conversations that are remembered, 8 bytes each; a newer one takes the place of an older one.
const PLACES: usize = 1 << 16;

/// The shares of an input by price class, in 36 bits; what is in none is uncached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u64);

impl Classes {
    /// Those of an answer; `None` if it had no text input.
    pub fn of(tokens: &TokenCounts) -> Option<Self> {
        let classes = [tokens.cache_read, tokens.cache_write_5m, tokens.cache_write_1h].map(u128::from);
        let all = u128::from(tokens.input) + classes.iter().sum::<u128>();
        let mut bits = 0;
        for count in classes {
            // No share is above the whole, which fits.
            let share = (count * u128::from(WHOLE)).checked_div(all)?;
            bits = bits << SHARE_BITS | u64::try_from(share).unwrap_or(WHOLE);
        }
        Some(Self(bits))
    }

    /// An input of so many tokens, split in these shares.
    pub fn split(self, tokens: u64) -> TokenCounts {
        let part = |shift: u32| {
            let share = self.0 >> (shift * SHARE_BITS) & SHARE_MASK;
            u64::try_from(u128::from(tokens) * u128::from(share) / u128::from(WHOLE)).unwrap_or(tokens)
        };
        let (cache_read, cache_write_5m, cache_write_1h) = (part(2), part(1), part(0));
        let input = tokens.saturating_sub(cache_read + cache_write_5m + cache_write_1h);
        TokenCounts { input, cache_read, cache_write_5m, cache_write_1h, ..TokenCounts::default() }
    }

    /// In one number, for whoever keeps it outside of this process.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Of [`Classes::to_bits`]. `None`: no such number.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let shares = [bits >> (2 * SHARE_BITS), bits >> SHARE_BITS & SHARE_MASK, bits & SHARE_MASK];
        let all = shares.into_iter().fold(0u64, u64::saturating_add);
        (all <= WHOLE).then_some(Self(bits))
    }
}

/// Where a conversation is remembered, and the mark by which it is known there: never 0, which an empty place has.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    index: usize,
    tag: u64,
}

/// The classes of the last answer of the conversations of this process. Of bounded size and without locks: each
/// conversation has one place, by a keyed hash, which it may lose to another one.
pub struct LastClasses {
    hasher: RandomState,
    places: Box<[AtomicU64]>,
}

impl Default for LastClasses {
    fn default() -> Self {
        Self { hasher: RandomState::new(), places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl LastClasses {
    /// Remembers an answer of a conversation.
    pub fn learn(&self, place: Place, tokens: &TokenCounts) {
        if let Some(classes) = Classes::of(tokens) {
            self.places[place.index].store(place.tag | classes.0, Ordering::Relaxed);
        }
    }

    /// What is remembered of it.
    pub fn of(&self, place: Place) -> Option<Classes> {
        let held = self.places[place.index].load(Ordering::Relaxed);
        (held & !SHARES_MASK == place.tag).then_some(Classes(held & SHARES_MASK))
    }

    /// Where a conversation of a user is remembered.
    pub fn place(&self, user: UserId, session: &str) -> Place {
        let hash = self.hasher.hash_one((user, session));
        let tag = (hash & !SHARES_MASK) | (1 << (3 * SHARE_BITS));
        Place { index: (hash & SHARES_MASK) as usize % PLACES, tag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(input: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64) -> TokenCounts {
        TokenCounts { input, cache_read, cache_write_5m, cache_write_1h, ..TokenCounts::default() }
    }

    #[test]
    fn an_estimate_is_split_like_the_last_answer() {
        for (last, tokens, want) in [
            (counts(100, 900, 0, 0), 1_000, counts(100, 900, 0, 0)),
            (counts(0, 50, 25, 25), 400, counts(0, 200, 100, 100)),
            (counts(7, 0, 0, 0), 400, counts(400, 0, 0, 0)),
            (counts(1, 2, 0, 0), 3_000, counts(1_001, 1_999, 0, 0)),
            (counts(0, u64::MAX, u64::MAX, 0), 10, counts(0, 5, 5, 0)),
        ] {
            let classes = Classes::of(&last).expect("some input");
            assert_eq!(classes.split(tokens), want, "{last:?}");
            assert_eq!(Classes::from_bits(classes.to_bits()), Some(classes));
        }
        assert_eq!(Classes::of(&TokenCounts { output: 9, ..TokenCounts::default() }), None);
        assert_eq!(Classes::default().split(9), counts(9, 0, 0, 0));
        assert_eq!(Classes::from_bits(u64::MAX), None);
    }

    #[test]
    fn conversations_are_told_apart_and_the_last_answer_counts() {
        let last = LastClasses::default();
        let (ann, bob) = (UserId(1), UserId(2));
        let of = |user, session: &str| last.of(last.place(user, session));
        let learn = |session: &str, tokens: &TokenCounts| last.learn(last.place(ann, session), tokens);
        assert_eq!(of(ann, "s"), None);
        learn("s", &counts(1, 1, 0, 0));
        learn("s", &counts(0, 1, 0, 0));
        learn("s", &TokenCounts::default());
        assert_eq!(of(ann, "s"), Classes::of(&counts(0, 1, 0, 0)));
        assert_eq!((of(bob, "s"), of(ann, "t")), (None, None));
        // Many more than there is room for: some are lost, none is taken for another.
        for n in 0..2 * PLACES as u64 {
            learn(&n.to_string(), &counts(n, 1, 0, 0));
        }
        let known = |n: u64| of(ann, &n.to_string());
        let kept = (0..2 * PLACES as u64).filter(|n| known(*n).is_some());
        assert!(
            kept.inspect(|n| assert_eq!(known(*n), Classes::of(&counts(*n, 1, 0, 0)))).count() > PLACES / 3
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_splitting(
            input: u32, read: u32, short: u32, long: u32, tokens in 0..1u64 << 40,
        ) {
            let Some(classes) = Classes::of(&counts(input.into(), read.into(), short.into(), long.into())) else {
                return Ok(());
            };
            let split = classes.split(tokens);
            prop_assert_eq!(split.prompt(), tokens);
            prop_assert_eq!(Classes::from_bits(classes.to_bits()), Some(classes));
        }
    }
}
