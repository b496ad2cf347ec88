//! A caller who leaves a stream after its first content. The upstream is paid for what it did before, most of all for
//! reasoning that it does not show, and says only at its end how much that was. So the stream is read on for a while,
//! and nothing of it is kept. What does not end in that time is cancelled, and estimated from what was seen.
//!
//! Bounded in number and time, and over at once when the thread's proxy ends.

use super::body::BodyError;
use super::meter::{Meter, STATUS_ABORTED};
use super::relay::Stream;
use crate::clock::Instant;
use crate::config::Config;
use crate::tasks;
use crate::upstream::{self, Heard};
use bytes::Bytes;
use contract::usage::{Dialect, Outcome};
use http_body::SizeHint;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Who reads on: one per traffic thread.
pub struct Readers {
    most: usize,
    patience: Duration,
    count: Rc<Cell<usize>>,
    ended: CancellationToken,
    _ends: DropGuard,
}

impl Readers {
    /// Nothing is read on yet.
    pub fn new(config: &Config) -> Self {
        let ended = CancellationToken::new();
        Self {
            most: config.hangup_read_streams,
            patience: config.hangup_read_timeout,
            count: Rc::default(),
            _ends: ended.clone().drop_guard(),
            ended,
        }
    }

    fn read_on(&self, rest: Rest) {
        if self.patience.is_zero() || self.count.get() >= self.most {
            return;
        }
        let place = Place::take(&self.count);
        let (patience, ended) = (self.patience, self.ended.clone());
        tasks::spawn_local("reading on", async move {
            let _place = place;
            // What it said until then is in the meter, however it ends.
            let _ = ended.run_until_cancelled(timeout(patience, rest.read())).await;
        });
    }
}

/// A stream that is read on counts until this is dropped.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What is left of a stream without a caller.
pub struct Rest {
    /// The upstream's side.
    pub upstream: upstream::Body,
    /// The guard.
    pub meter: Box<Meter>,
}

impl Rest {
    async fn read(mut self) {
        while let Some(Ok(heard)) = poll_fn(|cx| self.upstream.poll_heard(cx)).await {
            if let Heard::Data(data) = heard
                && self.meter.scanned_last(&data)
            {
                return;
            }
        }
    }
}

impl Drop for Rest {
    /// Ends the request, also one that is not read to its end. Whoever left did so long ago, and it says nothing of the
    /// provider.
    fn drop(&mut self) {
        self.meter.heard(Instant::now());
        self.meter.finish(Outcome::Aborted, STATUS_ABORTED, None);
    }
}

/// A stream on its way to its caller.
pub struct Relay {
    /// Until this is dropped.
    stream: Option<Box<Stream>>,
    readers: Rc<Readers>,
}

impl Relay {
    /// `readers` read on if the caller leaves.
    pub fn new(stream: Box<Stream>, readers: Rc<Readers>) -> Self {
        Self { stream: Some(stream), readers }
    }

    /// The next bytes for the caller.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.stream.as_mut().map_or(Poll::Ready(None), |stream| stream.poll_next(cx))
    }

    /// The dialect of a stream of events that has not come to its end.
    pub fn is_open(&self) -> Option<Dialect> {
        self.stream.as_ref()?.is_open()
    }

    /// Whether nothing more will come.
    pub fn is_end(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.is_end())
    }

    /// Exact where the upstream named a length and the bytes pass unchanged.
    pub fn size_hint(&self) -> SizeHint {
        self.stream.as_ref().map(|stream| stream.size_hint()).unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let left = self.stream.take().and_then(|stream| stream.left());
        if let Some(rest) = left.filter(|_| !std::thread::panicking()) {
            self.readers.read_on(rest);
        }
    }
}
