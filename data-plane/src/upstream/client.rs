//! Sends one request to one upstream, over a resting connection or a new one.

use super::body::Body;
use super::connect::{Connection, Connector};
use super::exchange::Exchange;
use super::failure::{Failure, FailureClass, Stage};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::tls::Tls;
use super::trouble::Trouble;
use crate::clock::Instant;
use crate::table::Upstream;
use crate::telemetry::metrics::Metrics;
use http::Response;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{timeout, timeout_at};

/// A resting connection that was closed says so at once. What breaks later was perhaps worked on, and paid for.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// What all clients of a process share.
#[derive(Clone)]
pub struct Settings {
    /// Whom to trust.
    pub tls: Tls,
    /// Name, TCP and TLS together, and the proxy where there is one.
    pub connect_timeout: Duration,
    /// How long a connection rests.
    pub keep_alive: Duration,
    /// How old one may get.
    pub max_age: Duration,
    /// How many rest per origin and thread.
    pub max_idle: usize,
    /// How long names are remembered.
    pub names_ttl: Duration,
    /// Whether it is this proxy that reaches nobody.
    pub trouble: Arc<Trouble>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

/// The upstream client of one traffic thread; must be used within its `LocalSet`.
pub struct Client {
    connector: Connector,
    pool: Rc<Pool>,
    connect_timeout: Duration,
    trouble: Arc<Trouble>,
    metrics: Arc<Metrics>,
}

/// Who is told how far a request has come.
pub trait Progress {
    /// Nothing of it is sent: a connection has to be made first.
    fn connects(&self);
    /// It is sent from now on, and may cost something.
    fn sends(&self);
    /// Whether all of it is with the upstream.
    fn went_out(&self, whole: bool);
}

/// Set once all of a request is with the upstream.
impl Progress for Cell<bool> {
    fn connects(&self) {
        self.set(false);
    }

    fn sends(&self) {}

    fn went_out(&self, whole: bool) {
        if whole {
            self.set(true);
        }
    }
}

/// On an answer whose request was sent a second time.
#[derive(Clone, Copy)]
struct SentAgain;

/// Whether the request was sent a second time, because the resting connection that it took had been closed.
pub fn was_sent_again(sent: &Result<Response<Body>, Failure>) -> bool {
    match sent {
        Ok(response) => {
            !response.extensions().is_empty() && response.extensions().get::<SentAgain>().is_some()
        }
        Err(failure) => failure.sent_again,
    }
}

/// A failed exchange, and whether it is known or likely that the upstream never took the request up.
struct Broken {
    failure: Failure,
    untouched: bool,
}

impl Client {
    /// A client without connections.
    pub fn new(settings: Settings) -> Self {
        Self {
            connector: Connector::new(settings.tls, settings.names_ttl, Arc::clone(&settings.trouble)),
            pool: Pool::new(settings.max_idle, settings.keep_alive, settings.max_age),
            connect_timeout: settings.connect_timeout,
            trouble: settings.trouble,
            metrics: settings.metrics,
        }
    }

    /// Sends `request` (from [`super::request()`]) and waits up to `head_timeout` for the head of the answer,
    /// from the moment the connection stands. A resting connection that turns out to be closed, with no byte
    /// of an answer, is replaced by a fresh one once. Cancel-safe: dropping the future closes the connection.
    pub async fn send(
        &self,
        up: &Upstream,
        request: Outgoing,
        head_timeout: Duration,
    ) -> Result<Response<Body>, Failure> {
        // Boxed for its callers, none of which is the walk.
        let went_out = Cell::default();
        Box::pin(self.send_marking(up, request, head_timeout, &went_out)).await
    }

    /// The same; `progress` hears how far the request has come, even if nobody waits to the end.
    pub async fn send_marking(
        &self,
        up: &Upstream,
        request: Outgoing,
        head_timeout: Duration,
        progress: &dyn Progress,
    ) -> Result<Response<Body>, Failure> {
        let sent = self.sent(up, request, (head_timeout, progress)).await;
        sent.inspect_err(|failure| self.metrics.upstream_failed(failure.class.as_str()))
    }

    /// Counts an exchange that was given up because the wait for it was too long.
    pub fn late(&self, stage: Stage) -> Failure {
        let failure = Failure::timeout(stage);
        self.metrics.upstream_failed(failure.class.as_str());
        failure
    }

    async fn sent(
        &self,
        up: &Upstream,
        request: Outgoing,
        wait: (Duration, &dyn Progress),
    ) -> Result<Response<Body>, Failure> {
        let resting = if request.once { None } else { self.pool.take(self.connector.lane(up)) };
        let Some(resting) = resting else {
            return Box::pin(self.sent_afresh(up, request, wait)).await;
        };
        let began = Instant::now();
        match self.exchange(resting, request.clone(), wait, true).await {
            Err(broken) if broken.untouched && began.elapsed() < STALE_WITHIN => {
                tracing::debug!(failure = %broken.failure, "a resting connection was stale");
                Box::pin(self.sent_again(up, request, wait)).await
            }
            other => other.map_err(|broken| broken.failure),
        }
    }

    async fn sent_again(
        &self,
        up: &Upstream,
        request: Outgoing,
        wait: (Duration, &dyn Progress),
    ) -> Result<Response<Body>, Failure> {
        let mut sent = self.sent_afresh(up, request, wait).await;
        match &mut sent {
            Ok(response) => _ = response.extensions_mut().insert(SentAgain),
            Err(failure) => failure.sent_again = true,
        }
        sent
    }

    /// Rare and large, so its callers box it: otherwise every request's future carries its room.
    async fn sent_afresh(
        &self,
        up: &Upstream,
        request: Outgoing,
        wait: (Duration, &dyn Progress),
    ) -> Result<Response<Body>, Failure> {
        wait.1.connects();
        let fresh = self.connect(up).await?;
        self.exchange(fresh, request, wait, false).await.map_err(|broken| broken.failure)
    }

    async fn connect(&self, up: &Upstream) -> Result<Connection, Failure> {
        let connecting = self.connector.connect(up, self.connect_timeout);
        let connected = timeout(self.connect_timeout, connecting).await;
        match connected.unwrap_or_else(|_| Err(Failure::timeout(Stage::Connect))) {
            Ok(connection) => {
                self.trouble.reached();
                Ok(connection)
            }
            Err(failure) => Err(self.judged(up, failure)),
        }
    }

    #[cold]
    fn judged(&self, up: &Upstream, failure: Failure) -> Failure {
        let failure = self.trouble.judged(self.connector.lane(up), failure);
        if let FailureClass::Local(_) = failure.class {
            self.metrics.in_trouble(failure.class.as_str());
        }
        failure
    }

    async fn exchange(
        &self,
        connection: Connection,
        request: Outgoing,
        (head_timeout, progress): (Duration, &dyn Progress),
        reused: bool,
    ) -> Result<Response<Body>, Broken> {
        self.metrics.upstream_connection(reused);
        let mut exchange = Exchange::new(connection, request);
        progress.sends();
        let head = poll_fn(|cx| {
            let head = exchange.poll_head(cx);
            progress.went_out(exchange.went_out());
            head
        });
        let answered = match Instant::now().checked_add(head_timeout) {
            Some(deadline) if !head_timeout.is_zero() => timeout_at(deadline, head).await,
            _ => Ok(head.await),
        };
        match answered {
            Ok(Ok(begun)) => Ok(Body::answer(begun, exchange, Rc::clone(&self.pool), reused)),
            Ok(Err(failure)) => {
                // A late answer was worked on; an answer that is not HTTP is one.
                let stale = matches!(failure.class, FailureClass::Reset | FailureClass::Incomplete);
                Err(Broken { untouched: stale && !exchange.received, failure })
            }
            Err(_) => Err(Broken { failure: Failure::timeout(Stage::Head), untouched: false }),
        }
    }

    /// A client whose connections lead into `network` instead of into sockets.
    #[cfg(test)]
    pub(crate) fn within(network: super::memory::Network, settings: Settings) -> Self {
        let mut client = Self::new(settings);
        client.connector.network = Some(network);
        client
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.pool.len()
    }
}
