//! What an upstream is to answer: a script of bytes, pauses and misbehaviour. The head is written from status and
//! headers; a whole body carries its length, everything else goes in chunks.

use bytes::Bytes;
use std::fmt::Write as _;
use std::time::Duration;

/// A step of an answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// Nothing comes for so long.
    Wait(Duration),
    /// These bytes, as they are.
    Send(Bytes),
    /// Nothing comes any more, and the connection stays open.
    Silence,
    /// The connection is closed.
    Cut,
}

/// A whole answer, or what is one up to its fault.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    before: Duration,
    whole: Option<Bytes>,
    pieces: Vec<Step>,
}

impl Reply {
    fn new(status: u16, content_type: &str) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, before: Duration::ZERO, whole: None, pieces: Vec::new() }
    }

    /// A document of any type, with its length.
    pub fn document(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { whole: Some(body.into()), ..Self::new(status, content_type) }
    }

    /// A JSON document.
    pub fn json(status: u16, body: impl ToString) -> Self {
        Self::document(status, "application/json", body.to_string())
    }

    /// An error in the form that OpenAI and Anthropic share.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let error = serde_json::json!({ "type": kind, "code": kind, "message": message });
        Self::json(status, serde_json::json!({ "type": "error", "error": error }))
    }

    /// An event stream, so far without events.
    pub fn events() -> Self {
        Self::new(200, "text/event-stream")
    }

    /// A body in pieces, so far without any.
    pub fn pieces(status: u16, content_type: &str) -> Self {
        Self::new(status, content_type)
    }

    /// The request is read and nothing is said.
    pub fn never() -> Self {
        Self::new(0, "").silence()
    }

    /// The request is read and the connection closed.
    pub fn hang_up() -> Self {
        Self::new(0, "").cut()
    }

    /// Bytes instead of HTTP.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { pieces: vec![Step::Send(bytes.into())], ..Self::new(0, "") }
    }

    /// One more header, or another value for one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A pause before the head.
    #[must_use]
    pub fn after(self, before: Duration) -> Self {
        Self { before, ..self }
    }

    /// A pause.
    #[must_use]
    pub fn wait(self, pause: Duration) -> Self {
        self.step(Step::Wait(pause))
    }

    /// A piece of the body.
    #[must_use]
    pub fn piece(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let chunk = [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
        self.step(Step::Send(chunk.into()))
    }

    /// Events, each by its name (if it has one) and data.
    #[must_use]
    pub fn all(self, events: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        events.into_iter().fold(self, |reply, (name, data)| {
            let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
            reply.piece(format!("{name}data: {data}\n\n"))
        })
    }

    /// A comment of the stream: a sign of life and nothing else.
    #[must_use]
    pub fn comment(self) -> Self {
        self.piece(": still there\n\n")
    }

    /// The end of the pieces.
    #[must_use]
    pub fn end(self) -> Self {
        self.step(Step::Send(Bytes::from_static(b"0\r\n\r\n")))
    }

    /// The connection is closed here.
    #[must_use]
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Nothing comes from here on.
    #[must_use]
    pub fn silence(self) -> Self {
        self.step(Step::Silence)
    }

    fn step(mut self, step: Step) -> Self {
        self.pieces.push(step);
        self
    }

    /// All of it, in the order in which it goes out.
    pub fn steps(self) -> Vec<Step> {
        let mut steps = vec![Step::Wait(self.before)];
        if self.status > 0 {
            let mut head = format!("HTTP/1.1 {} Whatever\r\n", self.status);
            for (name, value) in &self.headers {
                let _ = write!(head, "{name}: {value}\r\n");
            }
            let _ = match &self.whole {
                Some(body) => write!(head, "content-length: {}\r\n\r\n", body.len()),
                None => write!(head, "transfer-encoding: chunked\r\n\r\n"),
            };
            steps.push(Step::Send(head.into()));
        }
        steps.extend(self.whole.map(Step::Send));
        steps.extend(self.pieces);
        steps
    }
}
