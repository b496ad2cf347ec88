//! The ops port: is it alive, is it ready, its numbers, what table it acts on. For operators and orchestrators,
//! on the side runtime; shows no secret, no key and no hash.

use crate::config::Hidden;
use crate::control::{Status, Watching};
use crate::health::Book;
use crate::spool::{Spool, Standing};
use crate::table::{Counts, Snapshot, Table};
use crate::tasks::{Tasks, Vital};
use crate::telemetry::metrics::Page;
use crate::upstream::Trouble;
use bytes::Bytes;
use contract::table::ProviderKind;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// Connections to the ops port; a scraper and a few people.
const MAX_CONNECTIONS: usize = 64;
/// How long one may last; scrapers open a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// From a request's first byte to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the ops port shows.
pub struct Ops {
    /// Name of this proxy.
    pub proxy_id: String,
    /// What `/table` asks of callers from other machines; it names providers, hosts and groups.
    pub token: Hidden,
    /// The numbers.
    pub page: Page,
    /// The table in use.
    pub table: Table,
    /// Providers' health.
    pub health: Book,
    /// The subscription.
    pub watching: Watching,
    /// Whether work died that the process must not go on without.
    pub vital: Vital,
    /// Whether callers can connect.
    pub open: watch::Receiver<bool>,
    /// Where records go.
    pub spool: Spool,
    /// Set when the process is to end.
    pub draining: Arc<AtomicBool>,
    /// Whether this proxy reaches nobody; only what is provably its own makes it not ready.
    pub trouble: Arc<Trouble>,
}

impl Ops {
    /// Serves until the tasks end.
    pub fn start(self, listener: TcpListener, tasks: &Tasks) {
        let ops = Arc::new(self);
        let (stop, spawner) = (tasks.stopping().clone(), tasks.clone());
        tasks.spawn("ops", async move {
            let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            let accepting = async {
                while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
                    let stream = accept(&listener).await;
                    let (ops, stop) = (Arc::clone(&ops), spawner.stopping().clone());
                    spawner.spawn("ops-connection", async move {
                        // A connection that is over, late or stopped: the caller sees it, nobody else cares.
                        let _ =
                            stop.run_until_cancelled(timeout(CONNECTION_TIMEOUT, ops.serve(stream))).await;
                        drop(seat);
                    });
                }
            };
            stop.run_until_cancelled(accepting).await;
        });
    }

    async fn serve(self: Arc<Self>, (stream, peer): (TcpStream, SocketAddr)) {
        let service = service_fn(|request: Request<Incoming>| {
            let trusted = peer.ip().to_canonical().is_loopback() || self.is_told(request.headers());
            let answer = self.answer(request.method(), request.uri().path(), trusted);
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .keep_alive(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the ops port ended by a fault");
        }
    }

    /// Whether the bearer token is the control plane's. Compared by hash, which takes the same time for any guess.
    fn is_told(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        token.is_some_and(|(_, token)| Sha256::digest(token.trim()) == Sha256::digest(self.token.expose()))
    }

    fn answer(&self, method: &Method, path: &str, trusted: bool) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/livez" => match self.vital.died() {
                None => text(StatusCode::OK, "alive\n"),
                Some(task) => text(StatusCode::SERVICE_UNAVAILABLE, format!("the task {task} died\n")),
            },
            "/readyz" => match self.unready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            "/metrics" => page("text/plain; version=0.0.4", self.page.render()),
            "/table" if trusted => self.dump(),
            "/table" => {
                text(StatusCode::UNAUTHORIZED, "from another machine: the bearer token CONTROL_TOKEN\n")
            }
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /table\n"),
        }
    }

    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining\n")
        } else if !*self.watching.ready.borrow() {
            Some("no routing table yet\n")
        } else if self.trouble.is_short() {
            Some("no file descriptors left\n")
        } else if !*self.open.borrow() {
            Some("starting\n")
        } else {
            self.spool.refuses().map(Standing::as_str)
        }
    }

    fn dump(&self) -> Response<Full<Bytes>> {
        let (table, status) = (self.table.load_full(), self.watching.status.load_full());
        let dump = Dump {
            proxy_id: &self.proxy_id,
            generation: table.generation.0,
            counts: table.counts(),
            control: &status,
            providers: providers(&table),
            unwell: self.health.rows().iter().map(unwell).collect(),
        };
        match serde_json::to_string_pretty(&dump) {
            Ok(json) => page("application/json", json),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "the ops port cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Dump<'a> {
    proxy_id: &'a str,
    generation: i64,
    counts: Counts,
    control: &'a Status,
    providers: Vec<Provider>,
    unwell: Vec<Unwell>,
}

#[derive(serde::Serialize)]
struct Provider {
    id: i64,
    owner_id: i64,
    name: String,
    kind: &'static str,
    host: String,
    enabled: bool,
    weight: u32,
    priority: i32,
    groups: Vec<String>,
    problems: Vec<String>,
}

#[derive(serde::Serialize)]
struct Unwell {
    provider_id: i64,
    state: String,
    reason: String,
    until_ms: Option<i64>,
    failures: u32,
    epoch: i64,
}

fn providers(table: &Snapshot) -> Vec<Provider> {
    let one = |up: &Arc<crate::table::Upstream>| Provider {
        id: up.row.id.0,
        owner_id: up.row.owner_id.0,
        name: up.row.name.clone(),
        kind: ProviderKind::as_str(up.row.kind),
        // Not the whole URL: people put credentials into paths and queries.
        host: up.base.host_str().unwrap_or_default().to_owned(),
        enabled: up.row.enabled,
        weight: up.row.weight,
        priority: up.row.priority,
        groups: up.row.groups.iter().map(ToString::to_string).collect(),
        problems: up.problems().iter().map(ToString::to_string).collect(),
    };
    table.all_upstreams().map(one).collect()
}

fn unwell(row: &contract::table::Health) -> Unwell {
    Unwell {
        provider_id: row.provider_id.0,
        state: format!("{:?}", row.state).to_lowercase(),
        reason: row.reason.clone(),
        until_ms: row.until_ms,
        failures: row.failures,
        epoch: row.epoch,
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

fn page(kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests;
