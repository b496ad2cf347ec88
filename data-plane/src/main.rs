//! The proxy's process: settings from the environment, then [`data_plane::app`] until a signal.

use anyhow::Context;
use data_plane::app;
use data_plane::config::Config;
use std::process::ExitCode;

fn main() -> ExitCode {
    match start() {
        Ok(proxy) => match proxy.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(died) => {
                eprintln!("data-plane: {died}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // One sentence; the chain says why.
            eprintln!("data-plane: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn start() -> anyhow::Result<app::Bound> {
    // Several libraries bring TLS; the process decides once for all of them.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is already installed"))?;
    let config = Config::from_env()?;
    app::build(config).context("the proxy does not start")
}
