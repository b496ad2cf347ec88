//! The head of an answer: status, headers, and what they say about its body and the connection. Pure.

use super::failure::{Failure, FailureClass};
use super::framing::{Chunks, Framing};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, response};
use httparse::{ParserConfig, Status};
use std::mem::MaybeUninit;

/// Most headers of an answer.
const MAX_HEADERS: usize = 128;
/// Largest head of an answer.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// A head that is complete.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    /// Whether the connection may be used again after the body.
    pub(super) keep: bool,
}

/// Reads the head of the final answer at the beginning of `input`, passing over interim ones; with it the bytes
/// that it took. `None`: more must come.
pub(super) fn read(input: &[u8], method: &Method) -> Result<Option<(Head, usize)>, Failure> {
    let mut from = 0;
    loop {
        let mut room = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            &input[from..],
            &mut room,
        );
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if input.len() >= MAX_HEAD => return Err(odd("its head is too large")),
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(odd(error)),
        };
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or_else(|| odd("its status is none"))?;
        if !status.is_informational() {
            let headers = headers(&input[from..from + length], answer.headers)?;
            let old = answer.version == Some(0);
            return Ok(Some((head(status, headers, old, method)?, from + length)));
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(odd("it switches protocols unasked"));
        }
        from += length;
    }
}

/// The headers, in one allocation for all values.
fn headers(head: &[u8], found: &[httparse::Header<'_>]) -> Result<HeaderMap, Failure> {
    let bytes = Bytes::copy_from_slice(head);
    let start = head.as_ptr() as usize;
    // With room for what is added for the caller: a map that grows hashes everything again.
    let mut headers = HeaderMap::with_capacity(found.len() + 2);
    for header in found {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(odd)?;
        let at = header.value.as_ptr() as usize - start;
        let value = bytes.slice(at..at + header.value.len());
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(odd)?);
    }
    Ok(headers)
}

fn head(status: StatusCode, headers: HeaderMap, old: bool, method: &Method) -> Result<Head, Failure> {
    let bodiless =
        *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = length(&headers)?;
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    let framing = match (bodiless, coded, length) {
        (true, ..) => Framing::Length(0),
        (false, true, _) if is_chunked(&headers) => Framing::Chunked(Chunks::new()),
        (false, true, _) | (false, false, None) => Framing::UntilEnd,
        (false, false, Some(length)) => Framing::Length(length),
    };
    // Both, or a coding of old: whoever is between us may have read it otherwise.
    let certain = !(coded && (old || length.is_some()));
    let keep = certain && !old && !says_close(&headers) && framing != Framing::UntilEnd;
    let mut parts = Response::new(()).into_parts().0;
    (parts.status, parts.headers) = (status, headers);
    Ok(Head { parts, framing, keep })
}

/// Of several lengths all must be the same.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let mut known = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.as_bytes().split(|byte| *byte == b',') {
            let text = std::str::from_utf8(text.trim_ascii()).ok();
            let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse::<u64>().ok());
            let length = length.ok_or_else(|| odd("its length is none"))?;
            if known.replace(length).is_some_and(|before| before != length) {
                return Err(odd("it has two lengths"));
            }
        }
    }
    Ok(known)
}

/// Whether the last coding is `chunked`.
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
    let coding = last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    coding.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn odd(what: impl std::fmt::Display) -> Failure {
    Failure::because(FailureClass::Protocol, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<(Head, usize)>, Failure> {
        read(text.as_bytes(), &Method::POST)
    }

    #[test]
    fn framing_and_keeping_follow_the_headers() {
        let chunked = || Framing::Chunked(Chunks::new());
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5, 5\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n", chunked(), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", chunked(), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n", chunked(), false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n", Framing::UntilEnd, false),
            ("HTTP/1.1 200 OK\r\n", Framing::UntilEnd, false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: X, Close\r\n", Framing::Length(5), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), false),
            ("HTTP/1.1 204 No Content\r\n", Framing::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n", Framing::Length(0), true),
            (
                "HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n",
                Framing::Length(1),
                true,
            ),
        ];
        for (text, framing, keep) in cases {
            let whole = format!("{text}\r\n");
            let (head, used) = of(&format!("{whole}body")).unwrap().unwrap();
            assert_eq!((head.framing, head.keep, used), (framing, keep, whole.len()), "{text}");
            for at in 0..whole.len() {
                assert!(of(&whole[..at]).unwrap().is_none(), "{text} up to {at}");
            }
        }
        let (head, _) =
            read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &Method::HEAD).unwrap().unwrap();
        assert_eq!((head.framing, head.keep), (Framing::Length(0), true));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        let large = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
        for text in [
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            &many,
            &large,
        ] {
            let failure = of(text).unwrap_err();
            assert_eq!(failure.class, FailureClass::Protocol, "{text}");
        }
    }

    #[test]
    fn headers_come_as_they_were_sent() {
        let text = "HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nx-a: 1\r\nX-A: 2\r\nx-odd: \u{e9}\r\n\r\n";
        let (head, _) = of(text).unwrap().unwrap();
        assert_eq!(head.parts.status, 429);
        assert_eq!(head.parts.headers["retry-after"], "7");
        assert_eq!(head.parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.parts.headers["x-odd"].as_bytes(), "\u{e9}".as_bytes());
    }
}
