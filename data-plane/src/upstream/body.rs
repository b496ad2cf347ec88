//! The body of an upstream's answer. At a clean end its connection rests in the pool; dropped before, it closes
//! the connection, which is how the upstream learns that nobody listens any more.

use super::connect::Connection;
use super::failure::{Failure, Stage};
use super::pool::Pool;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What an upstream answers, frame by frame. Trailers are left out.
pub struct Body {
    incoming: Incoming,
    /// Until the end.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    reused: bool,
    ended: bool,
    idle_timeout: Duration,
    last_frame: Instant,
    /// Made at the first wait. Not moved at every frame: when it rings, `last_frame` says whether it is time.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) fn new(incoming: Incoming, connection: Connection, pool: Rc<Pool>, reused: bool) -> Self {
        let mut body = Self {
            incoming,
            connection: Some(connection),
            pool,
            reused,
            ended: false,
            idle_timeout: Duration::MAX,
            last_frame: Instant::now(),
            alarm: None,
        };
        body.end_if_complete();
        body
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
        if http_body::Body::is_end_stream(&self.incoming) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.alarm = None;
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }

    fn broke(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.ended = true;
        self.connection = None;
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
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut this.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    this.last_frame = Instant::now();
                    this.end_if_complete();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Ok(_trailers))) => {}
                Poll::Ready(Some(Err(error))) => return this.broke(Failure::from_hyper(&error)),
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Pending if this.is_late(cx) => return this.broke(Failure::timeout(Stage::Idle)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { self.incoming.size_hint() }
    }
}
