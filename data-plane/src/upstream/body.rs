//! The body of an upstream's answer. At a clean end its connection rests in the pool; dropped before, it closes
//! the connection, which is how the upstream learns that nobody listens any more.

use super::decode::Packed;
use super::exchange::{Begun, Exchange, Piece};
use super::failure::{Failure, FailureClass, Stage};
use super::framing::Framing;
use super::pool::Pool;
use crate::clock::Instant;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// What an upstream answers: all that has come, as one frame. Trailers are left out.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are plain: a box would cost each answer an allocation"
)]
pub enum Body {
    /// As it comes.
    Plain(Plain),
    /// Compressed by the upstream, read uncompressed.
    Packed(Box<Packed>),
    /// Cut: nothing more of it, and its connection is closed.
    Cut,
}

/// A body as it comes.
pub struct Plain {
    /// Until the end.
    exchange: Option<Exchange>,
    framing: Framing,
    /// Whether the connection may be used again after the end.
    keep: bool,
    /// Came with the head.
    ready: Option<Bytes>,
    pool: Rc<Pool>,
    reused: bool,
    idle_timeout: Duration,
    /// How long a pause is before it is told; see [`Body::tell_pauses`].
    pause: Duration,
    last_frame: Instant,
    last_told: Instant,
    /// Made at the first wait. Not moved at every frame: when it rings, the times above say whether it is time.
    alarm: Option<Pin<Box<Sleep>>>,
    /// A pause that whoever reads through something in between has not heard of yet.
    noted: bool,
}

/// What comes of a body.
#[derive(Debug)]
pub enum Heard {
    /// Content.
    Data(Bytes),
    /// Nothing for a while.
    Pause,
}

/// Why a wait is interrupted.
enum Rung {
    Pause,
    Late,
}

impl Body {
    pub(super) fn answer(begun: Begun, exchange: Exchange, pool: Rc<Pool>, reused: bool) -> Response<Self> {
        let now = Instant::now();
        let mut plain = Plain {
            exchange: Some(exchange),
            framing: begun.framing,
            keep: begun.keep,
            ready: begun.data,
            pool,
            reused,
            idle_timeout: Duration::MAX,
            pause: Duration::MAX,
            last_frame: now,
            last_told: now,
            alarm: None,
            noted: false,
        };
        plain.end_if_complete();
        Response::from_parts(begun.parts, Self::Plain(plain))
    }

    /// The same, uncompressed; `None` if `encoding`, the content coding of the answer, is none that we know.
    pub fn unpack(self, encoding: &str) -> Option<Self> {
        match self {
            Self::Plain(plain) => Packed::new(plain, encoding).map(|packed| Self::Packed(Box::new(packed))),
            Self::Packed(_) | Self::Cut => None,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Plain)) {
        match self {
            Self::Plain(plain) => change(plain),
            Self::Packed(packed) => change(&mut packed.plain()),
            Self::Cut => {}
        }
    }

    /// The longest wait for the next frame; zero: no limit.
    pub fn set_idle_timeout(&mut self, limit: Duration) {
        self.change(|plain| {
            plain.idle_timeout = if limit.is_zero() { Duration::MAX } else { limit };
            plain.last_frame = Instant::now();
            plain.alarm = None;
        });
    }

    /// From now on [`Body::poll_heard`] says so whenever nothing has come for that long.
    pub fn tell_pauses(&mut self, after: Duration) {
        self.change(|plain| {
            plain.pause = after;
            plain.alarm = None;
        });
    }

    /// When something of it last came.
    pub fn last_frame(&self) -> Instant {
        match self {
            Self::Plain(plain) => plain.last_frame,
            Self::Packed(packed) => packed.plain().last_frame,
            Self::Cut => Instant::now(),
        }
    }

    /// Whether the exchange used a connection that had rested.
    pub fn reused(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.reused,
            Self::Packed(packed) => packed.plain().reused,
            Self::Cut => false,
        }
    }

    /// What comes next: content, a pause if they are told, a failure; `None` at the end.
    pub fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Heard, Failure>>> {
        match self {
            Self::Plain(plain) => plain.poll_heard(cx),
            Self::Packed(packed) => packed.poll_heard(cx),
            Self::Cut => Poll::Ready(None),
        }
    }
}

impl Plain {
    /// Keeps a pause for [`Plain::paused`].
    pub(super) fn note_pause(&mut self) {
        self.noted = true;
    }

    /// Whether there was a pause since the last call.
    pub(super) fn paused(&mut self) -> bool {
        std::mem::take(&mut self.noted)
    }

    fn end_if_complete(&mut self) {
        if self.framing.is_over() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.alarm = None;
        if let Some(connection) = self.exchange.take().filter(|_| self.keep).and_then(Exchange::release) {
            self.pool.put(connection);
        }
    }

    fn broke(&mut self, failure: Failure) -> Poll<Option<Result<Heard, Failure>>> {
        self.exchange = None;
        Poll::Ready(Some(Err(failure)))
    }

    /// Whether the wait has taken too long; registers the wake-up if not.
    fn rung(&mut self, cx: &mut Context<'_>) -> Option<Rung> {
        if self.alarm.is_none() {
            self.alarm = Some(Box::pin(tokio::time::sleep_until(self.next_ring()?)));
        }
        while self.alarm.as_mut()?.as_mut().poll(cx).is_ready() {
            let (now, next) = (Instant::now(), self.next_ring()?);
            if now < next {
                self.alarm.as_mut()?.as_mut().reset(next);
                continue;
            }
            if now.duration_since(self.last_frame) >= self.idle_timeout {
                return Some(Rung::Late);
            }
            self.last_told = now;
            let next = self.next_ring()?;
            self.alarm.as_mut()?.as_mut().reset(next);
            return Some(Rung::Pause);
        }
        None
    }

    /// When the wait is too long or to be told, as far as known now.
    fn next_ring(&self) -> Option<Instant> {
        let late = self.last_frame.checked_add(self.idle_timeout);
        let pause = self.last_frame.max(self.last_told).checked_add(self.pause);
        [late, pause].into_iter().flatten().min()
    }

    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Heard, Failure>>> {
        if let Some(data) = self.ready.take() {
            return Poll::Ready(Some(Ok(Heard::Data(data))));
        }
        loop {
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
            match exchange.poll_body(cx, &mut self.framing) {
                Poll::Ready(Ok(Piece::End)) => {
                    if self.framing != Framing::UntilEnd {
                        return self.broke(Failure::new(FailureClass::Incomplete));
                    }
                    self.end();
                }
                Poll::Ready(Ok(Piece::Some { data, beyond })) => {
                    self.keep &= !beyond;
                    self.last_frame = Instant::now();
                    self.end_if_complete();
                    if let Some(data) = data {
                        return Poll::Ready(Some(Ok(Heard::Data(data))));
                    }
                }
                Poll::Ready(Err(failure)) => return self.broke(failure),
                Poll::Pending => match self.rung(cx) {
                    None => return Poll::Pending,
                    Some(Rung::Pause) => return Poll::Ready(Some(Ok(Heard::Pause))),
                    Some(Rung::Late) => return self.broke(Failure::timeout(Stage::Idle)),
                },
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        loop {
            match ready!(this.poll_heard(cx)) {
                Some(Ok(Heard::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Heard::Pause)) => {}
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.exchange.is_none() && plain.ready.is_none(),
            Self::Packed(packed) => packed.is_end(),
            Self::Cut => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Self::Plain(plain) = self else { return SizeHint::default() };
        let ready = plain.ready.as_ref().map_or(0, |data| data.len() as u64);
        match (&plain.exchange, &plain.framing) {
            (None, _) => SizeHint::with_exact(ready),
            (Some(_), Framing::Length(left)) => SizeHint::with_exact(ready + left),
            (Some(_), _) => SizeHint::default(),
        }
    }
}
