//! What tests, benchmarks and the demo share: databases, Redis, mock upstreams, a fleet of real processes,
//! chaos. Nothing here is part of the product.

pub mod bench;
pub mod chaos;
pub mod client;
pub mod disk;
pub mod fleet;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod upstream;

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// Waits until `condition` holds, at most `patience`.
pub async fn eventually<F, Fut>(patience: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + patience;
    while !condition().await {
        if Instant::now() > end {
            bail!("the condition did not come true within {patience:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
