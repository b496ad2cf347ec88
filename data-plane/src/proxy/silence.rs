//! Silence towards a caller who asked for a stream. An answer's head is held until there is content, so that a failure
//! can still become another provider's answer; but balancers and clients give up on a connection that says nothing. So
//! after a while a head of our own goes out with a keep-alive, and the rest of the walk goes on behind it, inside the
//! body of the answer.
//!
//! The walk is one boxed future. Nothing is copied to hand it over: the box moves from the connection into the body.
//! Until then this costs a request one shared cell.

use super::{Body, respond};
use crate::clock::Instant;
use bytes::Bytes;
use contract::ids::RequestId;
use contract::usage::Dialect;
use http::Response;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep_until};

/// A request on its way to its answer.
type Walk = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// What a walk and whoever polls it tell each other.
#[derive(Default)]
pub struct Silence(Cell<State>);

#[derive(Clone, Copy, Default)]
enum State {
    /// The caller waits for the head.
    #[default]
    Kept,
    /// The caller waits for the head until then.
    Until(Instant, Beat),
    /// Our own head is out, or goes out at once.
    Broken(Beat),
}

/// How the silence of one stream is broken.
#[derive(Clone, Copy)]
pub struct Beat {
    /// Decides the form.
    pub dialect: Dialect,
    /// The record's id, for the head.
    pub id: RequestId,
    /// How often.
    pub every: Duration,
}

impl Silence {
    /// From now on it may be kept for so long as `beat` says.
    pub fn limit(&self, beat: Beat) {
        self.0.set(State::Until(Instant::now() + beat.every, beat));
    }

    /// When it is to be broken, if ever.
    pub fn ends(&self) -> Option<Instant> {
        match self.0.get() {
            State::Until(at, _) => Some(at),
            State::Kept | State::Broken(_) => None,
        }
    }

    /// Breaks it. Takes effect when the walk next returns to whoever polls it.
    pub fn end(&self) {
        if let State::Until(_, beat) = self.0.get() {
            self.0.set(State::Broken(beat));
        }
    }

    /// Whether the caller has, or is about to get, our own head.
    pub fn is_broken(&self) -> bool {
        self.broken().is_some()
    }

    fn broken(&self) -> Option<Beat> {
        match self.0.get() {
            State::Broken(beat) => Some(beat),
            State::Kept | State::Until(..) => None,
        }
    }
}

/// A walk until its answer has a head. Cancel-safe: dropped, it drops the walk, whose meter ends the request.
pub struct Handling {
    /// Until it is over or in the answer's body.
    walk: Option<Walk>,
    silence: Rc<Silence>,
}

impl Handling {
    /// `walk` gets the silence that it shares with this.
    pub fn new<F>(walk: impl FnOnce(Rc<Silence>) -> F) -> Self
    where
        F: Future<Output = Response<Body>> + 'static,
    {
        let silence = Rc::<Silence>::default();
        Self { walk: Some(Box::pin(walk(Rc::clone(&silence)))), silence }
    }
}

impl Future for Handling {
    type Output = Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let this = self.get_mut();
        let Some(walk) = &mut this.walk else { return Poll::Pending };
        let polled = walk.as_mut().poll(cx);
        let Some(beat) = this.silence.broken() else { return polled };
        let body = match polled {
            Poll::Ready(answer) => answer.into_body(),
            Poll::Pending => match this.walk.take() {
                Some(walk) => Body::Early(Box::new(Early::new(walk, beat))),
                None => return Poll::Pending,
            },
        };
        Poll::Ready(respond::early(beat, body))
    }
}

/// The body of an answer whose walk is not over: keep-alives until it is. Dropped, it ends the walk.
pub struct Early {
    walk: Walk,
    beat: Beat,
    /// When the next keep-alive is due.
    alarm: Pin<Box<Sleep>>,
}

/// What an early body has for its caller.
pub enum Next {
    /// A keep-alive.
    Beat(Bytes),
    /// The walk is over: this takes its place.
    Over(Body),
}

impl Early {
    fn new(walk: Walk, beat: Beat) -> Self {
        // The first one goes out with the head.
        Self { walk, beat, alarm: Box::pin(sleep_until(Instant::now())) }
    }

    /// The caller's protocol.
    pub fn dialect(&self) -> Dialect {
        self.beat.dialect
    }

    /// What comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(answer) = self.walk.as_mut().poll(cx) {
            return Poll::Ready(Next::Over(answer.into_body()));
        }
        if self.alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.alarm.as_mut().reset(Instant::now() + self.beat.every);
        Poll::Ready(Next::Beat(Bytes::from_static(llm::sse::keep_alive(self.beat.dialect))))
    }
}
