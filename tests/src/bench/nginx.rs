//! The yardstick: nginx with one worker.

use super::{PROXY_CORE, machine};
use crate::process::{Process, free_port};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const TEMPLATE: &str = include_str!("../../bench/nginx.conf");

/// A running nginx.
pub struct Nginx {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts one in front of `upstream`; its files are in `folder`.
    pub async fn start(folder: &Path, upstream: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let folder = folder.join(format!("nginx-{}", address.port()));
        std::fs::create_dir_all(&folder)?;
        let config = TEMPLATE
            .replace("@FOLDER@", &folder.to_string_lossy())
            .replace("@LISTEN@", &address.to_string())
            .replace("@UPSTREAM@", &upstream.to_string());
        // Where root may not switch to the packaged user, the worker cannot read the folder.
        let config = if is_root() { format!("user root;\n{config}") } else { config };
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
        let process = Process::start("nginx", command, Some(&folder.join("out.log")))
            .context("start nginx (install the package `nginx`)")?;
        let nginx = Self { process, address };
        let waited = crate::eventually(Duration::from_secs(10), || async {
            nginx.pids().len() > 1 && tokio::net::TcpStream::connect(address).await.is_ok()
        });
        waited.await.with_context(|| nginx.process.log_tail())?;
        for pid in nginx.pids() {
            machine::pin(pid, PROXY_CORE)?;
        }
        Ok(nginx)
    }

    /// Master and worker.
    pub fn pids(&self) -> Vec<u32> {
        machine::family(self.process.pid())
    }
}

impl Drop for Nginx {
    /// The worker of a killed master would stay: ask it to go.
    fn drop(&mut self) {
        let _ = self.process.signal("TERM");
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while self.process.is_running() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}
