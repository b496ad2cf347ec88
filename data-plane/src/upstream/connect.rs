//! From a base URL to an open HTTP/1 connection: name (remembered for a while, looked up once at a time), TCP
//! address by address, TLS. The caller bounds the time.

use super::failure::{Failure, FailureClass};
use super::outgoing::Outgoing;
use super::tls::Tls;
use rustls_pki_types::ServerName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Position, Url};

/// Names that are remembered; far more than there are providers. Beyond, all are forgotten.
const MAX_NAMES: usize = 4096;

/// One open connection. Dropping it closes the socket at once: that is how an upstream is cancelled.
pub(super) struct Connection {
    /// Scheme, host and port.
    pub(super) origin: Rc<str>,
    io: Io,
}

impl Connection {
    /// Reads what is there into `into`; 0: the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        match &mut self.io {
            Io::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, &mut into))?,
            Io::Tls(stream) => ready!(Pin::new(&mut **stream).poll_read(cx, &mut into))?,
        }
        Poll::Ready(Ok(into.filled().len()))
    }

    /// Sends what is left of a request.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => send(Pin::new(stream), cx, outgoing),
            Io::Tls(stream) => send(Pin::new(&mut **stream), cx, outgoing),
        }
    }

    /// Whether a resting connection still stands: nothing may come over it, not even its end. Costs a system call
    /// only where something came.
    pub(super) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = [0; 16];
        // A task that has used up its turns would be told "nothing there" whatever has come.
        let read = unconstrained(poll_fn(|cx| self.poll_read(cx, &mut buffer)));
        pin!(read).poll(&mut cx).is_pending()
    }
}

fn send(
    mut io: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    outgoing: &mut Outgoing,
) -> Poll<io::Result<()>> {
    while !outgoing.is_sent() {
        match ready!(io.as_mut().poll_write_vectored(cx, &outgoing.left()))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => outgoing.sent(sent),
        }
    }
    io.poll_flush(cx)
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
        Ok(Connection { origin: origin(base).into(), io })
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
