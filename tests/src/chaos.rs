//! A TCP proxy that breaks connections on command, before Postgres or Redis.

use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
}

/// Where a chaos proxy leads.
#[derive(Clone)]
pub enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// A port of the loopback interface.
    Port(u16),
}

/// The proxy.
pub struct Chaos {
    /// Where it listens.
    pub port: u16,
    mode: Arc<watch::Sender<Mode>>,
    task: tokio::task::JoinHandle<()>,
}

impl Chaos {
    /// A proxy that passes everything on.
    pub async fn start(target: Target) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let shared = Arc::clone(&mode);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.clone(), shared.subscribe()));
            }
        });
        Ok(Self { port, mode, task })
    }

    /// Cuts every connection and refuses new ones.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    /// Passes again.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, target: Target, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Refuse {
        return;
    }
    let pass = async {
        match target {
            Target::Unix(path) => {
                let mut server = UnixStream::connect(path).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            }
            Target::Port(port) => {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            }
        }
    };
    tokio::select! {
        _ = pass => {}
        _ = mode.wait_for(|mode| *mode == Mode::Refuse) => {}
    }
}
