//! A scripted upstream on a real socket: the mock of the integration tests and the demo of `make up`.
//!
//! It speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses (JSON and SSE), counts what it
//! answered per credential, remembers what it was asked, and misbehaves on request: by [`Upstream::script`],
//! `POST /_script`, the header `x-demo` or a directive in the model name (`gpt-5:status=500,delay=200`).
//! Depends on tokio and hyper only; never on the products that it tests.

mod answer;
mod ask;
mod chat;
mod log;
mod messages;
mod plan;
mod play;
mod responses;
mod script;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use answer::{Answer, BadStep, Tokens};
pub use log::{Keep, Seen, Stats, Tally};
use serve::Shared;

/// How long [`Upstream::eventually`] waits for its condition.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may take over its request head; more than any test needs to dawdle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// A running upstream. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Upstream {
    /// Starts on a free loopback port.
    ///
    /// # Panics
    /// When no loopback port can be bound; a test cannot go on without one.
    pub async fn start() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(any_port, Keep::TEST).await.expect("a loopback port can always be bound")
    }

    /// Starts on a given address, for a demo or to come back on the port of an upstream that was stopped.
    pub async fn start_on(addr: SocketAddr, keep: Keep) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let (addr, token, tasks) = (listener.local_addr()?, CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared::new(keep));
        tasks.spawn(accept(listener, Arc::clone(&shared), token.clone(), tasks.clone()));
        Ok(Self { addr, shared, tasks, stop: token.drop_guard() })
    }

    /// Closes everything and returns when the port is free again.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL without a path, such as `http://127.0.0.1:8090`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers the next requests, whatever their credential, with these steps; then normally again.
    pub fn script(&self, steps: impl IntoIterator<Item = Answer>) {
        self.shared.scripts().set(None, steps.into_iter().collect(), false);
    }

    /// Answers every request with these steps in turn, for ever.
    pub fn always(&self, steps: impl IntoIterator<Item = Answer>) {
        self.shared.scripts().set(None, steps.into_iter().collect(), true);
    }

    /// Like [`script`](Self::script) or, with `repeat`, [`always`](Self::always), for one credential (whole, or its
    /// last four characters). It goes before the script for everybody.
    pub fn script_for(&self, credential: &str, steps: impl IntoIterator<Item = Answer>, repeat: bool) {
        self.shared.scripts().set(Some(credential), steps.into_iter().collect(), repeat);
    }

    /// Every model request seen since the start or the last [`reset`](Self::reset), oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.log().seen()
    }

    /// What it counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.log().stats()
    }

    /// Requests that are being answered now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.stats().all().in_flight
    }

    /// Forgets counters, requests and scripts.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Waits until the counters satisfy `wanted`, without polling.
    ///
    /// # Panics
    /// When that takes longer than 15 s; the message shows the counters.
    pub async fn eventually(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let reached = async {
            loop {
                let changed = self.shared.changed();
                let stats = self.stats();
                if wanted(&stats) {
                    return stats;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(stats) => stats,
            Err(_) => panic!("the upstream did not reach the wanted state in time: {:?}", self.stats()),
        }
    }
}

/// Accepts until the token ends it; each connection is a task of its own.
async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                tasks.spawn(connection(socket, Arc::clone(&shared), stop.clone()));
            }
            Err(error) => {
                // Out of file descriptors: the next accept would fail at once, so give others time to close.
                tracing::warn!(%error, "the demo upstream could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one connection until either side or the token ends it.
async fn connection(socket: TcpStream, shared: Arc<Shared>, stop: CancellationToken) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let number = shared.next_connection();
    let service = service_fn(move |request| serve::handle(Arc::clone(&shared), number, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        () = stop.cancelled() => {}
        // An error here is a caller that went away or a cut that we were asked for.
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        },
    }
}
