//! The demo upstream of `make up`: the scripted upstream of the tests as a process. `LISTEN_ADDR` says where
//! (default `127.0.0.1:8090`); SIGTERM or ctrl-c ends it.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use testkit::upstream::{Keep, Upstream};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-upstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let addr = match std::env::var("LISTEN_ADDR") {
        Ok(text) => text.parse().with_context(|| format!("LISTEN_ADDR: {text:?} is not ip:port"))?,
        Err(_) => SocketAddr::from(([127, 0, 0, 1], 8090)),
    };
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let upstream =
        Upstream::start_on(addr, Keep::DEMO).await.with_context(|| format!("LISTEN_ADDR: bind {addr}"))?;
    println!("demo upstream ready on {}", upstream.url());
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    upstream.stop().await;
    Ok(())
}
