//! When callers can connect: once there is a table to serve them by. Until then the port is taken and nobody listens on
//! it, so that balancers and clients go elsewhere instead of being told to come back. After that, what a kill
//! interrupted is recorded.

use crate::control::Ready;
use crate::proxy::{self, interrupted};
use crate::server;
use crate::tasks::Tasks;
use socket2::Socket;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often the table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether callers can connect. Once true, it stays so.
pub(super) type Open = watch::Receiver<bool>;

/// The ports of all traffic threads, closed.
pub(super) struct Opening {
    sockets: Vec<Socket>,
    opened: watch::Sender<bool>,
}

impl Opening {
    /// Of the sockets of all threads.
    pub(super) fn new(sockets: &[Socket]) -> io::Result<(Self, Open)> {
        let sockets = sockets.iter().map(Socket::try_clone).collect::<io::Result<_>>()?;
        let (opened, open) = watch::channel(false);
        Ok((Self { sockets, opened }, open))
    }

    /// Opens them when there is a table. Not at all if the proxy is to end before.
    pub(super) fn start(
        self,
        mut ready: Ready,
        shared: Arc<proxy::Shared>,
        tasks: &Tasks,
        drain: CancellationToken,
    ) {
        let spawner = tasks.clone();
        tasks.spawn("opening", async move {
            let is_ready = async { ready.wait_for(|ready| *ready).await.is_ok() };
            if drain.run_until_cancelled(is_ready).await != Some(true) {
                return;
            }
            match self.sockets.iter().try_for_each(server::listen) {
                Ok(()) => {
                    self.opened.send_replace(true);
                    tracing::info!("callers can connect");
                    // Otherwise their slots are kept for the next start.
                    let recording = record_left(&shared, &spawner);
                    spawner.stopping().run_until_cancelled(recording).await;
                }
                Err(error) => {
                    // A proxy that nobody can reach is worth nothing; better to say so and end.
                    tracing::error!(%error, "the system does not let this proxy listen");
                    drain.cancel();
                }
            }
        });
    }
}

/// Records requests that a kill interrupted. They are billed by the table that they were pinned to or a newer one; the
/// table on disk may be older by the last second before the kill, so the control plane's is waited for a little.
async fn record_left(shared: &Arc<proxy::Shared>, tasks: &Tasks) {
    let Some(wanted) = shared.spool.newest_left() else { return };
    let is_there = async {
        while shared.table.load().generation < wanted {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Without a control plane they are billed by what there is.
    let _ = timeout(shared.config.control_timeout, is_there).await;
    let shared = Arc::clone(shared);
    if tasks.blocking("interrupted", move || interrupted::record_left(&shared)).await.is_none() {
        tracing::error!("requests that a kill interrupted are not recorded");
    }
}
