//! The body of every answer: whole, or a stream that owns the request's meter.

use super::leave::Relay;
use super::silence::{Early, Next};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use llm::error_body::{ErrorBody, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What goes to the caller.
pub enum Body {
    /// Known as a whole.
    Whole(Option<Bytes>),
    /// Relayed frame by frame.
    Stream(Relay),
    /// Keep-alives, until it is known which of the others it becomes.
    Early(Box<Early>),
}

/// Why a stream ended without its end: the connection is closed so that the caller notices.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct BodyError;

impl Body {
    /// A body that is known as a whole.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// What a stream that is ended by a shutdown says to its caller: an error of the dialect, after which clients ask
    /// again. Only streams can.
    #[cold]
    pub fn last_words(&self) -> Option<Bytes> {
        let (dialect, render): (_, fn(_, &_) -> _) = match self {
            Self::Whole(_) => return None,
            Self::Stream(relay) => (relay.is_open()?, llm::error_body::stream_error_event),
            Self::Early(early) => (early.dialect(), llm::error_body::failure_event),
        };
        let text = "this gateway is shut down; send the request again";
        let error = ErrorBody::new(503, ErrorKind::of_status(503), text).with_code("shutting_down");
        // A half-written event before it must not swallow it: an empty line ends whatever was open.
        Some([b"\n\n".as_slice(), &render(dialect, &error)].concat().into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            return match this {
                Self::Whole(bytes) => Poll::Ready(
                    bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
                ),
                Self::Stream(stream) => {
                    stream.poll_next(cx).map(|next| next.map(|data| data.map(Frame::data)))
                }
                Self::Early(early) => match ready!(early.poll_next(cx)) {
                    Next::Beat(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    Next::Over(body) => {
                        *this = body;
                        continue;
                    }
                },
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(stream) => stream.is_end(),
            Self::Early(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(stream) => stream.size_hint(),
            Self::Early(_) => SizeHint::default(),
        }
    }
}
