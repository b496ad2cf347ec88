//! The load: keep-alive connections that send the same bytes again and again, one request at a time each.

use super::bodies::EVENTS;
use super::upstream::{content_length, find};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// End of a chunked body, as every server here writes it.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A whole request as bytes.
pub type Request = Arc<[u8]>;

/// POST of `body` to `path` with `key`, with the headers that an SDK sends.
pub fn request(mode: &str, key: &str, body: &[u8]) -> Request {
    let head = format!(
        "POST /v1/messages?bench={mode} HTTP/1.1\r\nHost: bench.local\r\nAccept: application/json\r\n\
         Accept-Encoding: gzip, deflate\r\nUser-Agent: Anthropic/Python 0.71.0\r\nx-stainless-lang: python\r\n\
         x-stainless-os: Linux\r\nanthropic-version: 2023-06-01\r\nx-api-key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

/// What came of a slice of load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whole answers with status 200.
    pub answers: u64,
    /// Everything else; the first one in words.
    pub failed: u64,
    /// Why the first one failed.
    pub complaint: Option<String>,
    /// Events that the answers consisted of; 0 for JSON.
    pub events: u64,
    /// Microseconds of every answer, sorted.
    pub latencies: Vec<u32>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    /// The latency below which `share` of the answers were.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }

    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.failed += other.failed;
        self.events += other.events;
        self.latencies.extend(other.latencies);
        self.complaint = self.complaint.take().or(other.complaint);
    }
}

/// The `share` quantile of sorted values.
pub fn quantile(sorted: &[u32], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a list that fits into memory"
    )]
    let at = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(at).copied().map_or(f64::NAN, f64::from)
}

/// Connections to one server.
pub struct Connections {
    address: SocketAddr,
    all: Vec<Connection>,
}

struct Connection {
    socket: TcpStream,
    request: Request,
    buffer: Vec<u8>,
}

impl Connections {
    /// One connection for each request.
    pub async fn open(address: SocketAddr, requests: &[Request]) -> Result<Self> {
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let buffer = vec![0; 16 * 1024];
            all.push(Connection { socket: connect(address).await?, request: Arc::clone(request), buffer });
        }
        Ok(Self { address, all })
    }

    /// Loads the server for `time`; connections begin spread over `stagger`, and every request that was begun
    /// is finished.
    pub async fn run(&mut self, time: Duration, stagger: Duration) -> Result<Outcome> {
        let begin = Instant::now();
        let count = u32::try_from(self.all.len())?.max(1);
        let mut tasks = tokio::task::JoinSet::new();
        for (at, connection) in self.all.drain(..).enumerate() {
            let delay = stagger * u32::try_from(at)? / count;
            tasks.spawn(drive(connection, self.address, begin + delay, begin + time));
        }
        let mut sum = Outcome::default();
        while let Some(ended) = tasks.join_next().await {
            let (connection, outcome) = ended??;
            self.all.push(connection);
            sum.add(outcome);
        }
        sum.elapsed = begin.elapsed();
        sum.latencies.sort_unstable();
        Ok(sum)
    }

    /// Sends every request once, at most `at_once` at the same time, and reads the answers.
    pub async fn once(&mut self, at_once: usize) -> Result<()> {
        for group in self.all.chunks_mut(at_once) {
            let answers = futures_util::future::join_all(group.iter_mut().map(Connection::exchange)).await;
            for answer in answers {
                let answer = answer?;
                if answer.status != 200 {
                    bail!("status {}: {}", answer.status, answer.text);
                }
            }
        }
        Ok(())
    }

    /// Sends every request once and reads until each answer has begun; the streams stay open.
    pub async fn begin_streams(&mut self) -> Result<()> {
        for connection in &mut self.all {
            connection.socket.write_all(&connection.request).await?;
            let read =
                tokio::time::timeout(PATIENCE, connection.socket.read(&mut connection.buffer)).await??;
            let head = &connection.buffer[..read];
            if !head.starts_with(b"HTTP/1.1 200") {
                bail!("a stream did not begin: {}", String::from_utf8_lossy(&head[..read.min(600)]));
            }
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn drive(
    mut connection: Connection,
    address: SocketAddr,
    begin: Instant,
    end: Instant,
) -> Result<(Connection, Outcome)> {
    let mut outcome = Outcome::default();
    tokio::time::sleep_until(begin.into()).await;
    while Instant::now() < end {
        let sent = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, connection.exchange()).await;
        match answer.context("no answer").and_then(|answer| answer) {
            Ok(answer) if answer.status == 200 => {
                outcome.answers += 1;
                outcome.events += if answer.chunked { EVENTS as u64 } else { 0 };
                outcome.latencies.push(u32::try_from(sent.elapsed().as_micros())?);
            }
            Ok(answer) => outcome.fail(format!("status {}: {}", answer.status, answer.text)),
            Err(error) => {
                outcome.fail(format!("{error:#}"));
                connection.socket = connect(address).await?;
            }
        }
    }
    Ok((connection, outcome))
}

impl Outcome {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.complaint.get_or_insert(why);
    }
}

struct Answer {
    status: u16,
    chunked: bool,
    /// The beginning of an answer that is not 200.
    text: String,
}

impl Connection {
    async fn exchange(&mut self) -> Result<Answer> {
        self.socket.write_all(&self.request).await?;
        let mut filled = 0;
        let end = loop {
            let read = self.socket.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the connection was closed");
            }
            filled += read;
            if let Some(at) = find(&self.buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = &self.buffer[..end];
        let status = std::str::from_utf8(head.get(9..12).unwrap_or_default())?.parse()?;
        let chunked = find(head, b"chunked").is_some();
        if chunked {
            self.read_chunks(end, filled).await?;
        } else {
            let mut left = (end + content_length(head)).saturating_sub(filled);
            while left > 0 {
                let read = self.socket.read(&mut self.buffer[end..]).await?;
                if read == 0 {
                    bail!("the connection was closed within an answer");
                }
                left = left.saturating_sub(read);
                filled = end + read;
            }
        }
        let text = if status == 200 { String::new() } else { self.beginning(end, filled) };
        Ok(Answer { status, chunked, text })
    }

    fn beginning(&self, end: usize, filled: usize) -> String {
        String::from_utf8_lossy(&self.buffer[end..filled.min(end + 400)]).into_owned()
    }

    /// Reads to the last chunk; only the tail is kept.
    async fn read_chunks(&mut self, head: usize, filled: usize) -> Result<()> {
        // The blank line of the head may be the beginning of the end of an empty body.
        let mut filled = filled;
        let mut from = head - 2;
        while !self.buffer[from..filled].ends_with(LAST_CHUNK) {
            let keep = (filled - from).min(LAST_CHUNK.len());
            self.buffer.copy_within(filled - keep..filled, 0);
            let read = self.socket.read(&mut self.buffer[keep..]).await?;
            if read == 0 {
                bail!("the stream was cut");
            }
            (from, filled) = (0, keep + read);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{bodies, upstream};
    use super::*;

    #[tokio::test]
    async fn whole_answers_are_counted_in_every_mode() {
        let address = upstream::start().unwrap();
        for (mode, stream) in [("json", false), ("burst", true), ("paced", true)] {
            let bodies = [bodies::small("s", stream), bodies::large("s", stream)];
            let requests = bodies.map(|body| request(mode, "k", &body));
            let mut connections = Connections::open(address, &requests).await.unwrap();
            let outcome = connections.run(Duration::from_millis(30), Duration::from_millis(5)).await.unwrap();
            assert_eq!((outcome.failed, outcome.complaint.as_deref()), (0, None), "{mode}");
            assert!(outcome.answers >= 2, "{mode}");
            let each = if stream { EVENTS as u64 } else { 0 };
            assert_eq!(outcome.events, outcome.answers * each, "{mode}");
        }
        let mut open = Connections::open(address, &[request("open", "k", b"{}")]).await.unwrap();
        open.begin_streams().await.unwrap();
    }

    #[test]
    fn quantiles() {
        assert!((quantile(&[1, 2, 3, 4, 5], 0.5) - 3.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
