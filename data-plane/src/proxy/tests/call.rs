//! A caller: what is sent, when it gives up, and what came back.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame};
use serde_json::Value;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// The header that carries a key in tests; the key's clear text is its id.
const KEY: &str = "x-api-key";

/// A request that is to be made.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub frames: Vec<(Duration, Bytes)>,
    /// Whether the body breaks off after its frames.
    pub broken: bool,
    pub address: [u8; 4],
    /// The caller leaves after so long, wherever the answer is.
    pub patience: Option<Duration>,
    /// The caller leaves after so many pieces of the answer.
    pub appetite: Option<usize>,
}

impl Call {
    /// A call with key 1 and a JSON body.
    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path).header("content-type", "application/json").body(body)
    }

    /// A call with key 1 and no body.
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: vec![(KEY.to_owned(), "1".to_owned())],
            frames: Vec::new(),
            broken: false,
            address: [192, 0, 2, 1],
            patience: None,
            appetite: None,
        }
    }

    /// With the key of that id; its clear text is the id.
    #[must_use]
    pub fn key(mut self, id: i64) -> Self {
        self.headers.retain(|(name, _)| name != KEY);
        self.header(KEY, &id.to_string())
    }

    /// One more header, or another value for one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body, at once.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { frames: vec![(Duration::ZERO, body.into())], ..self }
    }

    /// The caller leaves after so long.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The caller leaves after so many pieces of the answer.
    #[must_use]
    pub fn appetite(self, pieces: usize) -> Self {
        Self { appetite: Some(pieces), ..self }
    }

    /// As hyper hands it to the walk.
    pub fn request(&self) -> Request<Upload> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let upload = Upload { frames: self.frames.clone().into(), broken: self.broken, pause: None };
        request.body(upload).unwrap()
    }
}

/// A caller's body that comes as a script says.
pub struct Upload {
    frames: VecDeque<(Duration, Bytes)>,
    broken: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let this = self.get_mut();
        let Some((pause, _)) = this.frames.front() else {
            let end = std::mem::take(&mut this.broken).then_some(Err("the caller's connection broke"));
            return Poll::Ready(end);
        };
        if !pause.is_zero() {
            let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(*pause)));
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        Poll::Ready(this.frames.pop_front().map(|(_, data)| Ok(Frame::data(data))))
    }
}

/// What the caller saw.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0: the caller left before there was a head.
    pub status: u16,
    pub headers: HeaderMap,
    /// Whether the answer says that its caller has shown no known key.
    pub stranger: bool,
    /// Each piece and when it came.
    pub pieces: Vec<(Duration, Bytes)>,
    /// Whether the answer broke off.
    pub broke: bool,
    /// Whether the caller left before the end.
    pub left: bool,
    pub took: Duration,
}

impl Answer {
    pub fn text(&self) -> String {
        let all: Vec<u8> = self.pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
        String::from_utf8(all).unwrap()
    }

    /// As JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The error's code, or its type.
    pub fn code(&self) -> String {
        let error = &self.json()["error"];
        let word = |name: &str| error[name].as_str().map(str::to_owned);
        word("code").or_else(|| word("type")).unwrap_or_default()
    }
}
