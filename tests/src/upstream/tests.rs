//! The upstream's own promises: what it says is what the protocols say, and it misbehaves exactly as asked.

mod misbehaviour;
mod sequences;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::Upstream;

/// A credential of the tests.
const KEY: &str = "sk-upstream-0123abcd";

/// Longest time for anything here.
const PATIENCE: Duration = Duration::from_secs(10);

type Answered = Result<Response<Incoming>, hyper::Error>;

/// Sends one request on a connection of its own; the connection ends when the answer is dropped.
async fn send(upstream: &Upstream, path: &str, headers: &[(&str, &str)], body: &Value) -> Answered {
    let socket = TcpStream::connect(upstream.addr()).await.expect("connect");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("handshake");
    tokio::spawn(connection);
    let method = if body.is_null() { Method::GET } else { Method::POST };
    let mut request = Request::builder().method(method).uri(path).header("host", "upstream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = request.body(Full::new(body)).expect("a request");
    tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time")
}

/// Sends a question with the usual credential.
async fn ask(upstream: &Upstream, path: &str, body: &Value) -> Answered {
    send(upstream, path, &[("authorization", &format!("Bearer {KEY}"))], body).await
}

/// The whole body as text, or what the transport said.
async fn text(answered: Answered) -> Result<String, hyper::Error> {
    let collected =
        tokio::time::timeout(PATIENCE, answered?.into_body().collect()).await.expect("a body in time")?;
    Ok(String::from_utf8_lossy(&collected.to_bytes()).into_owned())
}

/// Names and data of the events in a stream.
fn parse(stream: &str) -> Vec<(String, Value)> {
    let one = |event: &str| {
        let line =
            |prefix: &str| event.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
        let data = serde_json::from_str(line("data: ")).unwrap_or_else(|_| Value::from(line("data: ")));
        (line("event: ").to_owned(), data)
    };
    stream.split_terminator("\n\n").map(one).collect()
}

/// A streaming question in each dialect.
fn question(path: &str, prompt: &str, stream: bool) -> Value {
    let turns = json!([{"role": "user", "content": prompt}]);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"]});
    match path {
        "/v1/messages" => {
            json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": turns, "stream": stream,
            "tools": [{"name": "weather", "input_schema": schema}]})
        }
        "/v1/responses" => json!({"model": "gpt-5", "input": turns, "stream": stream,
            "tools": [{"type": "web_search"}, {"type": "function", "name": "weather", "parameters": schema}]}),
        _ => json!({"model": "gpt-4o", "messages": turns, "stream": stream,
            "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": schema}}]}),
    }
}

const PATHS: [&str; 3] = ["/v1/messages", "/v1/chat/completions", "/v1/responses"];
