//! Callers who send what no client should: each gets a clear answer in its dialect or a closed connection, memory
//! stays bounded, and the proxy goes on serving others.

use crate::answers::{Dialect, Read, read};
use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result, ensure};
use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::json;
use std::time::Duration;
use testkit::client::http;
use testkit::fleet::{Fleet, Plan};
use testkit::upstream::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;
/// Names and values.
type Headers = &'static [(&'static str, &'static str)];
/// Longer than any timeout that these tests set.
const PATIENCE: Duration = Duration::from_secs(20);

fn small() -> Plan {
    Fleet::plan().proxies(1).without_redis()
}

/// The proxy still answers, and how much memory it has, in MiB.
async fn alive(scene: &Scene) -> Result<u64> {
    ensure!(scene.alice(0).status(CLAUDE).await? == 200, "it does not serve any more");
    let process = scene.fleet.proxies[0].process.as_ref().context("the proxy")?;
    Ok(process.rss_kib().unwrap_or_default() / 1024)
}

async fn post(scene: &Scene, dialect: Dialect, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Read> {
    let mut request = scene.alice(0).post(dialect.path()).header(CONTENT_TYPE, "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(read(request.send().await?).await)
}

/// Sends bytes on a connection of its own; all that comes back until it is closed or an answer stands there.
async fn raw(scene: &Scene, bytes: &[u8]) -> Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", scene.fleet.proxies[0].port())).await?;
    // The proxy may have heard enough before all is sent.
    let _ = socket.write_all(bytes).await;
    answer_of(&mut socket).await
}

async fn answer_of(socket: &mut TcpStream) -> Result<String> {
    let mut all = Vec::new();
    let complete = |all: &[u8]| {
        let text = String::from_utf8_lossy(all);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        length.is_some_and(|length: usize| body.len() >= length)
    };
    let reading = async {
        while !complete(&all) {
            let mut piece = [0; 4096];
            match socket.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend_from_slice(&piece[..count]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.context("neither an answer nor an end")?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// The status of a raw answer; 0 for none.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

fn head(scene: &Scene, more: &str) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n{more}",
        scene.key
    )
}

#[tokio::test]
async fn bodies_of_50_mb_pass_and_are_forgotten() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let before = alive(&scene).await?;
    let mut body = Dialect::Messages.question(false);
    body["messages"][0]["content"] = "x".repeat(50 * MIB).into();
    let body = serde_json::to_vec(&body)?;
    for _ in 0..2 {
        let answer = post(&scene, Dialect::Messages, &[], body.clone()).await?;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(scene.upstream.requests().last().map(|seen| seen.body.len()), Some(body.len()));
        scene.upstream.reset();
    }
    let after = alive(&scene).await?;
    assert!(after < before + 250, "{before} MiB before, {after} MiB after two bodies of 50 MiB");
    Ok(())
}

#[tokio::test]
async fn answers_that_memory_cannot_hold_go_out_as_they_come() -> Result<()> {
    let scene = Scene::open(small().proxy_env("BODY_BUDGET_BYTES", &MIB.to_string())).await?;
    let text = "y".repeat(3 * MIB);
    let whole = Answer::ok().text(text.clone());
    let cut = Answer::ok().text(text).cut(2 * MIB);
    // With room a cut document is held back and tried again; here its caller has a part of it already.
    for (step, is_broken) in [(whole, false), (cut, true)] {
        scene.upstream.script([step]);
        let answer = post(&scene, Dialect::Messages, &[], question()?).await?;
        assert_eq!((answer.status, answer.broken), (200, is_broken));
        assert!(answer.text.len() > MIB);
    }
    // What was taken is given back.
    alive(&scene).await?;
    scene.fleet.expect_records("outcome = 'completed'", 2).await
}

fn question() -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Dialect::Messages.question(false))?)
}

#[tokio::test]
async fn bodies_over_the_bound_are_refused_in_the_callers_dialect() -> Result<()> {
    let scene = Scene::open(small().proxy_env("MAX_BODY_BYTES", &(4 * MIB).to_string())).await?;
    let before = alive(&scene).await?;
    let claims = format!("content-length: {}\r\n\r\n{{\"model\":", 50 * MIB);
    let answer = raw(&scene, head(&scene, &claims).as_bytes()).await?;
    assert_eq!(status(&answer), 413, "announced as too long: {answer}");
    let mut chunked = head(&scene, "transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..70 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    let answer = raw(&scene, &chunked).await?;
    assert_eq!(status(&answer), 413, "too long without announcement: {answer}");
    let zeros = vec![b' '; 64 * MIB];
    let mut bombs = [Vec::new(), Vec::new()];
    GzipEncoder::new(zeros.as_slice()).read_to_end(&mut bombs[0]).await?;
    ZstdEncoder::new(zeros.as_slice()).read_to_end(&mut bombs[1]).await?;
    for dialect in Dialect::ALL {
        for (encoding, bomb) in ["gzip", "zstd"].into_iter().zip(&bombs) {
            let answer = post(&scene, dialect, &[("content-encoding", encoding)], bomb.clone()).await?;
            assert_eq!(answer.status, 413, "{dialect:?} {encoding}: {}", answer.text);
            dialect.error_in(&answer.json()?)?;
        }
    }
    let after = alive(&scene).await?;
    assert!(after < before + 100, "{before} MiB before, {after} MiB after");
    assert_eq!(scene.upstream.stats().total, 2, "only what was asked to see whether it lives");
    Ok(())
}

#[tokio::test]
async fn malformed_bodies_are_the_callers_fault() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let deep = format!("{{\"model\":\"{CLAUDE}\",\"max_tokens\":1,\"messages\":{}", "[".repeat(200_000));
    let bodies: [(&str, Headers, Vec<u8>); 12] = [
        ("nothing", &[], Vec::new()),
        ("an open brace", &[], b"{".to_vec()),
        ("truncated", &[], br#"{"model":"claude-t","max_tokens":10,"messages":[{"role":"us"#.to_vec()),
        ("truncated name", &[], br#"{"model":"claude"#.to_vec()),
        ("a list", &[], b"[]".to_vec()),
        ("a text", &[], br#""claude-t""#.to_vec()),
        ("no model", &[], b"{}".to_vec()),
        ("a number as model", &[], br#"{"model": 5, "messages": []}"#.to_vec()),
        ("bytes", &[], vec![0xff, 0xfe, 0x00, 0x7b]),
        ("a deep one", &[], deep.into_bytes()),
        ("no gzip", &[("content-encoding", "gzip")], b"{}".to_vec()),
        ("an unknown encoding", &[("content-encoding", "snappy")], b"{}".to_vec()),
    ];
    for dialect in Dialect::ALL {
        for (what, headers, body) in &bodies {
            let answer = post(&scene, dialect, headers, body.clone()).await?;
            assert!(
                (400..=415).contains(&answer.status),
                "{dialect:?} {what}: {} {}",
                answer.status,
                answer.text
            );
            let body = answer.json()?;
            assert_eq!(dialect.error_in(&body)?["type"], "invalid_request_error", "{what}: {body}");
        }
        alive(&scene).await?;
    }
    assert_eq!(scene.upstream.stats().total, 3, "none of it went upstream");
    Ok(())
}

#[tokio::test]
async fn heads_too_large_or_wrong_are_refused() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        ("many headers", head(&scene, &format!("{many}\r\n"))),
        ("one long header", head(&scene, &format!("x-long: {}\r\n\r\n", "a".repeat(200_000)))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000))),
        ("no HTTP at all", "hello there\r\n\r\n".to_owned()),
        (
            "TLS to a plain port",
            "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
        ),
        ("two lengths", head(&scene, "content-length: 5\r\ncontent-length: 50\r\n\r\n{}   ")),
        ("a negative length", head(&scene, "content-length: -1\r\n\r\n{}")),
        ("a wrong chunk", head(&scene, "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")),
        ("a folded header", head(&scene, "x-a: 1\r\n  2\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let answer = raw(&scene, bytes.as_bytes()).await?;
        let code = status(&answer);
        assert!(code == 0 || (400..=431).contains(&code), "{what}: {answer}");
        if what == "many headers" {
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).context("a body")?;
            let error = Dialect::Messages.error_in(&serde_json::from_str(body)?)?.clone();
            assert!(code == 431 && error["message"].is_string(), "{answer}");
        }
        alive(&scene).await.with_context(|| what)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_length_and_chunks_together_smuggle_nothing() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let inner = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 0\r\n\r\n",
        scene.key
    );
    let both =
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5);
    raw(&scene, head(&scene, &both).as_bytes()).await?;
    alive(&scene).await?;
    assert_eq!(scene.upstream.stats().total, 1, "nothing of it went upstream");
    Ok(())
}

#[tokio::test]
async fn callers_who_dawdle_are_dismissed() -> Result<()> {
    let plan = small().proxy_env("HEADER_READ_TIMEOUT", "1s").proxy_env("BODY_READ_TIMEOUT", "1s");
    let plan = plan.proxy_env("BODY_TOTAL_TIMEOUT", "2s");
    let scene = Scene::open(plan).await?;
    let port = scene.fleet.proxies[0].port();
    let mut waiting = Vec::new();
    for bytes in ["POST /v1/mess", &head(&scene, "x-a: ")] {
        for _ in 0..20 {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.write_all(bytes.as_bytes()).await?;
            waiting.push(socket);
        }
    }
    alive(&scene).await?;
    for socket in &mut waiting {
        let answer = answer_of(socket).await.context("a head that never ends")?;
        assert!([0, 408].contains(&status(&answer)), "{answer}");
    }
    let answer = raw(&scene, head(&scene, "content-length: 1000\r\n\r\n{\"model\":").as_bytes()).await?;
    assert_eq!(status(&answer), 408, "a body that never ends: {answer}");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).context("a body")?;
    Dialect::Messages.error_in(&serde_json::from_str(body)?)?;
    // One byte now and then is progress for a head's reader, but not for ever.
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let dripping = async {
        for byte in head(&scene, &"x-a: 1\r\n".repeat(100)).bytes() {
            if socket.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping).await.context("a head byte by byte goes on for ever")?;
    // Nor for a body's.
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut reading, mut writing) = socket.into_split();
    writing.write_all(head(&scene, "content-length: 100000\r\n\r\n").as_bytes()).await?;
    let dripping = async {
        while writing.write_all(b"{").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = tokio::time::timeout(PATIENCE, reading.read_exact(&mut answer)) => drop(read.context("no answer")??),
        () = dripping => anyhow::bail!("closed without an answer"),
    }
    assert_eq!(&answer, b"HTTP/1.1 408", "a body byte by byte");
    alive(&scene).await.map(drop)
}

#[tokio::test]
async fn idle_connections_by_the_hundred_hinder_nobody() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let before = alive(&scene).await?;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(("127.0.0.1", scene.fleet.proxies[0].port())).await?);
    }
    let after = alive(&scene).await?;
    assert!(after < before + 100, "{before} MiB before, {after} MiB with 1,000 idle connections");
    drop(idle);
    alive(&scene).await.map(drop)
}

#[tokio::test]
async fn wrong_methods_and_paths_are_named() -> Result<()> {
    let scene = Scene::open(small()).await?;
    let base = scene.fleet.proxies[0].url();
    let cases = [
        (Method::GET, "/v1/messages", Dialect::Messages),
        (Method::DELETE, "/v1/messages", Dialect::Messages),
        (Method::PUT, "/v1/messages/count_tokens", Dialect::Messages),
        (Method::GET, "/v1/responses", Dialect::Responses),
        (Method::GET, "/nothing/here", Dialect::Messages),
        (Method::POST, "/", Dialect::Messages),
        (Method::POST, "/api/actions/users/getUsers", Dialect::Messages),
        (Method::GET, "/metrics", Dialect::Messages),
    ];
    for (method, path, dialect) in cases {
        let request = http().request(method.clone(), format!("{base}{path}")).header("x-api-key", &scene.key);
        let request =
            request.header(CONTENT_TYPE, "application/json").body(json!({"model": CLAUDE}).to_string());
        let answer = read(request.send().await?).await;
        assert!([404, 405].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
        let body = answer.json().with_context(|| format!("{method} {path}"))?;
        dialect.error_in(&body).with_context(|| format!("{method} {path}"))?;
    }
    alive(&scene).await?;
    assert_eq!(scene.upstream.stats().total, 1);
    Ok(())
}
