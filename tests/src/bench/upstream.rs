//! The cheapest upstream that speaks HTTP/1.1: one thread, prebuilt bytes. The query of the request says what
//! it answers: `bench=json`, `burst` (the events of a stream back to back), `paced` (20 ms between them),
//! `open` (a stream that stays).

use super::bodies;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Between two events of a paced stream.
pub const PACE: Duration = Duration::from_millis(20);
/// Between two events of a stream that stays open.
const LONG_PACE: Duration = Duration::from_secs(5);
/// Largest head that a request may have.
const HEAD: usize = 16 * 1024;

/// What is answered.
struct Answers {
    json: Vec<u8>,
    stream_head: Vec<u8>,
    /// As chunks of a chunked body; the last one carries the end.
    chunks: Vec<Vec<u8>>,
    delta: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let common = "request-id: req_011CBenchBenchBenchBench\r\nanthropic-organization-id: bench\r\n\
            server: bench\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\n";
        let body = bodies::answer();
        let mut json = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{common}\r\n",
            body.len()
        )
        .into_bytes();
        json.extend(body);
        let stream_head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
             transfer-encoding: chunked\r\n{common}\r\n"
        );
        let mut chunks: Vec<Vec<u8>> = bodies::events().iter().map(|event| chunk(event)).collect();
        if let Some(last) = chunks.last_mut() {
            last.extend(b"0\r\n\r\n");
        }
        Self { json, stream_head: stream_head.into_bytes(), chunks, delta: chunk(&bodies::delta()) }
    }
}

fn chunk(event: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", event.len()).into_bytes();
    out.extend(event);
    out.extend(b"\r\n");
    out
}

/// Starts it on a thread of its own; it lives as long as the program.
pub fn start() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("bind the upstream")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let answers = Arc::new(Answers::new());
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((socket, _)) = listener.accept().await {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move {
                    // A caller that goes away ends its connection; that is how slices end.
                    let _ = serve(socket, &answers).await;
                });
            }
        });
    })?;
    Ok(address)
}

async fn serve(mut socket: TcpStream, answers: &Answers) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD];
    let mut filled = 0;
    loop {
        let Some(end) = find(&buffer[..filled], b"\r\n\r\n").map(|at| at + 4) else {
            let read = socket.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            continue;
        };
        let head = &buffer[..end];
        let mode = mode(head);
        let mut left = content_length(head).saturating_sub(filled - end);
        filled = 0;
        while left > 0 {
            let read = socket.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            left = left.saturating_sub(read);
        }
        answer(&mut socket, mode, answers).await?;
    }
}

async fn answer(socket: &mut TcpStream, mode: u8, answers: &Answers) -> std::io::Result<()> {
    if mode == b'j' {
        return socket.write_all(&answers.json).await;
    }
    socket.write_all(&answers.stream_head).await?;
    if mode == b'o' {
        return stay_open(socket, answers).await;
    }
    let begin = tokio::time::Instant::now();
    for (at, chunk) in answers.chunks.iter().enumerate() {
        if mode == b'p' && at > 0 {
            tokio::time::sleep_until(begin + PACE * u32::try_from(at).unwrap_or_default()).await;
        }
        socket.write_all(chunk).await?;
    }
    Ok(())
}

async fn stay_open(socket: &mut TcpStream, answers: &Answers) -> std::io::Result<()> {
    for chunk in &answers.chunks[..3] {
        socket.write_all(chunk).await?;
    }
    let mut one = [0];
    loop {
        tokio::select! {
            read = socket.read(&mut one) => if read? == 0 { return Ok(()) },
            () = tokio::time::sleep(LONG_PACE) => socket.write_all(&answers.delta).await?,
        }
    }
}

/// The first letter of the mode; `j` if none is asked for.
fn mode(head: &[u8]) -> u8 {
    find(&head[..head.len().min(200)], b"bench=").and_then(|at| head.get(at + 6)).copied().unwrap_or(b'j')
}

/// The first place of `needle`.
pub fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, needle)
}

/// The value of Content-Length; 0 if there is none.
pub fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\ncontent-length:";
    let line = memchr::memchr_iter(b'\n', head)
        .find(|at| head.get(*at..*at + NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)));
    let Some(at) = line else { return 0 };
    let digits = head[at + NAME.len()..].iter().skip_while(|byte| **byte == b' ');
    digits.take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_understood() {
        let head = b"POST /v1/messages?bench=burst HTTP/1.1\r\nHost: a\r\nContent-Length: 1042\r\n\r\n";
        assert_eq!((content_length(head), mode(head)), (1042, b'b'));
        let bare = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!((content_length(bare), mode(bare)), (0, b'j'));
    }
}
