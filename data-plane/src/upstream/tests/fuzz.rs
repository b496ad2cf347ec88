//! Damaged answers over the wire: read the same in any pieces, and never otherwise than hyper reads them. What two
//! readers of one stream read differently is a hole.

use crate::upstream::framing::Framing;
use crate::upstream::head;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use mutate::{cuts, damaged, fuzz, pieces};
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=\"y\"\r\n!\r\n0\r\nx-sum: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0C \r\nhello, world\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 2, 2\r\n\r\nno",
];

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"5\r\n",
    b"f",
    b"ffffffffffffffff\r\n",
    b"-1",
    b"+5",
    b"0x5",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"\xff",
    b"\x7f",
    b"content-length: 3\r\n",
    b"Content-Length:5\r\n",
    b"content-length: 18446744073709551616\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"transfer-encoding: chunked, identity\r\n",
    b"transfer-encoding:\x0bchunked\r\n",
    b" folded\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.0",
    b"connection: close\r\n",
    b"trailer: x\r\n",
];

/// Status and body of a complete answer.
type Whole = Option<(u16, Vec<u8>)>;

fn ours(pieces: &[&[u8]]) -> Whole {
    let (mut early, mut head, mut body) = (Vec::new(), None, Vec::new());
    for piece in pieces {
        let read = |framing: &mut Framing, input: &[u8], body: &mut Vec<u8>| {
            let read = framing.read(input).ok()?;
            body.extend_from_slice(&read.data.unwrap_or_default());
            Some(())
        };
        match &mut head {
            Some((_, framing)) => read(framing, piece, &mut body)?,
            None => {
                early.extend_from_slice(piece);
                if let Some((found, used)) = head::read(&early, &Method::GET).ok()? {
                    let mut framing = found.framing;
                    read(&mut framing, &early[used..], &mut body)?;
                    head = Some((found.parts.status.as_u16(), framing));
                }
            }
        }
    }
    let (status, framing) = head?;
    (framing.is_over() || framing == Framing::UntilEnd).then_some((status, body))
}

/// What hyper makes of the same bytes.
async fn hypers(bytes: Vec<u8>) -> Whole {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.ok()?;
    let upstream = async move {
        let mut request = [0; 1024];
        drop(theirs.read(&mut request).await);
        drop(theirs.write_all(&bytes).await);
        drop(theirs.shutdown().await);
        // Held until hyper has had enough of it.
        std::future::pending::<()>().await;
    };
    let exchange = async {
        let request = Request::get("/").header("host", "h").body(Empty::<Bytes>::new()).ok()?;
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.into_body().collect().await.ok()?.to_bytes().to_vec()))
    };
    tokio::select! {
        whole = async { tokio::join!(exchange, connection).0 } => whole,
        () = upstream => None,
        () = tokio::time::sleep(Duration::from_secs(1)) => None,
    }
}

#[test]
fn an_answer_is_read_the_same_in_any_pieces() {
    fuzz(6_000, (damaged(ANSWERS, TOKENS), cuts()), |(bytes, cuts)| {
        let (whole, parts) = (ours(&[&bytes]), ours(&pieces(&bytes, &cuts)));
        if whole == parts { Ok(()) } else { Err(format!("{whole:?} and in pieces {parts:?}")) }
    });
}

#[test]
fn no_answer_is_read_otherwise_than_hyper_reads_it() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    fuzz(3_000, damaged(ANSWERS, TOKENS).prop_map(|bytes| bytes), |bytes| {
        let Some(ours) = ours(&[&bytes]) else { return Ok(()) };
        match runtime.block_on(hypers(bytes)) {
            Some(theirs) if theirs != ours => Err(format!("we read {ours:?}, hyper {theirs:?}")),
            _ => Ok(()),
        }
    });
}
