//! The client against real sockets that follow a script.

use super::*;
use crate::table::fixtures;
use crate::table::{Secret, Upstream};
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use contract::table::Provider;
use http::{HeaderValue, Method, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

mod fuzz;
mod through;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn provider(id: i64) -> Provider {
    Provider { base_url: "https://api.example".into(), ..fixtures::provider(id) }
}

pub(crate) fn upstream(row: Provider) -> Upstream {
    Upstream::new(row, Secret::new("s3cret")).unwrap()
}

fn at(base_url: String) -> Upstream {
    upstream(Provider { base_url, ..provider(1) })
}

pub(crate) fn settings() -> Settings {
    Settings {
        tls: Tls::new(None).unwrap(),
        connect_timeout: PATIENCE,
        keep_alive: PATIENCE,
        max_age: PATIENCE,
        max_idle: 8,
        names_ttl: PATIENCE,
        trouble: Default::default(),
        metrics: Metrics::install().0,
    }
}

fn client(change: impl FnOnce(&mut Settings)) -> Client {
    let mut settings = settings();
    change(&mut settings);
    Client::new(settings)
}

pub(crate) fn post(body: impl Into<Bytes>) -> Outgoing {
    let mut writer = outgoing::Writer::new(&Method::POST, "/v1/messages", 0);
    writer.header("host", &HeaderValue::from_static("upstream"));
    writer.end(body.into())
}

/// Listens and plays `script` for every connection; counts them.
async fn play<F>(script: impl Fn(usize, TcpStream) -> F + 'static) -> (Upstream, Rc<Cell<usize>>)
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = at(format!("http://{}", listener.local_addr().unwrap()));
    let connections = Rc::new(Cell::new(0));
    let counter = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let index = counter.get();
            counter.set(index + 1);
            tokio::task::spawn_local(script(index, stream));
        }
    });
    (up, connections)
}

/// Reads one request with a content-length (or none); `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
}

async fn write(stream: &mut TcpStream, text: &str) {
    // The other side may be gone: that is what some tests are about.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Answers every request of a connection with `answer`.
async fn answer_all(mut stream: TcpStream, answer: &'static str) {
    while read_request(&mut stream).await.is_some() {
        write(&mut stream, answer).await;
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(async { tokio::time::timeout(PATIENCE * 2, test).await.unwrap() }).await;
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_is_used_again() {
    local(async {
        let (up, connections) = play(|_, stream| answer_all(stream, OK)).await;
        let client = client(|_| {});
        for round in 0..5 {
            let response = client.send(&up, post("{}"), PATIENCE).await.unwrap();
            assert_eq!(response.body().reused(), round > 0);
            assert_eq!(text(response).await, "ok");
        }
        assert_eq!(connections.get(), 1);
        assert_eq!(client.resting(), 1);
    })
    .await;
}

#[tokio::test]
async fn bodies_of_every_framing_end_well() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "hello",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n",
            "hello",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", false),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", "hello", false),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok", true),
    ];
    for (answer, expected, kept) in cases {
        local(async move {
            let (up, connections) = play(move |_, mut stream| async move {
                while read_request(&mut stream).await.is_some() {
                    write(&mut stream, answer).await;
                    if !kept {
                        return;
                    }
                }
            })
            .await;
            let client = client(|_| {});
            for _ in 0..2 {
                let response = client.send(&up, post("{}"), PATIENCE).await.unwrap();
                assert_eq!(text(response).await, expected, "{answer:?}");
            }
            assert_eq!(connections.get(), if kept { 1 } else { 2 }, "{answer:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_cut_body_is_incomplete_not_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        local(async move {
            let (up, _) = play(move |_, mut stream| async move {
                read_request(&mut stream).await;
                write(&mut stream, answer).await;
            })
            .await;
            let client = client(|_| {});
            let mut body = client.send(&up, post("{}"), PATIENCE).await.unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
            let failure = body.frame().await.unwrap().unwrap_err();
            assert_eq!(failure.class, FailureClass::Incomplete, "{failure}");
            assert!(body.frame().await.is_none());
            assert_eq!(client.resting(), 0);
        })
        .await;
    }
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once_and_only_if_nothing_came() {
    local(async {
        // The first connection answers once and then closes on the next request without a byte.
        let (up, connections) = play(|index, mut stream| async move {
            read_request(&mut stream).await;
            write(&mut stream, OK).await;
            if index > 0 {
                answer_all(stream, OK).await;
            } else {
                read_request(&mut stream).await;
            }
        })
        .await;
        let client = client(|_| {});
        text(client.send(&up, post("{}"), PATIENCE).await.unwrap()).await;
        let response = client.send(&up, post("{\"big\":1}"), PATIENCE).await.unwrap();
        assert!(!response.body().reused());
        assert_eq!(text(response).await, "ok");
        assert_eq!(connections.get(), 2);
    })
    .await;
    local(async {
        // A byte of an answer came: the upstream took the request up, and may charge for it.
        let (up, connections) = play(|_, mut stream| async move {
            read_request(&mut stream).await;
            write(&mut stream, OK).await;
            read_request(&mut stream).await;
            write(&mut stream, "HTTP/1.1 2").await;
        })
        .await;
        let client = client(|_| {});
        text(client.send(&up, post("{}"), PATIENCE).await.unwrap()).await;
        let failure = client.send(&up, post("{}"), PATIENCE).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Incomplete, "{failure}");
        assert_eq!(connections.get(), 1);
    })
    .await;
    local(async {
        // A fresh connection that breaks is a failure, not a reason to send twice.
        let (up, connections) = play(|_, mut stream| async move {
            read_request(&mut stream).await;
        })
        .await;
        let failure = client(|_| {}).send(&up, post("{}"), PATIENCE).await.err().unwrap();
        assert!(matches!(failure.class, FailureClass::Incomplete | FailureClass::Reset), "{failure}");
        assert_eq!(connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn every_wait_has_a_limit() {
    local(async {
        let (up, _) = play(|_, mut stream| async move {
            read_request(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let failure = client(|_| {}).send(&up, post("{}"), Duration::from_millis(20)).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Timeout(Stage::Head));
    })
    .await;
    local(async {
        let (up, _) = play(|_, mut stream| async move {
            read_request(&mut stream).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
            std::future::pending::<()>().await;
        })
        .await;
        let client = client(|_| {});
        let mut body = client.send(&up, post("{}"), PATIENCE).await.unwrap().into_body();
        body.set_idle_timeout(Duration::from_millis(20));
        assert!(body.frame().await.unwrap().is_ok());
        let failure = body.frame().await.unwrap().unwrap_err();
        assert_eq!(failure.class, FailureClass::Timeout(Stage::Idle));
        assert!(body.is_end_stream());
    })
    .await;
    local(async {
        // TLS that never answers: the listener takes the connection and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let up = at(format!("https://{}", listener.local_addr().unwrap()));
        let client = client(|settings| settings.connect_timeout = Duration::from_millis(20));
        let failure = client.send(&up, post("{}"), PATIENCE).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Timeout(Stage::Connect));
    })
    .await;
}

#[tokio::test]
async fn idle_time_counts_from_the_last_frame() {
    local(async {
        let (up, _) = play(|_, mut stream| async move {
            read_request(&mut stream).await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                write(&mut stream, "1\r\nx\r\n").await;
            }
            write(&mut stream, "0\r\n\r\n").await;
        })
        .await;
        let client = client(|_| {});
        let mut response = client.send(&up, post("{}"), PATIENCE).await.unwrap();
        // All frames together take longer than the limit, each pause far less, on a busy machine too.
        response.body_mut().set_idle_timeout(Duration::from_secs(2));
        assert_eq!(text(response).await, "xxxxxxxx");
    })
    .await;
}

#[tokio::test]
async fn unreachable_is_told_apart() {
    async fn failure(up: &Upstream) -> FailureClass {
        Box::pin(client(|_| {}).send(up, post("{}"), PATIENCE)).await.err().unwrap().class
    }
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(failure(&at(format!("http://{address}"))).await, FailureClass::Connect);
        assert_eq!(failure(&at("http://nowhere.invalid".into())).await, FailureClass::Dns);
        let (up, _) =
            play(|_, mut stream| async move { write(&mut stream, "SSH-2.0-OpenSSH\r\n").await }).await;
        assert_eq!(failure(&up).await, FailureClass::Protocol);
        let https = at(up.row.base_url.replace("http://", "https://"));
        assert_eq!(failure(&https).await, FailureClass::Tls);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_body_closes_the_connection_at_once() {
    local(async {
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let closed = Cell::new(Some(closed));
        let (up, _) = play(move |_, mut stream| {
            let closed = closed.take();
            async move {
                read_request(&mut stream).await;
                write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
                // Ends when the other side does.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                let _ = closed.map(|closed| closed.send(Instant::now()));
            }
        })
        .await;
        let client = client(|_| {});
        let mut body = client.send(&up, post("{}"), PATIENCE).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        let dropped = Instant::now();
        drop(body);
        let seen = is_closed.await.unwrap();
        assert!(seen - dropped < Duration::from_millis(200));
        assert_eq!(client.resting(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_request_closes_the_connection_at_once() {
    local(async {
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let closed = Cell::new(Some(closed));
        let (up, _) = play(move |_, mut stream| {
            let closed = closed.take();
            async move {
                read_request(&mut stream).await;
                let gone = read_request(&mut stream).await.is_none();
                let _ = closed.map(|closed| closed.send(gone));
            }
        })
        .await;
        let client = client(|_| {});
        // Polled until the request is out, then dropped as hyper does when the caller hangs up.
        let went_out = Cell::new(false);
        let waited = Box::pin(client.send_marking(&up, post("{}"), PATIENCE, &went_out));
        assert!(tokio::time::timeout(Duration::from_millis(30), waited).await.is_err());
        assert!(is_closed.await.unwrap());
        assert!(went_out.get(), "it is paid for");
    })
    .await;
}

#[tokio::test]
async fn what_the_upstream_did_not_take_is_not_with_it() {
    local(async {
        let (up, _) = play(|_, stream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .await;
        let (client, went_out) = (client(|_| {}), Cell::new(false));
        let large = post(vec![b'x'; 64 << 20]);
        let waited = Box::pin(client.send_marking(&up, large, PATIENCE, &went_out));
        assert!(tokio::time::timeout(Duration::from_millis(30), waited).await.is_err());
        assert!(!went_out.get());
    })
    .await;
}

#[tokio::test]
async fn resting_connections_are_bounded_and_grow_old() {
    local(async {
        let (up, connections) = play(|_, stream| answer_all(stream, OK)).await;
        let client = client(|settings| {
            settings.max_idle = 2;
            settings.keep_alive = Duration::from_millis(100);
        });
        let at_once =
            (0..3).map(|_| Box::pin(async { client.send(&up, post("{}"), PATIENCE).await.unwrap() }));
        for response in futures_util::future::join_all(at_once).await {
            assert_eq!(text(response).await, "ok");
        }
        assert_eq!(connections.get(), 3);
        assert_eq!(client.resting(), 2);
        while client.resting() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_never_idle_grows_old_as_well() {
    local(async {
        for (max_age, made) in [(PATIENCE, 1), (Duration::ZERO, 3)] {
            let (up, connections) = play(|_, stream| answer_all(stream, OK)).await;
            let client = client(|settings| settings.max_age = max_age);
            for _ in 0..3 {
                assert_eq!(text(client.send(&up, post("{}"), PATIENCE).await.unwrap()).await, "ok");
            }
            assert_eq!(connections.get(), made, "{max_age:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_in_flight_is_small() {
    local(async {
        let (client, up) = (client(|_| {}), at("http://127.0.0.1:9".into()));
        // Part of every request's future; connecting is the cold arm and boxed.
        let size = size_of_val(&client.send_marking(&up, post("{}"), PATIENCE, &Cell::default()));
        assert!(size <= 3 * 1024, "{size} bytes");
    })
    .await;
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    local(async {
        let (up, _) = play(|_, mut stream| async move {
            let request = read_request(&mut stream).await.unwrap();
            let length = request.split_once("\r\n\r\n").unwrap().1.len().to_string();
            write(
                &mut stream,
                &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}", length.len()),
            )
            .await;
        })
        .await;
        let response = client(|_| {}).send(&up, post(vec![b'x'; 3_000_000]), PATIENCE).await.unwrap();
        assert_eq!(text(response).await, "3000000");
    })
    .await;
}

#[test]
fn a_wrong_authority_file_is_named() {
    let missing = Tls::new(Some("/nowhere/ca.pem".as_ref())).err().unwrap().to_string();
    assert!(missing.starts_with("UPSTREAM_CA_FILE is wrong"), "{missing}");
    let empty = std::env::temp_dir().join(format!("switchyard-empty-{}.pem", std::process::id()));
    std::fs::write(&empty, "no certificate").unwrap();
    let error = Tls::new(Some(&empty)).err().unwrap().to_string();
    std::fs::remove_file(&empty).unwrap();
    assert!(error.contains("holds no usable certificate"), "{error}");
}
