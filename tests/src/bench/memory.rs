//! Memory: at rest, with many open streams, with many resting connections.

use super::load::{Connections, Request};
use super::{machine, series::float};
use anyhow::Result;
use std::net::SocketAddr;
use std::time::Duration;

/// After the last connection opened, until buffers have settled.
const SETTLE: Duration = Duration::from_millis(500);

/// What one server needs.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Of the server.
    pub name: String,
    /// KiB before.
    pub idle: u64,
    /// KiB with all streams open.
    pub open: u64,
    /// KiB per open stream, both sides of the proxy.
    pub per_stream: f64,
    /// KiB per connection that rests after one JSON answer, the upstream's resting connections included.
    pub per_idle: f64,
}

/// Measures a server that nobody else uses meanwhile. Resting connections first: a heap does not shrink.
pub async fn measure(
    name: &str,
    address: SocketAddr,
    pids: &[u32],
    json: &[Request],
    open: &[Request],
) -> Result<Memory> {
    let idle = machine::rss_kib(pids);
    let mut resting = Connections::open(address, json).await?;
    // One request each, spread, so that no more is in flight at once than in normal use.
    resting.once(64).await?;
    tokio::time::sleep(SETTLE).await;
    let with_resting = machine::rss_kib(pids);
    drop(resting);
    tokio::time::sleep(SETTLE).await;
    let mut streams = Connections::open(address, open).await?;
    streams.begin_streams().await?;
    tokio::time::sleep(SETTLE).await;
    let with_streams = machine::rss_kib(pids);
    drop(streams);
    tokio::time::sleep(SETTLE).await;
    let count = float(open.len() as u64);
    Ok(Memory {
        name: name.to_owned(),
        idle,
        open: with_streams,
        per_stream: float(with_streams.saturating_sub(idle)) / count,
        per_idle: float(with_resting.saturating_sub(idle)) / float(json.len() as u64),
    })
}
