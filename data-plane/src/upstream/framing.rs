//! Where the body of an answer ends: by length, by chunks, or with the connection. Pure; strict, because what two
//! readers of one stream read differently is a hole.

use super::failure::{Failure, FailureClass};
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Range;

/// Most digits of a chunk's length: 2^60 bytes.
const MAX_DIGITS: u8 = 15;
/// Most bytes of the extensions of all chunks that come without content between them, and of all trailers.
const MAX_IDLE: u32 = 16 * 1024;

/// How the end of a body is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// The connection's end is the body's.
    UntilEnd,
}

/// What a piece of input held.
pub(super) struct Read {
    /// Content; `None`: there was none in it.
    pub(super) data: Option<Bytes>,
    /// Bytes used. Fewer than there were: the rest lies beyond the end.
    pub(super) used: usize,
}

impl Framing {
    /// Whether nothing more belongs to the body.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Over,
            Self::UntilEnd => false,
        }
    }

    /// Takes the content out of `input`; all that is there goes on in one piece.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Read, Failure> {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= used as u64;
                Ok(Read { data: copied(&input[..used]), used })
            }
            Self::Chunked(chunks) => chunks.read(input),
            Self::UntilEnd => Ok(Read { data: copied(input), used: input.len() }),
        }
    }
}

fn copied(data: &[u8]) -> Option<Bytes> {
    (!data.is_empty()).then(|| Bytes::copy_from_slice(data))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Digits of a length, so many so far.
    Size(u8),
    Extension,
    /// After CR; the line feed is due.
    SizeEnd,
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// The beginning of a line after the last chunk.
    Trailer,
    TrailerLine,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Over,
}

/// A chunked body, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    state: State,
    /// Of the chunk's length, or of its data.
    left: u64,
    idle: u32,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: State::Size(0), left: 0, idle: 0 }
    }

    fn read(&mut self, input: &[u8]) -> Result<Read, Failure> {
        let mut found: SmallVec<[Range<usize>; 4]> = SmallVec::new();
        let mut at = 0;
        while at < input.len() && self.state != State::Over {
            if self.state == State::Data {
                let rest = input.len() - at;
                let used = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                found.push(at..at + used);
                at += used;
                self.left -= used as u64;
                self.idle = 0;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(Read { data: joined(input, &found), used: at })
    }

    /// One byte between the data.
    fn step(&mut self, byte: u8) -> Result<State, Failure> {
        if !matches!(self.state, State::DataCr | State::DataLf) {
            self.idle += 1;
            if self.idle > MAX_IDLE {
                return Err(odd("too much between the chunks"));
            }
        }
        Ok(match (self.state, byte) {
            (State::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => State::SizeEnd,
            (State::Size(1..), b';' | b' ' | b'\t') => State::Extension,
            (State::Extension, byte) if byte != b'\n' => State::Extension,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerLine, byte) if byte != b'\n' => {
                if byte == b'\r' {
                    State::TrailerLf
                } else {
                    State::TrailerLine
                }
            }
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::Over,
            _ => return Err(odd("a chunk is malformed")),
        })
    }
}

fn joined(input: &[u8], found: &[Range<usize>]) -> Option<Bytes> {
    match found {
        [] => None,
        [one] => Some(Bytes::copy_from_slice(&input[one.clone()])),
        several => {
            let mut all = Vec::with_capacity(several.iter().map(Range::len).sum());
            several.iter().for_each(|range| all.extend_from_slice(&input[range.clone()]));
            Some(all.into())
        }
    }
}

fn odd(what: &str) -> Failure {
    Failure::because(FailureClass::Protocol, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in pieces; content, bytes used, whether it is over.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Failure> {
        let mut framing = Framing::Chunked(Chunks::new());
        let (mut content, mut used) = (Vec::new(), 0);
        for piece in pieces {
            let read = framing.read(piece)?;
            content.extend_from_slice(&read.data.unwrap_or_default());
            used += read.used;
        }
        Ok((content, used, framing.is_over()))
    }

    #[test]
    fn chunks_are_read_wherever_the_input_is_split() {
        let cases: [(&[u8], &[u8]); 4] = [
            (b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
            (b"005;a=\"b\"\r\nhello\r\n0\r\nx: 1\r\ny: 2\r\n\r\n", b"hello"),
            (b"A \r\n\r\n0\r\n\r\n\r\n1\r\n0;x\r\n\r\n", b"\r\n0\r\n\r\n\r\n1"),
            (b"0\r\n\r\n", b""),
        ];
        for (input, content) in cases {
            let tail = [input, b"HTTP/1.1"].concat();
            assert_eq!(read(&[&tail]).unwrap(), (content.to_vec(), input.len(), true));
            for at in 0..input.len() {
                let (first, second) = input.split_at(at);
                assert!(!read(&[first]).unwrap().2, "{at}");
                assert_eq!(read(&[first, second]).unwrap(), (content.to_vec(), input.len(), true), "{at}");
            }
            let single: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(read(&single).unwrap(), (content.to_vec(), input.len(), true));
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = [b"1;".as_slice(), &[b'x'; 20_000], b"\r\n"].concat();
        let cases: [&[u8]; 12] = [
            b"x",
            b"\r\n",
            b"5\nhello",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0",
            b"-1\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"1000000000000000\r\n",
            b"0\r\nx\n\r\n",
            b"5;a\nb\r\n",
            &long,
        ];
        for input in cases {
            assert!(read(&[input]).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut framing = Framing::Length(3);
        let first = framing.read(b"ab").unwrap();
        assert_eq!((first.data.as_deref(), first.used, framing.is_over()), (Some(&b"ab"[..]), 2, false));
        let last = framing.read(b"cd").unwrap();
        assert_eq!((last.data.as_deref(), last.used, framing.is_over()), (Some(&b"c"[..]), 1, true));
        assert!(Framing::Length(0).is_over() && !Framing::UntilEnd.is_over());
    }
}
