//! One request, from its head to the plan of its answer: route, count, find the script's step, answer or misbehave.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use super::answer::{Answer, BadStep, Break, Kind};
use super::ask::{self, Ask, Dialect, Route};
use super::log::{Ending, Keep, Log, Place, Seen, tail};
use super::plan::{self, Plan};
use super::play::{Body, Play, Visit};
use super::script::Scripts;
use super::{chat, messages, responses};

/// Largest request body; tests send 50 MB ones.
const BODY_LIMIT: usize = 256 << 20;
/// The header that carries a directive.
const DIRECTIVE: &str = "x-demo";
const HTML: &[u8] =
    b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n";
const NUMBERS: &str = "AACAPgAAAD8AAEA/AACAPw==";

/// What the handle and all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    scripts: Mutex<Scripts>,
    log: Mutex<Log>,
    changed: Notify,
    connections: AtomicU64,
}

impl Shared {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            scripts: Mutex::default(),
            log: Mutex::new(Log::new(keep)),
            changed: Notify::new(),
            connections: AtomicU64::new(0),
        }
    }

    pub(super) fn scripts(&self) -> MutexGuard<'_, Scripts> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Resolves at the next change of a counter after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut changed = Box::pin(self.changed.notified());
        changed.as_mut().enable();
        changed
    }

    pub(super) fn reset(&self) {
        self.scripts().clear();
        self.log().reset();
        self.changed.notify_waiters();
    }

    fn begin(self: &Arc<Self>, seen: Seen) -> Visit {
        let place = self.log().begin(seen);
        self.changed.notify_waiters();
        Visit::new(Arc::clone(self), place)
    }

    pub(super) fn end(&self, place: &Place, ending: Ending) {
        self.log().end(place, ending);
        self.changed.notify_waiters();
    }
}

/// Answers one request. An error closes the connection without an answer.
pub(super) async fn handle(
    shared: Arc<Shared>,
    connection: u64,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let route = ask::route(&head.method, head.uri.path());
    if !route.is_counted() {
        return Ok(serve_control(&shared, route, &read(body).await?));
    }
    let mut seen = Seen {
        credential: ask::credential(&head.headers),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        method: head.method,
        headers: head.headers,
        body: Bytes::new(),
        model: String::new(),
        connection,
    };
    if shared.scripts().take_refusal(&seen.credential) {
        // Before the body is read: the caller sees the connection close under its hands.
        shared.begin(seen).end(Ending::Error);
        return Err(refused());
    }
    seen.body = read(body).await?;
    seen.model = seen.json()["model"].as_str().unwrap_or_default().to_owned();
    let (step, directive) = (shared.scripts().next(&seen.credential), directive(&seen));
    let (credential, bytes) = (seen.credential.clone(), seen.body.clone());
    let visit = shared.begin(seen);
    let answer = match directive {
        Ok(directive) => directive.or(step).unwrap_or_default(),
        Err(error) => {
            let message = format!("{DIRECTIVE}: {error}");
            return Ok(Reply::new(route, Answer::ok(), visit).error(400, &message));
        }
    };
    if !answer.delay.is_zero() {
        tokio::time::sleep(answer.delay).await;
    }
    Reply::new(route, answer, visit).give(&bytes, &credential).await
}

async fn read(body: Incoming) -> io::Result<Bytes> {
    let read = Limited::new(body, BODY_LIMIT).collect().await.map_err(io::Error::other)?;
    Ok(read.to_bytes())
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "refused by the script")
}

/// What the header asks for; else the model's name, as in `gpt-5:status=500,delay=200`. A colon before anything else
/// belongs to the name.
fn directive(seen: &Seen) -> Result<Option<Answer>, BadStep> {
    if let Some(text) = seen.headers.get(DIRECTIVE).and_then(|value| value.to_str().ok()) {
        return Answer::from_directive(text).map(Some);
    }
    let tail = seen.model.rsplit_once(':').map(|(_, tail)| tail);
    Ok(tail.and_then(|tail| Answer::from_directive(tail).ok()))
}

/// Everything that is not a model request.
fn serve_control(shared: &Shared, route: Route, bytes: &Bytes) -> Response<Body> {
    let not_found = || chat::error(404, "no such path here");
    let (status, body) = match route {
        Route::Root => {
            (StatusCode::OK, json!({"service": "demo-upstream", "stats": "/_stats", "script": "/_script"}))
        }
        Route::Models => (StatusCode::OK, models()),
        Route::Stats => (StatusCode::OK, shared.log().to_json()),
        Route::Reset => {
            shared.reset();
            (StatusCode::OK, json!({"ok": true}))
        }
        Route::Script => match read_script(shared, bytes) {
            Ok(steps) => (StatusCode::OK, json!({"ok": true, "steps": steps})),
            Err(message) => (StatusCode::BAD_REQUEST, json!({"ok": false, "error": message})),
        },
        _ => (StatusCode::NOT_FOUND, not_found()),
    };
    let full = http_body_util::Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(Body::new(full));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn read_script(shared: &Shared, bytes: &Bytes) -> Result<usize, String> {
    let body: Value = serde_json::from_slice(bytes).map_err(|error| format!("invalid JSON: {error}"))?;
    shared.scripts().set_from_json(&body).map_err(|error| error.to_string())
}

fn models() -> Value {
    let names = ["claude-sonnet-4-5", "claude-haiku-4-5", "gpt-5", "gpt-4o", "gemini-2.5-pro"];
    let data: Vec<Value> = names
        .iter()
        .map(|id| {
            json!({"id": id, "object": "model", "created": 1_735_689_600, "owned_by": "demo", "type": "model",
                "display_name": id, "created_at": "2025-01-01T00:00:00Z"})
        })
        .collect();
    json!({"object": "list", "data": data, "has_more": false, "first_id": names[0], "last_id": names[4]})
}

/// An answer on its way out.
struct Reply {
    route: Route,
    answer: Answer,
    visit: Visit,
    request_id: String,
}

impl Reply {
    fn new(route: Route, answer: Answer, visit: Visit) -> Self {
        Self { route, answer, visit, request_id: format!("req_{}", Uuid::new_v4().simple()) }
    }

    async fn give(mut self, bytes: &Bytes, credential: &str) -> io::Result<Response<Body>> {
        match self.answer.kind {
            Kind::Silence => return std::future::pending().await,
            Kind::Refuse => {
                self.visit.end(Ending::Error);
                return Err(refused());
            }
            Kind::Html => return Ok(self.whole(200, "text/html; charset=utf-8", Bytes::from_static(HTML))),
            Kind::ErrorObject => return Ok(self.error(200, "the upstream's upstream failed")),
            Kind::Empty => return Ok(self.whole(200, "application/json", Bytes::new())),
            Kind::Proper => {}
        }
        if let Some(status) = self.answer.status.filter(|status| *status != 200) {
            return Ok(match self.answer.body.clone() {
                Some(body) => self.whole(status, "application/json", body),
                None => self.error(status, &format!("the script answers {status}")),
            });
        }
        if credential.is_empty() {
            return Ok(self.error(401, "a credential is required"));
        }
        Ok(self.proper(bytes, credential))
    }

    /// The answer that the caller hoped for, though it may break on the way.
    fn proper(mut self, bytes: &Bytes, credential: &str) -> Response<Body> {
        if let Some(body) = self.answer.body.clone() {
            return self.whole(200, "application/json", body);
        }
        let dialect = match self.route {
            Route::Generate(dialect) => dialect,
            Route::CountTokens => {
                let tokens = plan::input_tokens(bytes.len());
                return self.json(200, &json!({"input_tokens": tokens}));
            }
            _ => return self.embeddings(bytes),
        };
        let ask = match Ask::parse(dialect, bytes) {
            Ok(ask) => ask,
            Err(message) => return self.error(400, &message),
        };
        let plan = Plan::new(&ask, &self.answer, &tail(credential));
        if ask.stream {
            let frames = match dialect {
                Dialect::Messages => messages::events(&plan),
                Dialect::Chat => chat::events(&plan, ask.include_usage),
                Dialect::Responses => responses::events(&plan, &ask.tools),
            };
            return self.stream(dialect, frames);
        }
        if let Some((_, Break::Error)) = self.answer.break_at.take_if(|(_, kind)| *kind == Break::Error) {
            return self.error(200, "overloaded");
        }
        let body = match dialect {
            Dialect::Messages => messages::body(&plan),
            Dialect::Chat => chat::body(&plan),
            Dialect::Responses => responses::body(&plan, &ask.tools),
        };
        self.json(200, &body)
    }

    fn embeddings(self, bytes: &Bytes) -> Response<Body> {
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let inputs = match &body["input"] {
            Value::Array(list) if !list.iter().all(Value::is_number) => list.len(),
            Value::Null => return self.error(400, "input: a text or a list is required"),
            _ => 1,
        };
        let numbers =
            if body["encoding_format"] == "base64" { json!(NUMBERS) } else { json!([0.25, 0.5, 0.75, 1.0]) };
        let one = |index| json!({"object": "embedding", "index": index, "embedding": numbers});
        let data: Vec<Value> = (0..inputs).map(one).collect();
        let tokens = self.answer.tokens.input.unwrap_or(plan::input_tokens(bytes.len()) as u64);
        let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
        self.json(200, &json!({"object": "list", "data": data, "model": body["model"], "usage": usage}))
    }

    fn error(self, status: u16, message: &str) -> Response<Body> {
        // Under a good status it says what a broken server says.
        let meant = if status == 200 { 502 } else { status };
        let body = match self.route.dialect() {
            Dialect::Messages => messages::error(meant, message, &self.request_id),
            Dialect::Chat | Dialect::Responses => chat::error(meant, message),
        };
        let mut reply = self;
        // An error object under status 200 is an error all the same.
        reply.answer.kind = if status == 200 { Kind::ErrorObject } else { reply.answer.kind };
        reply.json(status, &body)
    }

    fn json(self, status: u16, body: &Value) -> Response<Body> {
        self.whole(status, "application/json", Bytes::from(body.to_string()))
    }

    /// A body of known length. A break comes in its middle.
    fn whole(self, status: u16, content_type: &'static str, body: Bytes) -> Response<Body> {
        let length = body.len();
        let is_good = status < 400 && self.answer.kind == Kind::Proper;
        let broken =
            self.answer.break_at.map(|(_, kind)| (1, if kind == Break::Hang { kind } else { Break::Cut }));
        let half = if broken.is_some() { length / 2 } else { length };
        let frames: Vec<Bytes> = if length == 0 { Vec::new() } else { vec![body.slice(..half)] };
        let (answer, request_id) = (self.answer, self.request_id);
        let mut play = Play::new(frames, &answer, self.visit);
        play.break_at = broken;
        play.ending = if is_good { Ending::Ok } else { Ending::Error };
        let mut response = respond(status, content_type, &request_id, &answer, play);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }

    fn stream(self, dialect: Dialect, frames: Vec<Bytes>) -> Response<Body> {
        let (answer, request_id) = (self.answer, self.request_id);
        let mut play = Play::new(frames, &answer, self.visit);
        play.break_at = answer.break_at;
        play.error_frame = match dialect {
            Dialect::Messages => messages::error_event(),
            Dialect::Chat => chat::error_event(),
            Dialect::Responses => responses::error_event(),
        };
        let mut response = respond(200, "text/event-stream; charset=utf-8", &request_id, &answer, play);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

fn respond(status: u16, content_type: &'static str, id: &str, answer: &Answer, play: Play) -> Response<Body> {
    let mut response = Response::new(play.body());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("request-id", id.clone());
        headers.insert("x-request-id", id);
    }
    for (name, value) in &answer.headers {
        headers.insert(name, value.clone());
    }
    response
}
