//! From a base URL to an open HTTP/1 connection: name (remembered for a while, looked up once at a time), TCP
//! address by address, TLS. The caller bounds the time.

use super::failure::{Failure, FailureClass};
use super::tls::Tls;
use crate::tasks;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Position, Url};

/// Most of an answer that is buffered before it is asked for; also the largest head of an answer.
const MAX_BUFFER: usize = 64 * 1024;
/// Names that are remembered; far more than there are providers. Beyond, all are forgotten.
const MAX_NAMES: usize = 4096;

/// One open connection. Dropping it closes the socket at once: that is how an upstream is cancelled.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// Scheme, host and port.
    pub(super) origin: Rc<str>,
    received: Rc<Cell<bool>>,
    task: AbortHandle,
}

impl Connection {
    /// From now on, [`Connection::received`] is about the next answer.
    pub(super) fn expect_answer(&self) {
        self.received.set(false);
    }

    /// Whether any byte came since.
    pub(super) fn received(&self) -> bool {
        self.received.get()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The part of a base URL that a connection belongs to.
pub(super) fn origin(base: &Url) -> &str {
    &base[..Position::BeforePath]
}

type Addresses = Rc<OnceCell<Rc<[SocketAddr]>>>;

/// Opens connections; remembers names.
pub(super) struct Connector {
    tls: Tls,
    names_ttl: Duration,
    names: RefCell<HashMap<Rc<str>, (Instant, Addresses)>>,
}

impl Connector {
    pub(super) fn new(tls: Tls, names_ttl: Duration) -> Self {
        Self { tls, names_ttl, names: RefCell::default() }
    }

    /// A fresh connection. Cancel-safe: dropping the future closes what was opened.
    pub(super) async fn connect(&self, base: &Url, within: Duration) -> Result<Connection, Failure> {
        let started = Instant::now();
        let addresses = self.resolve(base).await?;
        let mut last = Failure::because(FailureClass::Connect, "no address");
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets its share of what is left, so that a dead first one does not use up all.
            let left = within.saturating_sub(started.elapsed());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.open(base, stream).await,
                Ok(Err(error)) => last = Failure::because(FailureClass::Connect, error.kind()),
                Err(_) => last = Failure::timeout(super::Stage::Connect),
            }
        }
        // The name may have moved: look it up again next time.
        self.names.borrow_mut().remove(origin(base));
        Err(last)
    }

    async fn open(&self, base: &Url, stream: TcpStream) -> Result<Connection, Failure> {
        // Without it a chunk of a body waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let io = if base.scheme() == "https" {
            let name = server_name(base)?;
            let connector = TlsConnector::from(self.tls.0.clone());
            let stream = connector.connect(name, stream).await;
            Io::Tls(Box::new(stream.map_err(|error| Failure::because(FailureClass::Tls, error))?))
        } else {
            Io::Plain(stream)
        };
        let received = Rc::new(Cell::new(false));
        let link = Link { io, received: Rc::clone(&received) };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(link))
            .await
            .map_err(|error| Failure::from_hyper(&error))?;
        let task = tasks::spawn_local("upstream-connection", async move {
            // Whoever waits for the answer hears of the fault through hyper.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Connection { sender, origin: origin(base).into(), received, task })
    }

    async fn resolve(&self, base: &Url) -> Result<Rc<[SocketAddr]>, Failure> {
        let port = base.port_or_known_default().unwrap_or(443);
        let name = match base.host() {
            Some(Host::Ipv4(ip)) => return Ok(Rc::new([SocketAddr::from((ip, port))])),
            Some(Host::Ipv6(ip)) => return Ok(Rc::new([SocketAddr::from((ip, port))])),
            Some(Host::Domain(name)) => name,
            None => return Err(Failure::because(FailureClass::Request, "the base URL has no host")),
        };
        let remembered = self.remembered(base);
        let lookup = async || {
            let found = tokio::net::lookup_host((name, port)).await;
            let found: Rc<[SocketAddr]> = found.map(Iterator::collect).unwrap_or_default();
            if found.is_empty() { Err(Failure::new(FailureClass::Dns)) } else { Ok(found) }
        };
        remembered.get_or_try_init(lookup).await.cloned()
    }

    /// The cell in which one caller puts the addresses while the others wait.
    fn remembered(&self, base: &Url) -> Addresses {
        let mut names = self.names.borrow_mut();
        if let Some((since, cell)) = names.get(origin(base))
            && since.elapsed() < self.names_ttl
        {
            return Rc::clone(cell);
        }
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        let cell = Addresses::default();
        names.insert(origin(base).into(), (Instant::now(), Rc::clone(&cell)));
        cell
    }
}

fn server_name(base: &Url) -> Result<ServerName<'static>, Failure> {
    let wrong = || Failure::because(FailureClass::Request, "the base URL's host is no TLS name");
    match base.host().ok_or_else(wrong)? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| wrong()),
        Host::Ipv4(ip) => Ok(ServerName::from(std::net::IpAddr::from(ip))),
        Host::Ipv6(ip) => Ok(ServerName::from(std::net::IpAddr::from(ip))),
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket that notes whether anything was received: the difference between a resting connection that the
/// upstream had closed and an exchange that broke.
struct Link {
    io: Io,
    received: Rc<Cell<bool>>,
}

macro_rules! either {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Plain(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $io = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = self.get_mut();
        let polled = match &mut this.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            this.received.set(true);
        }
        polled
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
