//! The callers' side of a traffic thread: accepts (TCP_NODELAY, one listener per thread on the same port), serves
//! HTTP/1 with a limit on every wait, and drains. What a request means is the handler's affair.

mod connection;
mod link;
mod refused;
mod strangers;

pub use strangers::Strangers;

use crate::map::Map;
use crate::tasks;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use connection::{Service, State};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use strangers::Stranger;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections that the kernel may hold until a thread accepts them.
const BACKLOG: i32 = 4096;
/// Pause after the process ran out of file handles; accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all servers of a process share.
#[derive(Clone)]
pub struct Settings {
    /// From the first byte of a request's head to its last.
    pub header_read_timeout: Duration,
    /// Between two requests.
    pub keep_alive_timeout: Duration,
    /// Between two requests of a caller who has not shown a known key.
    pub stranger_keep_alive: Duration,
    /// For a caller to take bytes.
    pub send_timeout: Duration,
    /// For what a caller still sends after a connection was ended from here.
    pub linger_timeout: Duration,
    /// Largest request head.
    pub max_header_bytes: usize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// What a caller is told whose request's head could not be read, from the status and the first bytes of the head:
    /// media type and body.
    pub head_refused: fn(u16, &[u8]) -> (&'static str, Bytes),
    /// Connections of the whole process.
    pub connections: Arc<Semaphore>,
    /// Those of callers who have not shown a known key.
    pub strangers: Strangers,
    /// Most of them of one address; 0: any number.
    pub strangers_per_address: usize,
    /// Whether an answer went to one of them.
    pub is_stranger: fn(&http::Extensions) -> bool,
    /// For answers in flight once draining began.
    pub drain_timeout: Duration,
    /// Cancelled: they are not waited for any longer.
    pub hurry: CancellationToken,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

/// An answer that can say why it ends before its end.
pub trait LastWords {
    /// What may follow what it has said; `None`: nothing can. Afterwards it is over.
    fn last_words(&mut self) -> Option<Bytes>;
}

/// Binds one socket per thread to the same address; with port 0 the kernel picks one port for all. Nobody can connect
/// before [`listen`].
pub fn bind(address: SocketAddr, threads: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let first = bound(address)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut all = vec![first];
    for _ in 1..threads {
        all.push(bound(address)?);
    }
    Ok((address, all))
}

/// From now on callers can connect.
pub fn listen(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The server of one thread. Must run within its `LocalSet`.
pub struct Server {
    settings: Settings,
    open: RefCell<Map<u64, Rc<State>>>,
    next: Cell<u64>,
    closed: Notify,
}

impl Server {
    /// A server without connections.
    pub fn new(settings: Settings) -> Rc<Self> {
        Rc::new(Self { settings, open: RefCell::default(), next: Cell::new(0), closed: Notify::new() })
    }

    /// Serves until `drain` is cancelled, then lets answers in flight end. Returns, when the last connection is
    /// gone, how many had to be cut at the drain deadline.
    pub async fn run<H, F, B>(
        self: Rc<Self>,
        listener: std::net::TcpListener,
        handler: H,
        drain: CancellationToken,
    ) -> io::Result<usize>
    where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: http_body::Body<Data = bytes::Bytes> + LastWords + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let permit = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                permit = Arc::clone(&self.settings.connections).acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            self.accepted(accepted, permit, &handler).await;
        }
        // Who stands in the queue has been promised a connection; closing the listener would reset it.
        while let Some(Ok(accepted)) = listener.accept().now_or_never() {
            let Ok(permit) = Arc::clone(&self.settings.connections).try_acquire_owned() else { break };
            self.accepted(Ok(accepted), permit, &handler).await;
        }
        drop(listener);
        Ok(self.drain().await)
    }

    async fn accepted<H, F, B>(
        self: &Rc<Self>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        permit: OwnedSemaphorePermit,
        handler: &H,
    ) where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: http_body::Body<Data = bytes::Bytes> + LastWords + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        match accepted {
            Ok((stream, peer)) => match self.settings.stranger(peer.ip()) {
                Some(stranger) => {
                    let seat = Seat::take(self, permit, stranger);
                    self.serve(stream, peer, seat, handler.clone());
                }
                None => self.settings.metrics.strangers_refused.increment(1),
            },
            Err(error) if is_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn serve<H, F, B>(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, seat: Seat, handler: H)
    where
        H: Fn(Request<Incoming>, SocketAddr) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: http_body::Body<Data = bytes::Bytes> + LastWords + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        // Without it each event of a stream waits for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (state, state_of_task) = (Rc::clone(&seat.state), Rc::clone(&seat.state));
        let service = Service::new(handler, peer, Rc::clone(&state), &self.settings);
        let serving = connection::serve(stream, service, state, self.settings.clone());
        // Not awaited in a block, which would hold the connection twice.
        let ended = serving.map(move |ended| {
            if let Err(ended) = ended {
                seat.server.settings.metrics.connection_errors.increment(1);
                tracing::debug!(%peer, %ended, "a caller's connection ended by a fault");
            }
            drop(seat);
        });
        let task = tasks::spawn_local("connection", ended);
        state_of_task.belongs_to(task);
    }

    /// Tells every connection; cuts those that are open when time is up.
    async fn drain(&self) -> usize {
        for state in self.open.borrow().values() {
            state.drain();
        }
        let deadline = tokio::time::sleep(self.settings.drain_timeout);
        tokio::select! {
            () = self.all_closed() => {}
            () = deadline => {}
            () = self.settings.hurry.cancelled() => {}
        }
        let cut = self.open.borrow().len();
        if cut > 0 && !self.settings.hurry.is_cancelled() {
            for state in self.open.borrow().values() {
                state.end();
            }
            // Who does not take it in that time is cut off.
            let _ = timeout(self.settings.linger_timeout, self.all_closed()).await;
        }
        for state in self.open.borrow().values() {
            state.abort();
        }
        self.all_closed().await;
        cut
    }

    async fn all_closed(&self) {
        while !self.open.borrow().is_empty() {
            self.closed.notified().await;
        }
    }
}

/// Faults of a connection that died in the queue, not of the listener.
fn is_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A connection's place: counted and drained until dropped.
struct Seat {
    server: Rc<Server>,
    id: u64,
    state: Rc<State>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    fn take(server: &Rc<Server>, permit: OwnedSemaphorePermit, stranger: Stranger) -> Self {
        let id = server.next.get();
        server.next.set(id + 1);
        let state = Rc::new(State::new(stranger));
        server.open.borrow_mut().insert(id, Rc::clone(&state));
        server.settings.metrics.connections.increment(1);
        Self { server: Rc::clone(server), id, state, _permit: permit }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.server.open.borrow_mut().remove(&self.id);
        self.server.settings.metrics.connections.decrement(1);
        self.server.closed.notify_one();
    }
}

#[cfg(test)]
mod tests;
