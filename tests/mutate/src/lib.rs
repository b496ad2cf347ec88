//! Damaged inputs for the parsers that face strangers: real bodies, cut, spliced, repeated and sprinkled with the
//! tokens that a format turns on. What fails is shown with as little damage as still fails.
//!
//! For tests only; depends on proptest, knows no parser. `SWITCHYARD_FUZZ_SECONDS` tries random damage for so long;
//! without it a fixed number of cases is tried, the same ones each time.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long, in seconds; each time with other damage.
const SECONDS: &str = "SWITCHYARD_FUZZ_SECONDS";
/// Cases between two looks at the clock.
const BATCH: u32 = 512;
/// Damages of one input.
const MOST_DAMAGES: usize = 6;
/// Bytes of a damaged input at most; copies of copies grow without bound.
const LONGEST: usize = 16 * 1024;
/// Copies of a piece at most.
const MOST_COPIES: usize = 40;

/// One thing that went wrong with an input. Places are fractions of its length, so that damage stays in place while an
/// input shrinks.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte becomes another.
    Byte(f64, u8),
    /// A piece is gone.
    Gone(f64, f64),
    /// A piece is there several times.
    Again(f64, f64, usize),
    /// A token stands where none was.
    Token(f64, usize),
    /// The rest is that of another input.
    Graft(f64, usize, f64),
    /// Nothing follows.
    Cut(f64),
}

fn damage(tokens: usize, seeds: usize) -> impl Strategy<Value = Damage> {
    let place = || 0.0..1.0f64;
    // Most pieces are short: whole inputs that are gone teach little.
    let length = || prop_oneof![4 => 0.0..0.05f64, 1 => 0.0..1.0f64];
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        2 => (place(), length()).prop_map(|(at, length)| Damage::Gone(at, length)),
        1 => (place(), length(), 2..MOST_COPIES).prop_map(|(at, length, times)| Damage::Again(at, length, times)),
        6 => (place(), 0..tokens.max(1)).prop_map(|(at, token)| Damage::Token(at, token)),
        1 => (place(), 0..seeds.max(1), place()).prop_map(|(at, seed, from)| Damage::Graft(at, seed, from)),
        1 => place().prop_map(Damage::Cut),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "places in inputs of some kilobytes"
)]
fn place(fraction: f64, length: usize) -> usize {
    ((fraction * (length as f64 + 1.0)) as usize).min(length)
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage, seeds: &[&[u8]], tokens: &[&[u8]]) {
    let piece = |from: f64, length: f64, of: usize| {
        let start = place(from, of);
        start..start + place(length, of - start)
    };
    let length = bytes.len();
    match damage {
        Damage::Byte(at, byte) => {
            if let Some(old) = bytes.get_mut(place(*at, length)) {
                *old = *byte;
            }
        }
        Damage::Gone(at, many) => drop(bytes.drain(piece(*at, *many, length))),
        Damage::Again(at, many, times) => {
            let piece = piece(*at, *many, length);
            let copies = bytes[piece.clone()].repeat(*times);
            bytes.splice(piece, copies);
        }
        Damage::Token(at, token) => {
            let at = place(*at, length);
            bytes.splice(at..at, tokens.get(*token).copied().unwrap_or_default().iter().copied());
        }
        Damage::Graft(at, seed, from) => {
            let seed = seeds.get(*seed).copied().unwrap_or_default();
            bytes.truncate(place(*at, length));
            bytes.extend_from_slice(&seed[place(*from, seed.len())..]);
        }
        Damage::Cut(at) => bytes.truncate(place(*at, length)),
    }
}

/// One of `seeds`, damaged; now and then sound. `tokens` are what the format turns on.
pub fn damaged(
    seeds: &'static [&'static [u8]],
    tokens: &'static [&'static [u8]],
) -> impl Strategy<Value = Vec<u8>> {
    let damages = proptest::collection::vec(damage(tokens.len(), seeds.len()), 0..=MOST_DAMAGES);
    (0..seeds.len(), damages).prop_map(move |(seed, damages)| {
        let mut bytes = seeds[seed].to_vec();
        for damage in &damages {
            apply(&mut bytes, damage, seeds, tokens);
            bytes.truncate(LONGEST);
        }
        bytes
    })
}

/// Some places to cut an input into pieces.
pub fn cuts() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0.0..1.0f64, 0..8)
}

/// `bytes` in pieces.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[f64]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| place(*cut, bytes.len())).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// Tries `test` on `cases` inputs, or for as long as `SWITCHYARD_FUZZ_SECONDS` says. `Err` says what is wrong.
pub fn fuzz<T: Clone + Debug>(
    cases: u32,
    inputs: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), String>,
) {
    let seconds: Option<u64> = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    let config =
        |cases| Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let began = Instant::now();
    loop {
        let mut runner = match seconds {
            Some(_) => TestRunner::new(config(BATCH)),
            None => {
                TestRunner::new_with_rng(config(cases), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
            }
        };
        match runner.run(&inputs, |input| test(input).map_err(TestCaseError::fail)) {
            Ok(()) => {}
            Err(TestError::Fail(why, input)) => panic!("{why}\nfor {}", shown(&input)),
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
        if seconds.is_none_or(|seconds| began.elapsed() >= Duration::from_secs(seconds)) {
            return;
        }
    }
}

/// Bytes as text, where they are bytes.
fn shown(input: &impl Debug) -> String {
    let text = format!("{input:?}");
    let bytes = text.trim_matches(['(', '[', ']', ')']).split(']').next().unwrap_or_default();
    let bytes: Option<Vec<u8>> = bytes.split(", ").map(|byte| byte.parse().ok()).collect();
    match bytes {
        Some(bytes) => format!("{text}\nin which the bytes read {:?}", String::from_utf8_lossy(&bytes)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_stays_within_the_input_and_pieces_add_up() {
        fuzz(2_000, (damaged(&[b"", b"a", b"hello, world"], &[b"{", b"\r\n"]), cuts()), |(bytes, cuts)| {
            let whole = pieces(&bytes, &cuts).concat();
            if whole == bytes { Ok(()) } else { Err("pieces are not the whole".to_owned()) }
        });
    }

    #[test]
    #[should_panic(expected = "in which the bytes read \"xhello\"")]
    fn what_fails_is_shown_with_little_damage() {
        fuzz(2_000, damaged(&[b"hello"], &[b"x"]), |bytes| {
            if bytes.contains(&b'x') { Err("an x".to_owned()) } else { Ok(()) }
        });
    }
}
