//! The body of an answer, frame by frame in time, with the break that a script asked for. It owns the [`Visit`], so a
//! caller that hangs up is counted however it leaves.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;

use super::answer::{Answer, Break};
use super::log::{Ending, Place};
use super::serve::Shared;

/// Time for the frames before a cut to leave the process.
const FLUSH: Duration = Duration::from_millis(5);

/// The body type of every answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One request from its head to its end; counted once, as aborted unless told otherwise.
#[derive(Debug)]
pub(super) struct Visit {
    shared: Arc<Shared>,
    place: Option<Place>,
}

impl Visit {
    pub(super) fn new(shared: Arc<Shared>, place: Place) -> Self {
        Self { shared, place: Some(place) }
    }

    /// Counts the end. Called before the last bytes are given away, so that a caller who has them finds it counted.
    pub(super) fn end(&mut self, ending: Ending) {
        if let Some(place) = self.place.take() {
            self.shared.end(&place, ending);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.end(Ending::Aborted);
    }
}

/// What is played and how.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) frames: VecDeque<Bytes>,
    pub(super) error_frame: Bytes,
    pub(super) break_at: Option<(usize, Break)>,
    pub(super) delay: Duration,
    pub(super) gap: Duration,
    pub(super) ending: Ending,
    pub(super) visit: Visit,
    sent: usize,
}

impl Play {
    /// Plays these frames in the time of the answer.
    pub(super) fn new(frames: impl Into<VecDeque<Bytes>>, answer: &Answer, visit: Visit) -> Self {
        Self {
            frames: frames.into(),
            error_frame: Bytes::new(),
            break_at: None,
            delay: answer.delay_body,
            gap: answer.gap,
            ending: Ending::Ok,
            visit,
            sent: 0,
        }
    }

    /// The body. An answer without frames has ended when this returns.
    pub(super) fn body(mut self) -> Body {
        if self.frames.is_empty() && self.break_at.is_none() && self.delay.is_zero() {
            self.visit.end(self.ending);
        }
        Body::new(StreamBody::new(stream::unfold(self, |mut play| async {
            let frame = play.next().await?;
            Some((frame.map(Frame::data), play))
        })))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let wait = if self.sent == 0 { self.delay } else { self.gap };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some((_, kind)) = self.break_at.filter(|(at, _)| *at <= self.sent) {
            return self.come_to_the_break(kind).await;
        }
        let frame = self.frames.pop_front();
        self.sent += 1;
        if self.frames.is_empty() && self.break_at.is_none_or(|(at, _)| at > self.sent) {
            self.visit.end(self.ending);
        }
        frame.map(Ok)
    }

    async fn come_to_the_break(&mut self, kind: Break) -> Option<io::Result<Bytes>> {
        self.frames.clear();
        self.break_at = None;
        match kind {
            Break::Cut => {
                tokio::time::sleep(FLUSH).await;
                self.visit.end(Ending::Error);
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the script")))
            }
            Break::Hang => std::future::pending().await,
            Break::Stop => {
                self.visit.end(Ending::Error);
                None
            }
            Break::Error => {
                self.visit.end(Ending::Error);
                Some(Ok(self.error_frame.clone()))
            }
        }
    }
}
