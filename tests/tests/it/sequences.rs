//! Random sequences on real processes: two proxies, the control plane, Postgres, Redis, scripted upstreams. Callers ask
//! while limits change and parts are killed, stopped, cut off and emptied; after each sequence the ledger must hold what
//! callers saw, each request once, and in the end the counters in Redis must have reached the ledger.
//!
//! All sequences of a test share a fleet and have users, keys and providers of their own. What fails is shown with its
//! seed and steps. `SWITCHYARD_FLEET_SEQUENCES` plays so many, with new seeds; `SWITCHYARD_FLEET_SEED` begins with that one.

mod check;
mod play;
mod steps;

use anyhow::{Context, Result};
use play::Stage;
use steps::{Fate, Sequence};

/// How many sequences are played, half of them by each test.
const SEQUENCES: &str = "SWITCHYARD_FLEET_SEQUENCES";
/// The first seed.
const SEED: &str = "SWITCHYARD_FLEET_SEED";
/// What `make test` plays.
const USUAL: u64 = 30;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Every second seed, odd ones or even ones as `first` is.
fn seeds(first: u64) -> impl Iterator<Item = u64> {
    let count = number(SEQUENCES);
    let any = || u64::from(std::process::id()) << 32;
    let start = number(SEED).unwrap_or_else(|| if count.is_some() { any() } else { 0 });
    (start..)
        .filter(move |seed| seed % 2 == first % 2)
        .take(usize::try_from(count.unwrap_or(USUAL).div_ceil(2)).unwrap_or(1))
}

async fn play_all(fate: Fate, first: u64) -> Result<()> {
    let mut stage = Stage::open().await?;
    for seed in seeds(first) {
        let sequence = Sequence::new(seed, fate);
        let played = stage.play(&sequence).await;
        played.with_context(|| sequence.to_string())?;
    }
    stage.end().await
}

/// Connections to Redis may break and settlements be lost, but what Redis holds stays.
#[tokio::test]
async fn callers_the_ledger_and_a_redis_that_keeps_its_data_agree() -> Result<()> {
    play_all(Fate::Kept, 1).await
}

/// Redis is emptied and restarted.
#[tokio::test]
async fn callers_the_ledger_and_a_redis_that_is_emptied_agree() -> Result<()> {
    play_all(Fate::Emptied, 2).await
}
