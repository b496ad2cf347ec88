//! `control-plane serve` (the default) and `control-plane migrate`.

use anyhow::Context;
use control_plane::config::{Config, Database};
use control_plane::{app, telemetry};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: control-plane [serve | migrate]";

fn main() -> ExitCode {
    // Before the first handshake: more than one provider is in the tree, and rustls does not choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // At least two workers, so that one that is held cannot stop the export of traces.
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let ended = match (runtime, std::env::args().nth(1).as_deref()) {
        (Err(error), _) => Err(error.into()),
        (Ok(runtime), None | Some("serve")) => runtime.block_on(Box::pin(serve())),
        (Ok(runtime), Some("migrate")) => runtime.block_on(Box::pin(migrate())),
        (Ok(_), Some(_)) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<ExitCode> {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(wrong) => {
            eprintln!("control-plane: {wrong}");
            return Ok(ExitCode::from(2));
        }
    };
    let observer = telemetry::init(&config.observe)?;
    let metrics = telemetry::install_metrics().context("install the metrics recorder")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let bound = tokio::select! {
        bound = app::build(config, Some(metrics)) => bound?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let in_time = bound.shutdown().await;
    tracing::info!(in_time, "ended");
    observer.finish().await;
    Ok(ExitCode::SUCCESS)
}

async fn migrate() -> anyhow::Result<ExitCode> {
    let database = match Database::from_env() {
        Ok(database) => database,
        Err(wrong) => {
            eprintln!("control-plane: {wrong}");
            return Ok(ExitCode::from(2));
        }
    };
    let count = app::migrate(&database).await?;
    println!("{count} migrations run");
    Ok(ExitCode::SUCCESS)
}
