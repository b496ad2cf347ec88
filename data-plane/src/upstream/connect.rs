//! From a provider to an open HTTP/1 connection: name (see `lookup`), TCP address by address, the provider's proxy where it has one, TLS. The caller bounds the time.

use super::failure::{Failure, FailureClass, Local, Stage, is_errno, is_short};
use super::lookup::{Lookups, nameless};
use super::outgoing::Outgoing;
use super::tls::Tls;
use super::trouble::Trouble;
use super::tunnel::{self, Pipe};
use crate::clock::Instant;
use crate::table::{Proxy, Upstream, origin};
use rustls_pki_types::ServerName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

/// One open connection. Dropping it closes the socket at once: that is how an upstream is cancelled.
pub(super) struct Connection {
    /// Where it leads and through which proxy, see [`Upstream::lane`].
    pub(super) lane: Rc<str>,
    /// Since when it is open.
    pub(super) born: Instant,
    io: Io,
}

impl Connection {
    fn new(lane: &str, io: Io) -> Self {
        Self { lane: lane.into(), born: Instant::now(), io }
    }

    /// Reads what is there into `into`; 0: the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        match &mut self.io {
            Io::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, &mut into))?,
            Io::Tls(stream) => ready!(Pin::new(&mut **stream).poll_read(cx, &mut into))?,
            Io::Tunnel(stream) => ready!(Pin::new(stream).poll_read(cx, &mut into))?,
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
            Io::Tunnel(stream) => send(Pin::new(stream), cx, outgoing),
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

/// Opens connections.
pub(super) struct Connector {
    tls: Tls,
    names: Lookups,
    /// When a proxy that may be passed by failed last, by its origin; as many as are configured.
    failed: RefCell<HashMap<Rc<str>, Instant>>,
    /// Where connections lead in tests that need no sockets.
    #[cfg(test)]
    pub(super) network: Option<super::memory::Network>,
}

/// How long a proxy that failed and may be passed by is: otherwise every request would wait for it anew.
const PASS_BY: Duration = Duration::from_secs(15);

impl Connector {
    pub(super) fn new(tls: Tls, names_ttl: Duration, trouble: Arc<Trouble>) -> Self {
        Self {
            tls,
            names: Lookups::new(names_ttl, trouble),
            failed: RefCell::default(),
            #[cfg(test)]
            network: None,
        }
    }

    /// A fresh connection. Cancel-safe: dropping the future closes what was opened.
    pub(super) async fn connect(&self, up: &Upstream, within: Duration) -> Result<Connection, Failure> {
        let proxy = match &up.proxy {
            Some(proxy) if !self.is_passed_by(proxy) => proxy,
            _ => return self.directly(&up.base, within).await,
        };
        let began = Instant::now();
        // The direct way needs its share of the time.
        let share = if proxy.fallback { within / 2 } else { within };
        let tunnel = tokio::time::timeout(share, self.tunnel(proxy, &up.base, share)).await;
        match tunnel.unwrap_or_else(|_| Err(Failure::timeout(Stage::Connect))) {
            Ok(pipe) if up.base.scheme() == "https" => {
                let stream = self.secure(&up.base, pipe).await?;
                Ok(Connection::new(&up.lane, Io::Tunnel(Box::new(stream))))
            }
            Ok(pipe) => Ok(Connection::new(&up.lane, Io::Tunnel(pipe))),
            Err(failure) if proxy.fallback => {
                tracing::warn!(provider_id = %up.row.id, %failure, "connecting directly: the provider's proxy fails");
                self.failed.borrow_mut().insert(origin(&proxy.url).into(), Instant::now());
                self.directly(&up.base, within.saturating_sub(began.elapsed())).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// Where connections to it rest, as things stand: see [`Upstream::lane`].
    pub(super) fn lane<'a>(&self, up: &'a Upstream) -> &'a str {
        match &up.proxy {
            Some(proxy) if self.is_passed_by(proxy) => origin(&up.base),
            _ => &up.lane,
        }
    }

    fn is_passed_by(&self, proxy: &Proxy) -> bool {
        let failed = || self.failed.borrow().get(origin(&proxy.url)).is_some_and(|at| at.elapsed() < PASS_BY);
        proxy.fallback && failed()
    }

    async fn directly(&self, base: &Url, within: Duration) -> Result<Connection, Failure> {
        #[cfg(test)]
        if let Some(network) = &self.network {
            let pipe = network.connect(base.host_str().unwrap_or_default()).await?;
            return Ok(Connection::new(origin(base), Io::Tunnel(pipe)));
        }
        let stream = self.dial(base, within).await?;
        let io = match base.scheme() {
            "https" => Io::Tls(Box::new(self.secure(base, stream).await?)),
            _ => Io::Plain(stream),
        };
        Ok(Connection::new(origin(base), io))
    }

    /// A way through the proxy to the host of `base`.
    async fn tunnel(&self, proxy: &Proxy, base: &Url, within: Duration) -> Result<Pipe, Failure> {
        let ours = |failure: Failure| Failure::because(failure.class, "the provider's proxy");
        let stream = self.dial(&proxy.url, within).await.map_err(ours)?;
        let pipe: Pipe = match proxy.url.scheme() {
            "https" => Box::new(self.secure(&proxy.url, stream).await.map_err(ours)?),
            _ => Box::new(stream),
        };
        // SOCKS 4 knows addresses only; all others look the name up themselves.
        let v4 = match proxy.url.scheme() {
            "socks4" => self.names.resolve(base, within).await?.iter().copied().find(SocketAddr::is_ipv4),
            _ => None,
        };
        tunnel::open(&proxy.url, base, v4, pipe).await
    }

    /// TCP to a URL's host.
    async fn dial(&self, url: &Url, within: Duration) -> Result<TcpStream, Failure> {
        let started = Instant::now();
        let addresses = self.names.resolve(url, within).await?;
        let mut last: Option<Failure> = None;
        for (index, address) in addresses.iter().enumerate() {
            // Each address gets its share of what is left, so that a dead first one does not use up all.
            let left = within.saturating_sub(started.elapsed());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Without it a chunk of a body waits for the acknowledgement of the one before.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => {
                    let failure = refused(&error, address.is_ipv6());
                    let is_short = failure.class == FailureClass::Local(Local::Descriptors);
                    last = Some(together(last, failure));
                    if is_short {
                        break;
                    }
                }
                Err(_) => last = Some(together(last, Failure::timeout(Stage::Connect))),
            }
        }
        // The name may have moved: look it up again next time.
        self.names.forget(url);
        Err(last.unwrap_or_else(nameless))
    }

    async fn secure<S>(&self, url: &Url, stream: S) -> Result<TlsStream<S>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(url)?;
        let connector = TlsConnector::from(self.tls.0.clone());
        let secured = connector.connect(name, stream).await;
        secured.map_err(|error| Failure::because(FailureClass::Tls, error))
    }
}

/// What the failures of a host's addresses mean together. What the host or the network said of one address holds before a
/// lack of our own at another: a machine without IPv6 has it at every second address of a host that is down.
fn together(before: Option<Failure>, next: Failure) -> Failure {
    let is_local = |failure: &Failure| matches!(failure.class, FailureClass::Local(_));
    match before {
        Some(before) if is_local(&next) && !is_local(&before) => before,
        _ => next,
    }
}

/// What it means that an address took no connection.
pub(super) fn refused(error: &io::Error, is_v6: bool) -> Failure {
    // Without IPv6 there is no address of our own to come from, however many ports are free.
    let no_v6 = is_v6 && is_errno(error, &[rustix::io::Errno::ADDRNOTAVAIL]);
    let class = match error.kind() {
        _ if no_v6 => FailureClass::Local(Local::Route),
        _ if is_short(error) => FailureClass::Local(Local::Descriptors),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => FailureClass::Local(Local::Route),
        io::ErrorKind::HostUnreachable => FailureClass::Unreachable,
        _ => FailureClass::Connect,
    };
    Failure::because(class, error.kind())
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
    /// Through a proxy, with TLS to the upstream where it is asked for.
    Tunnel(Pipe),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ECONNREFUSED`, `ENETUNREACH`, `EADDRNOTAVAIL`, `EMFILE` as Linux numbers them; `None`: no answer in time.
    const REFUSED: Option<i32> = Some(111);
    const NO_NET: Option<i32> = Some(101);
    const NO_ADDRESS: Option<i32> = Some(99);
    const NO_FILE: Option<i32> = Some(24);

    #[test]
    fn a_host_that_is_down_is_not_our_lack_of_ipv6() {
        let (descriptors, route) =
            (FailureClass::Local(Local::Descriptors), FailureClass::Local(Local::Route));
        let late = FailureClass::Timeout(Stage::Connect);
        // Address by address: is it IPv6, and what became of it.
        type Addresses<'a> = &'a [(bool, Option<i32>)];
        let cases: [(Addresses<'_>, FailureClass); 11] = [
            (&[(false, REFUSED)], FailureClass::Connect),
            (&[(false, REFUSED), (true, NO_ADDRESS)], FailureClass::Connect),
            (&[(false, REFUSED), (true, NO_NET)], FailureClass::Connect),
            (&[(true, NO_NET), (false, REFUSED)], FailureClass::Connect),
            (&[(false, None), (true, NO_NET)], late),
            (&[(true, NO_ADDRESS), (false, None)], late),
            (&[(true, NO_ADDRESS)], route),
            (&[(false, NO_NET), (true, NO_NET)], route),
            (&[(false, NO_ADDRESS)], descriptors),
            (&[(false, NO_FILE)], descriptors),
            (&[(false, REFUSED), (false, NO_FILE)], FailureClass::Connect),
        ];
        for (addresses, want) in cases {
            let mut all = None;
            for &(is_v6, number) in addresses {
                let failure = match number {
                    Some(number) => refused(&io::Error::from_raw_os_error(number), is_v6),
                    None => Failure::timeout(Stage::Connect),
                };
                all = Some(together(all, failure));
            }
            assert_eq!(all.map(|failure| failure.class), Some(want), "{addresses:?}");
        }
    }
}
