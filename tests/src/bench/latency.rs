//! One request at a time over one connection, with blocking calls: as little of our own as possible between
//! the clock and the server.

use super::upstream::{content_length, find};
use anyhow::{Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A connection that is asked one thing at a time.
pub struct Caller {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// Nanoseconds, sorted.
#[derive(Default)]
pub struct Times {
    /// To the first byte of the answer.
    pub first: Vec<u32>,
    /// To its end.
    pub whole: Vec<u32>,
}

impl Caller {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Asks again and again for `time`.
    pub fn measure(&mut self, request: &[u8], time: Duration) -> Result<Times> {
        let end = Instant::now() + time;
        let mut times = Times::default();
        while Instant::now() < end {
            let (first, whole) = self.ask(request)?;
            times.first.push(u32::try_from(first.as_nanos())?);
            times.whole.push(u32::try_from(whole.as_nanos())?);
        }
        times.first.sort_unstable();
        times.whole.sort_unstable();
        Ok(times)
    }

    fn ask(&mut self, request: &[u8]) -> Result<(Duration, Duration)> {
        let begin = Instant::now();
        self.socket.write_all(request)?;
        let mut filled = self.socket.read(&mut self.buffer)?;
        let first = begin.elapsed();
        loop {
            let text = &self.buffer[..filled];
            if let Some(at) = find(text, b"\r\n\r\n") {
                let head = &text[..at + 4];
                if !head.starts_with(b"HTTP/1.1 200") {
                    bail!("{}", String::from_utf8_lossy(&text[..filled.min(600)]));
                }
                let whole = if find(head, b"chunked").is_some() {
                    text.ends_with(b"\r\n0\r\n\r\n")
                } else {
                    filled >= at + 4 + content_length(head)
                };
                if whole {
                    return Ok((first, begin.elapsed()));
                }
            }
            let read = self.socket.read(&mut self.buffer[filled..])?;
            if read == 0 {
                bail!("the connection was closed");
            }
            filled += read;
        }
    }
}
