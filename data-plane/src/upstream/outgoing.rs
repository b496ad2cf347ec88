//! A request as it goes over the wire: its head as bytes, and its body. It can be sent twice.

use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;
use std::io::IoSlice;

/// A request, and how much of it was sent.
#[derive(Clone)]
pub struct Outgoing {
    pub(super) method: Method,
    head: Bytes,
    body: Bytes,
    sent: usize,
    /// Whether it must not be sent twice: then over a fresh connection, which cannot turn out to be stale.
    pub(super) once: bool,
}

impl Outgoing {
    /// As a request that must not be sent twice.
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// What is left to send.
    pub(super) fn left(&self) -> [IoSlice<'_>; 2] {
        let head = self.head.get(self.sent..).unwrap_or_default();
        let body = self.body.get(self.sent.saturating_sub(self.head.len())..).unwrap_or_default();
        [IoSlice::new(head), IoSlice::new(body)]
    }

    /// So many bytes more were sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Whether nothing is left.
    pub(super) fn is_sent(&self) -> bool {
        self.sent >= self.head.len() + self.body.len()
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.head[..], &self.body[..]].concat()
    }
}

/// Writes a head.
pub(super) struct Writer {
    method: Method,
    head: Vec<u8>,
}

impl Writer {
    /// The request line; `target` in origin form, without spaces and controls.
    pub(super) fn new(method: &Method, target: &str, room: usize) -> Self {
        let mut head = Vec::with_capacity(method.as_str().len() + target.len() + room + 48);
        for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        Self { method: method.clone(), head }
    }

    /// One header.
    pub(super) fn header(&mut self, name: &str, value: &HeaderValue) {
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.head.extend_from_slice(part);
        }
    }

    /// Header lines that were written before.
    pub(super) fn lines(&mut self, lines: &[u8]) {
        self.head.extend_from_slice(lines);
    }

    /// The end of the head, with the body's length where there is, or may be expected, a body.
    pub(super) fn end(mut self, body: Bytes) -> Outgoing {
        let expected = matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        if expected || !body.is_empty() {
            let mut digits = itoa::Buffer::new();
            for part in ["content-length: ", digits.format(body.len()), "\r\n"] {
                self.head.extend_from_slice(part.as_bytes());
            }
        }
        self.head.extend_from_slice(b"\r\n");
        Outgoing { method: self.method, head: self.head.into(), body, sent: 0, once: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_wherever_the_socket_stops() {
        let mut writer = Writer::new(&Method::POST, "/v1/x?a=b", 0);
        writer.header("x-a", &HeaderValue::from_static("1"));
        writer.lines(b"host: h\r\n");
        let outgoing = writer.end(Bytes::from_static(b"body"));
        let whole = b"POST /v1/x?a=b HTTP/1.1\r\nx-a: 1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(outgoing.bytes(), whole);
        for step in 1..whole.len() {
            let (mut copy, mut seen) = (outgoing.clone(), Vec::new());
            while !copy.is_sent() {
                let left: Vec<u8> = copy.left().iter().flat_map(|slice| slice.to_vec()).collect();
                let some = &left[..step.min(left.len())];
                seen.extend_from_slice(some);
                copy.sent(some.len());
            }
            assert_eq!(seen, whole);
            assert!(copy.left().iter().all(|slice| slice.is_empty()));
        }
    }

    #[test]
    fn a_length_is_told_where_a_body_may_be_expected() {
        for (method, body, told) in [
            (Method::POST, "", true),
            (Method::GET, "", false),
            (Method::DELETE, "", false),
            (Method::GET, "x", true),
        ] {
            let outgoing = Writer::new(&method, "/", 0).end(Bytes::from_static(body.as_bytes()));
            let text = String::from_utf8(outgoing.bytes()).unwrap();
            assert_eq!(text.contains("content-length"), told, "{text}");
        }
    }
}
