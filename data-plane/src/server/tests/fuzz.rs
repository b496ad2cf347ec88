//! Raw bytes against the server as callers reach it, and beside it a reader that has httparse for its heads and follows
//! RFC 9112 to the letter. Whatever is served must be what that reader sees, in its order: a request that only we see is
//! smuggled past whoever stands before us. Nothing panics, and every connection ends.

use super::*;
use mutate::{cuts, damaged, fuzz, pieces};

/// Callers who must be read the same by everybody; each ends its connection.
const CALLERS: &[&[u8]] = &[
    b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nContent-Length: 5\r\n\r\nhelloGET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=\"y\"\r\n!\r\n0\r\nx-sum: 1\r\n\r\nPOST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
    b"\r\nGET /a?b=c HTTP/1.1\r\nhost: x\r\n\r\n\r\nDELETE /c HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    b"POST /old HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.0\r\n\r\n",
    b"POST /e HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nabcdGET /f HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    b"POST /both HTTP/1.1\r\nhost: x\r\ncontent-length: 44\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\nx-a: bcd\r\n\r\n",
    b"POST /both HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: ChunKed\r\nContent-Length: 4\r\n\r\n1\r\nZ\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
];

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\n",
    b"5;\r\n",
    b"5 ;a=\n\r\n",
    b"A\r\n",
    b"0x5\r\n",
    b"+5",
    b"-1",
    b"ffffffffffffffff\r\n",
    b"10000000000000005\r\n",
    b" ",
    b"\t",
    b"\x0b",
    b":",
    b";",
    b",",
    b"\0",
    b"\xff",
    b"\x7f",
    b"content-length: 5\r\n",
    b"Content-Length:0\r\n",
    b"CONTENT-LENGTH: 3, 3\r\n",
    b"content-length: +5\r\n",
    b"content-length : 5\r\n",
    b"content_length: 5\r\n",
    b"content-length: 18446744073709551616\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"transfer-encoding: chunked, identity\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"transfer-encoding\t: chunked\r\n",
    b"transfer-encoding:\x0bchunked\r\n",
    b"transfer-encoding: \r\n chunked\r\n",
    b" folded\r\n",
    b"\tfolded: x\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive, content-length\r\n",
    b"upgrade: h2c\r\n",
    b"expect: 100-continue\r\n",
    b"GET /smuggled HTTP/1.1\r\nhost: y\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
];

/// How long a connection whose caller is gone may stay.
const ENDS: Duration = Duration::from_secs(5);

/// A request: method, target, headers, and the body if it came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

/// How the length of a body is said.
enum Length {
    Known(usize),
    Chunked,
}

/// All requests in `bytes`, up to the first thing that is not allowed or whose end is not sure.
fn reference(mut bytes: &[u8]) -> Vec<Got> {
    let mut all = Vec::new();
    while let Some((got, rest)) = one(bytes) {
        let is_whole = got.body.is_some();
        all.push(got);
        match rest {
            Some(rest) if is_whole => bytes = rest,
            _ => break,
        }
    }
    all
}

/// The next request, and what follows it if the connection may go on.
fn one(bytes: &[u8]) -> Option<(Got, Option<&[u8]>)> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = request.parse(bytes).ok()? else { return None };
    let is_11 = request.version? == 1;
    let values = |name: &'static str| {
        let all = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        all.map(|header| std::str::from_utf8(header.value).unwrap_or("\u{0}"))
    };
    let codings: Vec<String> = values("transfer-encoding")
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_lowercase())
        .collect();
    let mut lengths = Vec::new();
    for value in values("content-length") {
        // Digits and nothing else: no sign, no list.
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        lengths.push(if is_number { value.parse::<usize>().ok() } else { None });
    }
    let length = match (codings.last(), lengths.first()) {
        (Some(last), _) if is_11 && last == "chunked" => Length::Chunked,
        (Some(_), _) => return None,
        (None, Some(first)) if lengths.iter().all(|length| length == first) => Length::Known((*first)?),
        (None, Some(_)) => return None,
        (None, None) => Length::Known(0),
    };
    // Of two lengths somebody else may believe the other one.
    let is_sure = codings.is_empty() || lengths.is_empty();
    let rest = &bytes[used..];
    let read = match length {
        Length::Known(length) => rest.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest)),
        Length::Chunked => chunked(rest),
    };
    let headers = request.headers.iter();
    let got = Got {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        headers: headers.map(|header| (header.name.to_lowercase(), header.value.to_vec())).collect(),
        body: read.as_ref().map(|(body, _)| body.clone()),
    };
    Some((got, read.map(|(_, rest)| rest).filter(|_| is_sure)))
}

/// A chunked body and what follows it.
fn chunked(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let line = |bytes: &mut &[u8]| -> Option<Vec<u8>> {
        let end = memchr::memmem::find(bytes, b"\r\n")?;
        let line = bytes[..end].to_vec();
        *bytes = &bytes[end + 2..];
        (!line.iter().any(|byte| matches!(byte, b'\r' | b'\n'))).then_some(line)
    };
    let mut body = Vec::new();
    loop {
        let head = line(&mut bytes)?;
        let digits = head.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let after = head[digits..].trim_ascii_start();
        let size = u64::from_str_radix(std::str::from_utf8(&head[..digits]).ok()?, 16).ok()?;
        if !after.is_empty() && after[0] != b';' {
            return None;
        }
        if size == 0 {
            while !line(&mut bytes)?.is_empty() {}
            return Some((body, bytes));
        }
        let (data, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

/// What the handler was given since the last look.
#[derive(Clone, Default)]
struct Served(Rc<RefCell<Vec<Got>>>);

impl Served {
    async fn take(self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let headers = head.headers.iter();
        let at = self.0.borrow().len();
        self.0.borrow_mut().push(Got {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
            body: None,
        });
        let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
        if let Some(got) = self.0.borrow_mut().get_mut(at) {
            got.body = body;
        }
        Response::new(Full::from("ok").boxed_unsync())
    }
}

/// A server that remembers, for many connections one after another.
struct Stand {
    runtime: tokio::runtime::Runtime,
    local: LocalSet,
    address: SocketAddr,
    served: Served,
}

impl Stand {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (local, served) = (LocalSet::new(), Served::default());
        let address = local.block_on(&runtime, async {
            let (address, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
            listen(&sockets[0]).unwrap();
            let remembered = served.clone();
            let handler = move |request: Request<Incoming>, _peer| remembered.clone().take(request);
            let running =
                Server::new(settings()).run(sockets.remove(0).into(), handler, CancellationToken::new());
            tokio::task::spawn_local(running);
            address
        });
        Self { runtime, local, address, served }
    }

    /// What of `pieces` was served; `leaves`: the caller's end comes right behind them.
    fn serves(&self, pieces: &[&[u8]], leaves: bool) -> Result<Vec<Got>, String> {
        self.served.0.borrow_mut().clear();
        self.local.block_on(&self.runtime, async {
            let mut stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            for piece in pieces {
                // Whoever is refused may find the connection closed.
                let _ = stream.write_all(piece).await;
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            if leaves {
                let _ = stream.shutdown().await;
            }
            let mut answers = Vec::new();
            match tokio::time::timeout(ENDS, stream.read_to_end(&mut answers)).await {
                Ok(_) => Ok(()),
                Err(_) => Err("the connection does not end".to_owned()),
            }
        })?;
        Ok(std::mem::take(&mut *self.served.0.borrow_mut()))
    }
}

/// Whether what was served is the beginning of what the reference sees.
fn compare(bytes: &[u8], served: &[Got]) -> Result<(), String> {
    let seen = reference(bytes);
    if served.len() > seen.len() {
        return Err(format!("served {served:#?}, and the reference sees {seen:#?}"));
    }
    for (served, seen) in served.iter().zip(&seen) {
        let head = |got: &Got| (got.method.clone(), got.target.clone());
        let same_body = served.body.is_none() || served.body == seen.body;
        if head(served) != head(seen) || !same_body || !same_headers(served, seen) {
            return Err(format!("served {served:#?}, and the reference sees {seen:#?}"));
        }
    }
    Ok(())
}

/// By name, because maps of headers have no order among names; lengths that say nothing new are left out.
fn same_headers(served: &Got, seen: &Got) -> bool {
    let sorted = |got: &Got| {
        let mut all = got.headers.clone();
        all.retain(|(name, _)| name != "content-length");
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    };
    sorted(served) == sorted(seen)
}

#[test]
fn sound_callers_are_served_whole_in_any_pieces() {
    let stand = Stand::new();
    for caller in CALLERS {
        let seen = reference(caller);
        assert!(seen.iter().all(|got| got.body.is_some()), "{}", String::from_utf8_lossy(caller));
        let bytes: Vec<&[u8]> = caller.chunks(1).collect();
        for pieces in [&[*caller][..], &bytes] {
            let served = stand.serves(pieces, false).unwrap();
            compare(caller, &served).unwrap();
            assert_eq!(served.len(), seen.len(), "{}", String::from_utf8_lossy(caller));
            assert!(served.iter().all(|got| got.body.is_some()));
        }
    }
}

#[test]
fn nothing_is_served_that_a_strict_reader_does_not_see() {
    let stand = Stand::new();
    let requests = Cell::new(0);
    fuzz(3_000, (damaged(CALLERS, TOKENS), cuts()), |(bytes, cuts)| {
        for pieces in [vec![&bytes[..]], pieces(&bytes, &cuts)] {
            let served = stand.serves(&pieces, true)?;
            requests.set(requests.get() + served.len());
            compare(&bytes, &served)?;
        }
        Ok(())
    });
    assert!(requests.get() > 3_000, "only {} requests were served", requests.get());
}
