//! One request and one answer over one connection, in the task that wants the answer: no second task, no channel,
//! no buffer that a waiting stream would hold.

use super::connect::Connection;
use super::failure::{Failure, FailureClass};
use super::framing::Framing;
use super::head::{self, Head};
use super::outgoing::Outgoing;
use bytes::Bytes;
use http::{Method, response};
use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

/// Most that is read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// What is read lies here until its content is copied out, in pieces of just its size.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// A connection at work. Dropped, it closes the connection: that is how an upstream is cancelled.
pub(super) struct Exchange {
    connection: Connection,
    /// Until it is sent. An upstream may answer before it has read everything.
    outgoing: Option<Outgoing>,
    method: Method,
    /// Why it could not be sent; an answer may have come all the same.
    broken: Option<io::Error>,
    /// Whether any byte of an answer came: the difference between a resting connection that the upstream had
    /// closed and an exchange that broke.
    pub(super) received: bool,
    /// The beginning of a head that came in pieces.
    early: Vec<u8>,
}

/// The head of an answer and what came of its body with it.
pub(super) struct Begun {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    pub(super) keep: bool,
    pub(super) data: Option<Bytes>,
}

/// A piece of a body.
pub(super) enum Piece {
    /// Content, if there was any in it; `beyond`: there was more than the body.
    Some { data: Option<Bytes>, beyond: bool },
    /// The connection ended.
    End,
}

impl Exchange {
    pub(super) fn new(connection: Connection, outgoing: Outgoing) -> Self {
        let method = outgoing.method.clone();
        Self {
            connection,
            outgoing: Some(outgoing),
            method,
            broken: None,
            received: false,
            early: Vec::new(),
        }
    }

    /// The connection, if it may be used again.
    pub(super) fn release(self) -> Option<Connection> {
        self.went_out().then_some(self.connection)
    }

    /// Whether all of the request was sent.
    pub(super) fn went_out(&self) -> bool {
        self.outgoing.is_none() && self.broken.is_none()
    }

    /// Sends what the socket takes.
    fn send(&mut self, cx: &mut Context<'_>) {
        let Some(outgoing) = &mut self.outgoing else { return };
        match self.connection.poll_send(cx, outgoing) {
            Poll::Pending => return,
            Poll::Ready(sent) => self.broken = sent.err(),
        }
        self.outgoing = None;
    }

    /// The head of the final answer.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Begun, Failure>> {
        self.send(cx);
        READ.with_borrow_mut(|scratch| {
            loop {
                let read = ready!(self.connection.poll_read(cx, scratch));
                let read = read.map_err(|error| self.failure(&error))?;
                if read == 0 {
                    return Poll::Ready(Err(self.ended()));
                }
                self.received = true;
                let input = if self.early.is_empty() {
                    &scratch[..read]
                } else {
                    self.early.extend_from_slice(&scratch[..read]);
                    &self.early
                };
                if let Some((head, used)) = head::read(input, &self.method)? {
                    let begun = begun(head, &input[used..])?;
                    self.early = Vec::new();
                    return Poll::Ready(Ok(begun));
                }
                if self.early.is_empty() {
                    self.early.extend_from_slice(&scratch[..read]);
                }
            }
        })
    }

    /// What comes next of a body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        framing: &mut Framing,
    ) -> Poll<Result<Piece, Failure>> {
        self.send(cx);
        READ.with_borrow_mut(|scratch| {
            let read = ready!(self.connection.poll_read(cx, scratch));
            let read = read.map_err(|error| self.failure(&error))?;
            if read == 0 {
                return Poll::Ready(Ok(Piece::End));
            }
            let piece = framing.read(&scratch[..read])?;
            Poll::Ready(Ok(Piece::Some { data: piece.data, beyond: piece.used < read }))
        })
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match &self.broken {
            Some(broken) => Failure::because(FailureClass::Reset, broken.kind()),
            // A connection under TLS that ends without a farewell.
            None if error.kind() == io::ErrorKind::UnexpectedEof => self.ended(),
            None => Failure::because(FailureClass::Reset, error.kind()),
        }
    }

    fn ended(&self) -> Failure {
        let when =
            if self.received { "the connection ended in it" } else { "the connection ended before it" };
        Failure::because(FailureClass::Incomplete, when)
    }
}

fn begun(head: Head, rest: &[u8]) -> Result<Begun, Failure> {
    let Head { parts, mut framing, keep } = head;
    let read = framing.read(rest)?;
    Ok(Begun { parts, framing, keep: keep && read.used == rest.len(), data: read.data })
}
