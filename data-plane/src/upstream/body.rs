//! The body of an upstream's answer. At a clean end its connection rests in the pool; dropped before, it closes
//! the connection, which is how the upstream learns that nobody listens any more.

use super::exchange::{Begun, Exchange, Piece};
use super::failure::{Failure, FailureClass, Stage};
use super::framing::Framing;
use super::pool::Pool;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What an upstream answers: all that has come, as one frame. Trailers are left out.
pub struct Body {
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
    last_frame: Instant,
    /// Made at the first wait. Not moved at every frame: when it rings, `last_frame` says whether it is time.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) fn answer(begun: Begun, exchange: Exchange, pool: Rc<Pool>, reused: bool) -> Response<Self> {
        let mut body = Self {
            exchange: Some(exchange),
            framing: begun.framing,
            keep: begun.keep,
            ready: begun.data,
            pool,
            reused,
            idle_timeout: Duration::MAX,
            last_frame: Instant::now(),
            alarm: None,
        };
        body.end_if_complete();
        Response::from_parts(begun.parts, body)
    }

    /// The longest wait for the next frame; zero: no limit.
    pub fn set_idle_timeout(&mut self, limit: Duration) {
        self.idle_timeout = if limit.is_zero() { Duration::MAX } else { limit };
        self.last_frame = Instant::now();
        self.alarm = None;
    }

    /// Whether the exchange used a connection that had rested.
    pub fn reused(&self) -> bool {
        self.reused
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

    fn broke(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.exchange = None;
        Poll::Ready(Some(Err(failure)))
    }

    /// Whether the wait has taken too long; registers the wake-up if not.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.last_frame.checked_add(self.idle_timeout) else { return false };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            alarm.as_mut().reset(deadline);
        }
        false
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if let Some(data) = this.ready.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        loop {
            let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
            match exchange.poll_body(cx, &mut this.framing) {
                Poll::Ready(Ok(Piece::End)) => {
                    if this.framing != Framing::UntilEnd {
                        return this.broke(Failure::new(FailureClass::Incomplete));
                    }
                    this.end();
                }
                Poll::Ready(Ok(Piece::Some { data, beyond })) => {
                    this.keep &= !beyond;
                    this.last_frame = Instant::now();
                    this.end_if_complete();
                    if let Some(data) = data {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(Err(failure)) => return this.broke(failure),
                Poll::Pending if this.is_late(cx) => return this.broke(Failure::timeout(Stage::Idle)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none() && self.ready.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.ready.as_ref().map_or(0, |data| data.len() as u64);
        match (&self.exchange, &self.framing) {
            (None, _) => SizeHint::with_exact(ready),
            (Some(_), Framing::Length(left)) => SizeHint::with_exact(ready + left),
            (Some(_), _) => SizeHint::default(),
        }
    }
}
