//! What is called in tests: a socket on loopback that keeps what it was sent.

use super::Outbound;
use crate::config;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Calls to the outside that may go to loopback.
pub fn outbound(price_url: &str) -> Outbound {
    let limit = Duration::from_secs(10);
    Outbound::new(config::Outbound {
        allow: vec!["127.0.0.1".parse().unwrap()],
        timeout: limit,
        price_url: price_url.parse().unwrap(),
        price_timeout: limit,
        price_sync: None,
        price_max: 1 << 20,
    })
    .unwrap()
}

/// Answers every request with the same status and body until it is dropped.
pub struct Mock {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Mock {
    pub async fn start(status: u16, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let seen = Arc::clone(&requests);
        let work = async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Some(request) = serve(socket, &answer).await {
                    seen.lock().unwrap().push(request);
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a mock that ends with its test")]
        let task = tokio::spawn(work);
        Self { url, requests, task }
    }

    /// Head and body of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, answer: &str) -> Option<String> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = socket.read(&mut part).await.ok()?;
        all.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if count == 0 || (text.contains("\r\n\r\n") && body.len() >= length.unwrap_or(0)) {
            socket.write_all(answer.as_bytes()).await.ok()?;
            return Some(text);
        }
    }
}
