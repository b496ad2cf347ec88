//! The answer to a head that could not be read: too large, too many headers, no HTTP. hyper makes it by itself and
//! without a body, before there is a request that a handler could answer; on its way to the socket it gets the body
//! that the caller's client can read.

use std::cell::{Cell, RefCell};

/// Of a head, what is kept to tell which protocol its caller speaks.
const KEPT: usize = 128;

/// What a connection knows of the head that it reads.
#[derive(Default)]
pub(super) struct Beginning {
    bytes: RefCell<Vec<u8>>,
    /// hyper's answer was replaced; there is only one.
    told: Cell<bool>,
}

impl Beginning {
    /// The first bytes of a head.
    pub(super) fn keep(&self, read: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        bytes.clear();
        bytes.extend_from_slice(&read[..read.len().min(KEPT)]);
    }

    /// The answer to send instead of `written`, if that is hyper's own: an error without a body.
    pub(super) fn answer(
        &self,
        written: &[u8],
        refused: fn(u16, &[u8]) -> (&'static str, bytes::Bytes),
    ) -> Option<Vec<u8>> {
        let status = own_error(written)?;
        if self.told.replace(true) {
            return None;
        }
        let (kind, body) = refused(status, &self.bytes.borrow());
        let line = written.split(|byte| *byte == b'\r').next()?;
        let rest = format!(
            "\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Some([line, rest.as_bytes(), &body].concat())
    }
}

fn own_error(written: &[u8]) -> Option<u16> {
    let status = written.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let status: u16 = std::str::from_utf8(status).ok()?.parse().ok()?;
    let empty = memchr::memmem::find(written, b"content-length: 0\r\n").is_some();
    ((400..500).contains(&status) && empty && written.ends_with(b"\r\n\r\n")).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_without_a_body_is_replaced() {
        let refused = |_: u16, head: &[u8]| ("text/plain", bytes::Bytes::copy_from_slice(head));
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let beginning = Beginning::default();
        beginning.keep(b"POST /v1/x");
        let answer = String::from_utf8(beginning.answer(bare, refused).expect("an answer")).expect("text");
        assert!(
            answer
                .starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\n")
        );
        assert!(answer.ends_with("content-length: 10\r\nconnection: close\r\n\r\nPOST /v1/x"), "{answer}");
        assert_eq!(beginning.answer(bare, refused), None, "once");
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"4\r\ndata\r\n",
            b"",
        ] {
            assert_eq!(Beginning::default().answer(other, refused), None);
        }
    }
}
