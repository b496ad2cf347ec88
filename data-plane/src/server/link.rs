//! The socket of a caller's connection, noting for [`State`] when it reads and when it takes nothing; and the end of a
//! connection, at which a caller may still be sending.

use super::connection::{Phase, State};
use bytes::Bytes;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Of what a caller sends after an answer that did not wait for it, what is passed over.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
/// At a time.
const LINGER_STEP: usize = 16 * 1024;

/// The socket, noting when it reads and when it takes nothing.
pub(super) struct Link {
    stream: TcpStream,
    state: Rc<State>,
    head_refused: fn(u16, &[u8]) -> (&'static str, Bytes),
    /// Of what comes after the end, what may still be passed over.
    linger: usize,
}

impl Link {
    pub(super) fn new(
        stream: TcpStream,
        state: Rc<State>,
        head_refused: fn(u16, &[u8]) -> (&'static str, Bytes),
    ) -> Self {
        Self { stream, state, head_refused, linger: LINGER_BYTES }
    }

    /// Sends a body along, if hyper refuses by itself the head that is being read.
    fn refuse(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if !matches!(self.state.phase(), Phase::Fresh | Phase::Head) {
            return None;
        }
        let answer = self.state.beginning.answer(written, self.head_refused)?;
        // A few hundred bytes fit into a socket that has sent nothing lately; what does not is lost with the connection.
        let sent = Pin::new(&mut self.stream).poll_write(cx, &answer);
        Some(sent.map_ok(|_| written.len()))
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state.took(polled.is_ready());
        polled
    }

    /// After our end was sent: passes over what the caller still sends, so that it gets to read what was answered. A
    /// socket that is closed with bytes unread takes back what it has sent.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); LINGER_STEP];
        while self.linger > 0 {
            let mut buf = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.linger = self.linger.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before && matches!(this.state.phase(), Phase::Fresh | Phase::Rest) {
            let read = &buf.filled()[before..];
            // Empty lines before a head are none of it; some clients end a body with one.
            if read.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                this.state.beginning.keep(read);
                this.state.enter(Phase::Head);
            }
        }
        polled
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(sent) = this.refuse(cx, buf) {
            return sent;
        }
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = bufs
            && let Some(sent) = this.refuse(cx, only)
        {
            return sent;
        }
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.phase() != Phase::Linger {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.state.is_draining() {
                return Poll::Ready(Ok(()));
            }
            this.state.enter(Phase::Linger);
        }
        this.linger(cx)
    }
}
