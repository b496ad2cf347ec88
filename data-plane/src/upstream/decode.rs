//! Takes the compression off an answer. We ask for none, but some upstreams compress all the same; then neither usage
//! nor errors can be read, no chunk left out and no event put in. So the caller gets such an answer uncompressed: it
//! never told the upstream what it could read, and of a stream of which parts are ours and parts compressed nobody
//! can read anything.

use super::body::{Heard, Plain};
use super::failure::{Failure, FailureClass};
use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// Most that is decompressed at once: what one frame can become is bounded by it, however small it was.
const STEP: usize = 32 * 1024;

/// A compressed body, read uncompressed.
pub struct Packed {
    plain: Rc<RefCell<Plain>>,
    /// `None` once it ended.
    reader: Option<Pin<Box<dyn AsyncRead>>>,
}

impl Packed {
    /// `None` if the encoding is none that we know.
    pub(super) fn new(plain: Plain, encoding: &str) -> Option<Self> {
        let plain = Rc::new(RefCell::new(plain));
        let source = Source { plain: Rc::clone(&plain), piece: Bytes::new() };
        let is = |name: &str| encoding.eq_ignore_ascii_case(name);
        let reader: Pin<Box<dyn AsyncRead>> = match () {
            () if is("gzip") || is("x-gzip") => {
                let mut decoder = GzipDecoder::new(source);
                // Some servers flush by ending one member and beginning another.
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            () if is("deflate") => Box::pin(ZlibDecoder::new(source)),
            () if is("br") => Box::pin(BrotliDecoder::new(source)),
            () if is("zstd") => {
                let mut decoder = ZstdDecoder::new(source);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            () => return None,
        };
        Some(Self { plain, reader: Some(reader) })
    }

    pub(super) fn is_end(&self) -> bool {
        self.reader.is_none()
    }

    /// The body as it comes.
    pub(super) fn plain(&self) -> std::cell::RefMut<'_, Plain> {
        self.plain.borrow_mut()
    }

    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Heard, Failure>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        let mut room = vec![0; STEP];
        let mut read = ReadBuf::new(&mut room);
        match reader.as_mut().poll_read(cx, &mut read) {
            Poll::Pending if self.plain.borrow_mut().paused() => Poll::Ready(Some(Ok(Heard::Pause))),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                let length = read.filled().len();
                if length == 0 {
                    self.reader = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Heard::Data(Bytes::copy_from_slice(&room[..length])))))
            }
            Poll::Ready(Err(error)) => {
                self.reader = None;
                Poll::Ready(Some(Err(failure(&error))))
            }
        }
    }
}

/// The failure of the body itself, or that of decompressing it.
fn failure(error: &io::Error) -> Failure {
    if let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
        return failure.clone();
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Failure::new(FailureClass::Incomplete);
    }
    Failure::because(FailureClass::Protocol, "it does not decompress")
}

/// The compressed bytes.
struct Source {
    plain: Rc<RefCell<Plain>>,
    piece: Bytes,
}

impl AsyncBufRead for Source {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match ready!(this.plain.borrow_mut().poll_heard(cx)) {
                Some(Ok(Heard::Data(data))) => this.piece = data,
                Some(Ok(Heard::Pause)) => {
                    // Asked for again by whoever hears of the pause.
                    this.plain.borrow_mut().note_pause();
                    return Poll::Pending;
                }
                Some(Err(failure)) => return Poll::Ready(Err(io::Error::other(failure))),
                None => break,
            }
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().piece.advance(amount);
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}
