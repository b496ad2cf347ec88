//! One caller's connection: hyper's HTTP/1 with our limits on waiting. One alarm per connection, not per request:
//! it is set far out and looks, when it rings, at what the connection is doing; requests do not touch it.

use super::link::Link;
use super::refused::Beginning;
use super::strangers::{Stranger, Strangers};
use super::{LastWords, Settings};
use crate::clock::Instant;
use crate::telemetry::metrics::{Metrics, Running};
use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, OnceCell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep_until};

/// Most of a request that is buffered before it is asked for.
const MAX_BUFFER: usize = 64 * 1024;
/// For the first request of a connection that was opened before the drain began: it may be in the socket already, and
/// whoever sent it was promised an answer by the handshake. Drains end this much later where callers hold connections
/// that they never used.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(300);
/// Headers that hyper parses without an allocation.
const USUAL_HEADERS: usize = 100;

/// Why a connection ended other than by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the head of a request did not arrive in time")]
    SlowHead,
    #[error("the caller took no bytes for too long")]
    SlowReader,
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Open, nothing read.
    Fresh,
    /// A head is on its way.
    Head,
    /// A request is being answered.
    Busy,
    /// Between two requests.
    Rest,
    /// Ended from here; what the caller still sends is passed over.
    Linger,
}

/// What a connection is doing, seen by its parts.
pub(super) struct State {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Since when the socket has taken nothing.
    blocked: Cell<Option<Instant>>,
    /// Since when.
    draining: Cell<Option<Instant>>,
    /// Whether answers are to end now.
    ending: Cell<bool>,
    waker: OnceCell<Waker>,
    task: OnceCell<AbortHandle>,
    pub(super) beginning: Beginning,
    /// Its seat among the strangers, while it rests and has shown no known key.
    stranger: RefCell<Option<Stranger>>,
    known: Cell<bool>,
}

impl State {
    pub(super) fn new(stranger: Stranger) -> Self {
        Self {
            phase: Cell::new(Phase::Fresh),
            since: Cell::new(Instant::now()),
            blocked: Cell::new(None),
            draining: Cell::new(None),
            ending: Cell::new(false),
            waker: OnceCell::new(),
            task: OnceCell::new(),
            beginning: Beginning::default(),
            stranger: RefCell::new(Some(stranger)),
            known: Cell::new(false),
        }
    }

    /// No further request; what runs may end.
    pub(super) fn drain(&self) {
        self.draining.set(Some(Instant::now()));
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// What runs is to end now, in its own words where it has any.
    pub(super) fn end(&self) {
        self.ending.set(true);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Which task to end by [`State::abort`].
    pub(super) fn belongs_to(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Ends the connection where it stands.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// The socket took bytes, or none.
    pub(super) fn took(&self, any: bool) {
        match (any, self.blocked.get()) {
            (true, _) => self.blocked.set(None),
            (false, None) => self.blocked.set(Some(Instant::now())),
            (false, Some(_)) => {}
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if phase != Phase::Busy {
            self.since.set(Instant::now());
        }
    }

    fn rest(&self, settings: &Settings) -> Duration {
        let all = settings.keep_alive_timeout;
        if self.known.get() { all } else { all.min(settings.stranger_keep_alive) }
    }

    /// When the present wait is over, and what its end means; `None`: nothing is waited for.
    fn deadline(&self, settings: &Settings) -> Option<(Instant, Over)> {
        if let Some(blocked) = self.blocked.get() {
            return Some((blocked + settings.send_timeout, Over::SlowReader));
        }
        match self.phase.get() {
            Phase::Fresh => {
                let first = self.since.get() + settings.header_read_timeout;
                let drained = self.draining.get().map_or(first, |since| since + FIRST_REQUEST_GRACE);
                Some((first.min(drained), Over::Unused))
            }
            Phase::Head => Some((self.since.get() + settings.header_read_timeout, Over::SlowHead)),
            Phase::Rest => Some((self.since.get() + self.rest(settings), Over::Unused)),
            Phase::Linger => Some((self.since.get() + settings.linger_timeout, Over::Unused)),
            Phase::Busy => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Over {
    Unused,
    SlowHead,
    SlowReader,
}

/// Runs a connection to its end.
pub(super) async fn serve<H, F, B>(
    stream: TcpStream,
    service: Service<H>,
    state: Rc<State>,
    settings: Settings,
) -> Result<(), Ended>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: http_body::Body<Data = Bytes> + LastWords + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_header_size(settings.max_header_bytes)
        .max_buf_size(MAX_BUFFER.max(settings.max_header_bytes));
    if settings.max_headers != USUAL_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    let link = Link::new(stream, Rc::clone(&state), settings.head_refused);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(link), service));
    let mut alarm = Alarm::new(&state, &settings);
    let mut told = false;
    poll_fn(|cx| {
        state.waker.get_or_init(|| cx.waker().clone());
        // A connection that has read nothing would be closed by it, with a request that may be on its way.
        let tell = |told: bool| state.draining.get().is_some() && !told && state.phase.get() != Phase::Fresh;
        loop {
            if tell(told) {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Ended::from));
            }
            if !tell(told) {
                break;
            }
        }
        alarm.poll(cx, &state, &settings)
    })
    .await
}

/// Rings at or before the end of every wait.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
}

impl Alarm {
    fn new(state: &State, settings: &Settings) -> Self {
        Self { sleep: Box::pin(sleep_until(state.since.get() + settings.header_read_timeout)), armed: false }
    }

    fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.armed = false;
    }

    /// Ready when a wait is over.
    fn poll(&mut self, cx: &mut Context<'_>, state: &State, settings: &Settings) -> Poll<Result<(), Ended>> {
        loop {
            let due = state.deadline(settings);
            if let Some((at, _)) = due
                && at < self.sleep.deadline()
            {
                self.set(at);
            }
            // Set and not rung: the timer holds our waker already.
            if self.armed && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.armed = true;
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match due {
                Some((at, over)) if now >= at => return Poll::Ready(over.into()),
                Some((at, _)) => self.set(at),
                None => self.set(now + settings.keep_alive_timeout.min(settings.send_timeout)),
            }
        }
    }
}

impl From<Over> for Result<(), Ended> {
    fn from(over: Over) -> Self {
        match over {
            Over::Unused => Ok(()),
            Over::SlowHead => Err(Ended::SlowHead),
            Over::SlowReader => Err(Ended::SlowReader),
        }
    }
}

/// hyper's view of the handler.
pub(super) struct Service<H> {
    handler: H,
    peer: SocketAddr,
    state: Rc<State>,
    metrics: Arc<Metrics>,
    strangers: Strangers,
    is_stranger: fn(&Extensions) -> bool,
}

impl<H> Service<H> {
    pub(super) fn new(handler: H, peer: SocketAddr, state: Rc<State>, settings: &Settings) -> Self {
        let (metrics, strangers) = (Arc::clone(&settings.metrics), settings.strangers.clone());
        Self { handler, peer, state, metrics, strangers, is_stranger: settings.is_stranger }
    }

    /// Once a key was known the connection is no stranger's any more; else it takes its seat again, which it gives
    /// back for the time of the request: one that takes time has a key.
    fn judge(&self) -> Judge {
        drop(self.state.stranger.take());
        Judge {
            state: Rc::clone(&self.state),
            strangers: (!self.state.known.get()).then(|| self.strangers.clone()),
            address: self.peer.ip(),
            is_stranger: self.is_stranger,
        }
    }
}

/// What an answer says of its caller.
struct Judge {
    state: Rc<State>,
    /// Set as long as no key was known.
    strangers: Option<Strangers>,
    address: IpAddr,
    is_stranger: fn(&Extensions) -> bool,
}

impl Judge {
    fn sees(self, answer: &Extensions) {
        match self.strangers {
            Some(strangers) if (self.is_stranger)(answer) => {
                *self.state.stranger.borrow_mut() = strangers.come(self.address, 0);
            }
            Some(_) => self.state.known.set(true),
            None => {}
        }
    }
}

impl<H, F, B> hyper::service::Service<Request<Incoming>> for Service<H>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<B>> + 'static,
    B: 'static,
{
    type Response = Response<Tracked<B>>;
    type Error = Infallible;
    // Boxed so that a resting connection does not carry the room of a request.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.enter(Phase::Busy);
        let judge = self.judge();
        let busy = Busy { state: Rc::clone(&self.state), _running: self.metrics.running() };
        // Small: the walk lies in a box of its own, which may move into the body of its answer.
        let answer = (self.handler)(request, self.peer);
        Box::pin(async move {
            let answer = answer.await;
            judge.sees(answer.extensions());
            Ok(answer.map(|body| Tracked { body, busy, is_over: false }))
        })
    }
}

/// From a request's head until its answer is out.
struct Busy {
    state: Rc<State>,
    _running: Running,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.enter(Phase::Rest);
    }
}

/// An answer's body; its end is the end of the request.
pub(super) struct Tracked<B> {
    body: B,
    busy: Busy,
    /// Its last words are said.
    is_over: bool,
}

impl<B: LastWords> Tracked<B> {
    #[cold]
    fn last_words(&mut self) -> Option<Bytes> {
        let words = self.body.last_words().filter(|_| !self.is_over);
        self.is_over |= words.is_some();
        words
    }
}

impl<B> http_body::Body for Tracked<B>
where
    B: http_body::Body<Data = Bytes> + LastWords + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.busy.state.ending.get() {
            if let Some(words) = this.last_words() {
                return Poll::Ready(Some(Ok(Frame::data(words))));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
