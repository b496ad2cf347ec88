//! The server with a trivial handler, against raw sockets.

mod fuzz;

use super::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

const PATIENCE: Duration = Duration::from_secs(5);
const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl LastWords for Body {
    fn last_words(&mut self) -> Option<Bytes> {
        None
    }
}

/// The mark of answers to strangers.
#[derive(Clone)]
struct Unknown;

/// A server whose handler answers `/stream` with what the test sends, `/hang` never, and all else with "ok".
struct Fixture {
    address: SocketAddr,
    drain: CancellationToken,
    metrics: Arc<Metrics>,
    chunks: mpsc::Sender<Bytes>,
    cut: tokio::task::JoinHandle<usize>,
}

fn settings() -> Settings {
    Settings {
        header_read_timeout: PATIENCE,
        keep_alive_timeout: PATIENCE,
        stranger_keep_alive: PATIENCE,
        linger_timeout: PATIENCE,
        send_timeout: PATIENCE,
        max_header_bytes: 16 * 1024,
        max_headers: 100,
        head_refused: |status, _| ("text/plain", format!("refused: {status}").into()),
        connections: Arc::new(Semaphore::new(64)),
        strangers: Strangers::default(),
        strangers_per_address: 0,
        is_stranger: |answer| answer.get::<Unknown>().is_some(),
        drain_timeout: PATIENCE,
        hurry: CancellationToken::new(),
        metrics: Metrics::install().0,
    }
}

fn start(change: impl FnOnce(&mut Settings)) -> Fixture {
    let mut settings = settings();
    change(&mut settings);
    let metrics = Arc::clone(&settings.metrics);
    let (address, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    listen(&sockets[0]).unwrap();
    let (chunks, received) = mpsc::channel::<Bytes>(8);
    let received = Rc::new(RefCell::new(Some(received)));
    let handler = move |request: Request<Incoming>, _peer| {
        let received = Rc::clone(&received);
        async move {
            let body: Body = match request.uri().path() {
                "/stream" => {
                    let mut received = received.borrow_mut().take().unwrap();
                    let stream = futures_util::stream::poll_fn(move |cx| {
                        received.poll_recv(cx).map(|c| c.map(|c| Ok(http_body::Frame::data(c))))
                    });
                    StreamBody::new(stream).boxed_unsync()
                }
                "/flood" => {
                    let block = Bytes::from(vec![b'x'; 1 << 20]);
                    let blocks =
                        futures_util::stream::repeat_with(move || Ok(http_body::Frame::data(block.clone())));
                    StreamBody::new(blocks).boxed_unsync()
                }
                "/hang" => std::future::pending().await,
                _ => Full::from("ok").boxed_unsync(),
            };
            let mut response = Response::new(body);
            if request.uri().path() == "/stranger" {
                response.extensions_mut().insert(Unknown);
            }
            response
        }
    };
    let drain = CancellationToken::new();
    let running = Server::new(settings).run(sockets.remove(0).into(), handler, drain.clone());
    let cut = tokio::task::spawn_local(async move { running.await.unwrap() });
    Fixture { address, drain, metrics, chunks, cut }
}

async fn connect(fixture: &Fixture, send: &str) -> TcpStream {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(send.as_bytes()).await.unwrap();
    stream
}

/// Reads until `end` was seen, or to the end of the connection.
async fn read(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(end) || end.is_empty() {
        match stream.read_buf(&mut seen).await {
            Ok(read) if read > 0 => {}
            _ => break,
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(async { tokio::time::timeout(PATIENCE * 2, test).await.unwrap() }).await;
}

#[tokio::test]
async fn drain_lets_a_body_end_closes_idle_ones_and_takes_no_new_ones() {
    local(async {
        let fixture = start(|_| {});
        let mut idle = connect(&fixture, GET).await;
        assert!(read(&mut idle, "ok").await.starts_with("HTTP/1.1 200"));
        let mut unused = connect(&fixture, "").await;
        let mut busy = connect(&fixture, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
        fixture.chunks.send(Bytes::from("one ")).await.unwrap();
        assert!(read(&mut busy, "one \r\n").await.contains("chunked"));

        fixture.drain.cancel();
        assert_eq!(read(&mut idle, "").await, "");
        assert_eq!(read(&mut unused, "").await, "");
        assert!(TcpStream::connect(fixture.address).await.is_err());
        assert!(!fixture.cut.is_finished());

        fixture.chunks.send(Bytes::from("two")).await.unwrap();
        drop(fixture.chunks);
        // The whole answer, its proper end, and then the end of the connection.
        assert_eq!(read(&mut busy, "").await, "3\r\ntwo\r\n0\r\n\r\n");
        assert_eq!(fixture.cut.await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_first_request_that_comes_with_the_drain_is_answered() {
    local(async {
        let fixture = start(|_| {});
        // Accepted, with nothing read of it; then the drain begins, and only then the request comes.
        let mut fresh = connect(&fixture, "").await;
        let mut known = connect(&fixture, GET).await;
        assert!(read(&mut known, "ok").await.starts_with("HTTP/1.1 200"));
        fixture.drain.cancel();
        assert_eq!(read(&mut known, "").await, "", "the drain has begun");
        fresh.write_all(GET.as_bytes()).await.unwrap();
        let answer = read(&mut fresh, "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        assert_eq!(fixture.cut.await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn drain_has_a_deadline_and_can_be_hurried() {
    local(async {
        let fixture = start(|settings| settings.drain_timeout = Duration::from_millis(20));
        let mut stuck = connect(&fixture, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
        while !running(&fixture) {
            tokio::task::yield_now().await;
        }
        fixture.drain.cancel();
        assert_eq!(fixture.cut.await.unwrap(), 1);
        assert_eq!(read(&mut stuck, "").await, "");
    })
    .await;
    local(async {
        let hurry = CancellationToken::new();
        let fixture = start(|settings| settings.hurry = hurry.clone());
        let _stuck = connect(&fixture, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
        while !running(&fixture) {
            tokio::task::yield_now().await;
        }
        fixture.drain.cancel();
        hurry.cancel();
        assert_eq!(fixture.cut.await.unwrap(), 1);
    })
    .await;
}

/// Whether a request is being answered: the guard is one of the counted references.
fn running(fixture: &Fixture) -> bool {
    Arc::strong_count(&fixture.metrics) > 4
}

#[tokio::test]
async fn heads_are_bounded() {
    local(async {
        let fixture = start(|_| {});
        let bomb = format!("GET / HTTP/1.1\r\nhost: x\r\nbomb: {}\r\n\r\n", "x".repeat(64 * 1024));
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        // It may be refused before the last byte is written.
        let _ = stream.write_all(bomb.as_bytes()).await;
        let answer = read(&mut stream, "").await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.ends_with("\r\n\r\nrefused: 431"), "{answer}");

        let many: String = (0..200).map(|n| format!("h{n}: 1\r\n")).collect();
        let mut stream = connect(&fixture, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
        let answer = read(&mut stream, "").await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.ends_with("\r\n\r\nrefused: 431"), "{answer}");

        let mut stream = connect(&fixture, "\u{1}\u{2}garbage\r\n\r\n").await;
        assert!(read(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let mut fine = connect(&fixture, GET).await;
        assert!(read(&mut fine, "ok").await.starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn a_slow_head_is_closed_also_between_requests() {
    local(async {
        let fixture = start(|settings| settings.header_read_timeout = Duration::from_millis(60));
        let mut silent = connect(&fixture, "").await;
        let mut first = connect(&fixture, "GET / HT").await;
        let mut second = connect(&fixture, GET).await;
        read(&mut second, "ok").await;
        second.write_all(b"GET /").await.unwrap();
        for stream in [&mut silent, &mut first, &mut second] {
            assert_eq!(read(stream, "").await, "");
        }
    })
    .await;
}

#[tokio::test]
async fn a_resting_connection_lives_longer_than_a_slow_head_but_not_for_ever() {
    local(async {
        let fixture = start(|settings| {
            settings.header_read_timeout = Duration::from_millis(40);
            settings.keep_alive_timeout = Duration::from_millis(400);
        });
        let mut stream = connect(&fixture, GET).await;
        read(&mut stream, "ok").await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(read(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
        assert_eq!(read(&mut stream, "").await, "");
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_takes_no_bytes_is_let_go() {
    local(async {
        let fixture = start(|settings| settings.send_timeout = Duration::from_millis(60));
        let stream = connect(&fixture, "GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
        while !running(&fixture) {
            tokio::task::yield_now().await;
        }
        while running(&fixture) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn connections_are_bounded() {
    local(async {
        let fixture = start(|settings| settings.connections = Arc::new(Semaphore::new(1)));
        let mut first = connect(&fixture, GET).await;
        read(&mut first, "ok").await;
        let mut second = connect(&fixture, GET).await;
        let early = tokio::time::timeout(Duration::from_millis(50), read(&mut second, "ok")).await;
        assert!(early.is_err(), "the second waits in the queue");
        drop(first);
        assert!(read(&mut second, "ok").await.starts_with("HTTP/1.1 200"));
    })
    .await;
}

const STRANGER: &str = "GET /stranger HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn one_address_has_so_many_connections_without_a_key() {
    local(async {
        let fixture = start(|settings| settings.strangers_per_address = 2);
        let mut first = connect(&fixture, STRANGER).await;
        assert!(read(&mut first, "ok").await.starts_with("HTTP/1.1 200"));
        let mut second = connect(&fixture, GET).await;
        assert!(read(&mut second, "ok").await.starts_with("HTTP/1.1 200"));
        // The second is known, and so is one with an answer under way.
        let mut third = connect(&fixture, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
        fixture.chunks.send(Bytes::from("one ")).await.unwrap();
        read(&mut third, "one \r\n").await;
        let mut fourth = connect(&fixture, STRANGER).await;
        assert!(read(&mut fourth, "ok").await.starts_with("HTTP/1.1 200"));
        let mut fifth = connect(&fixture, GET).await;
        assert_eq!(read(&mut fifth, "ok").await, "", "two of this address rest without a key");
        // One of them shows its key.
        first.write_all(GET.as_bytes()).await.unwrap();
        assert!(read(&mut first, "ok").await.starts_with("HTTP/1.1 200"));
        let mut sixth = connect(&fixture, GET).await;
        assert!(read(&mut sixth, "ok").await.starts_with("HTTP/1.1 200"));
        drop(third);
    })
    .await;
}

#[tokio::test]
async fn a_stranger_rests_for_a_moment_only() {
    local(async {
        let fixture = start(|settings| settings.stranger_keep_alive = Duration::from_millis(50));
        let mut known = connect(&fixture, GET).await;
        read(&mut known, "ok").await;
        let mut stranger = connect(&fixture, STRANGER).await;
        read(&mut stranger, "ok").await;
        assert_eq!(read(&mut stranger, "").await, "", "closed");
        for request in [STRANGER, GET] {
            known.write_all(request.as_bytes()).await.unwrap();
            assert!(read(&mut known, "ok").await.starts_with("HTTP/1.1 200"), "once known, known");
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_line_after_a_body_is_no_slow_head() {
    local(async {
        let fixture = start(|settings| settings.header_read_timeout = Duration::from_millis(40));
        let mut stream = connect(&fixture, &format!("{GET}\r\n")).await;
        read(&mut stream, "ok").await;
        stream.write_all(b"\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(read(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_arrives() {
    local(async {
        let fixture = start(|_| {});
        let mut stream =
            connect(&fixture, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n").await;
        // Written while the answer and the end of the connection are on their way.
        let body = vec![b'x'; 2_000_000];
        stream.write_all(&body).await.expect("it is taken though nobody reads it");
        let answer = read(&mut stream, "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    })
    .await;
    local(async {
        let fixture = start(|settings| settings.linger_timeout = Duration::from_millis(30));
        let mut stream =
            connect(&fixture, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n").await;
        assert!(read(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
        // The connection is let go, and its references with it.
        while Arc::strong_count(&fixture.metrics) > 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn threads_share_a_port() {
    let (address, listeners) = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
    assert!(listeners.iter().all(|one| one.local_addr().unwrap() == address.into()));
    assert!(address.port() > 0);
}
