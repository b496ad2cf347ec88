//! The list: who sends what, what an upstream says to it, what the caller may see.

use super::super::answers::{self, Used, request};
use super::super::call::Call;
use super::super::host::Seen;
use super::super::reply::Reply;
use super::{Line, honest};
use contract::table::WordScope;
use contract::usage::Dialect;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const USED: Used = Used { input: 10, output: 5 };

/// By default an honest upstream is reached and answers.
fn line(does: &'static str, call: Call) -> Line {
    Line {
        does,
        call,
        upstream: honest,
        sees: &[200],
        reaches: true,
        most: None,
        hides: &[],
        stranger: None,
        owner: |_| {},
    }
}

/// What no provider ever hears of.
fn refused(does: &'static str, call: Call, sees: &'static [u16]) -> Line {
    Line { sees, reaches: false, ..line(does, call) }
}

fn post(path: &str, body: &Value) -> Call {
    Call::post(path, body.to_string())
}

fn get(path: &str) -> Call {
    Call::new(Method::GET, path)
}

fn ask(dialect: Dialect, model: &str, stream: bool) -> Call {
    post(answers::path(dialect), &request(dialect, model, stream))
}

fn messages() -> Call {
    ask(Dialect::Anthropic, "m", true)
}

fn chat() -> Call {
    ask(Dialect::OpenAi, "m", true)
}

/// A form with these fields and a small picture.
fn form(path: &str, fields: &[(&str, &str)]) -> Call {
    let mut body = String::new();
    for (name, value) in fields {
        body += &format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += "--b\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n";
    body += "content-type: image/png\r\n\r\n\u{1}PNG\r\n--b--\r\n";
    Call::post(path, body).header("content-type", "multipart/form-data; boundary=b")
}

/// All lines.
pub fn all() -> Vec<Line> {
    let all =
        [headers(), faults(), disguises(), paths(), creations(), bodies(), words(), secrets(), connections()];
    all.concat()
}

/// Headers by which a caller turns an upstream against its account.
fn headers() -> Vec<Line> {
    fn unless_clean(seen: &Seen) -> Reply {
        let odd = [
            "openai-organization",
            "openai-project",
            "origin",
            "referer",
            "x-goog-user-project",
            "x-portkey-custom-host",
            "helicone-target-url",
            "x-litellm-api-key",
        ];
        match odd.iter().any(|name| seen.header(name).is_some()) {
            true => Reply::error(401, "authentication_error", "CORS requests must set a header"),
            false => honest(seen),
        }
    }
    let with = |does, call: Call, name, value| Line {
        upstream: unless_clean,
        ..line(does, call.header(name, value))
    };
    vec![
        with("names an organisation of its own", chat(), "openai-organization", "org-mine"),
        with("names a project of its own", chat(), "openai-project", "proj-mine"),
        with("asks from a browser", messages(), "origin", "https://chat.example"),
        with("comes from a page", messages(), "referer", "https://chat.example/x"),
        with("names a project to be billed", chat(), "x-goog-user-project", "mine"),
        with("sends a relay elsewhere", chat(), "x-portkey-custom-host", "https://mine.example"),
        with("sends another relay elsewhere", messages(), "helicone-target-url", "https://mine.example"),
        with("gives a relay another key", chat(), "x-litellm-api-key", "sk-mine"),
    ]
}

/// Refusals that are about the request, in the status of a broken credential.
fn faults() -> Vec<Line> {
    fn forbidden(_: &Seen) -> Reply {
        let text = "Project `proj_1` does not have access to model `m`";
        Reply::error(403, "model_not_found", text)
    }
    fn unknown(_: &Seen) -> Reply {
        Reply::error(404, "not_found_error", "no such thing here")
    }
    fn unauthorised(_: &Seen) -> Reply {
        Reply::error(401, "authentication_error", "Missing scopes: api.usage.read")
    }
    fn too_many_tokens(_: &Seen) -> Reply {
        let text = "Request too large for m on tokens per min (TPM): Limit 30000, Requested 90000.";
        Reply::error(429, "tokens", text)
    }
    fn no_long_context(seen: &Seen) -> Reply {
        let beta = seen.header("anthropic-beta").is_some();
        let text = "Extra usage is required for long context requests.";
        if beta { Reply::error(429, "rate_limit_error", text) } else { honest(seen) }
    }
    fn quoting_an_account(seen: &Seen) -> Reply {
        let text = "messages.0.role: 'your credit balance is too low' is none";
        if seen.json()["messages"][0]["role"] == "user" {
            honest(seen)
        } else {
            Reply::error(400, "invalid_request_error", text)
        }
    }
    let long = messages().header("anthropic-beta", "context-1m-2025-08-07");
    let odd =
        json!({ "model": "m", "messages": [{ "role": "your credit balance is too low", "content": "x" }] });
    let count = || post("/v1/messages/count_tokens", &request(Dialect::Anthropic, "m", false));
    let fault = |does, call, upstream| Line { upstream, sees: &[], ..line(does, call) };
    vec![
        fault("asks for a model that the account lacks", chat(), forbidden),
        fault("asks for a model that nobody has", chat(), unknown),
        fault("counts tokens where that is refused", count(), unauthorised),
        fault("counts tokens where that is unknown", count(), unknown),
        fault("counts tokens where that breaks", count(), |_| Reply::error(500, "api_error", "no")),
        fault("asks for more tokens than the account ever gets", chat(), too_many_tokens),
        fault("asks for a context that the account must pay extra for", long, no_long_context),
        fault("has words quoted that mean the account", post("/v1/messages", &odd), quoting_an_account),
    ]
}

/// A caller's own fault in the guise of an answer.
fn disguises() -> Vec<Line> {
    fn document(_: &Seen) -> Reply {
        let error = json!({ "type": "invalid_request_error", "message": "messages: too long" });
        Reply::json(200, json!({ "type": "error", "error": error }))
    }
    fn event(_: &Seen) -> Reply {
        let error = answers::error_event(Dialect::Anthropic, "request_too_large", "too large");
        Reply::events().all(error).end()
    }
    let own = |does, call, upstream| Line { upstream, sees: &[], ..line(does, call) };
    vec![
        own("errs, and is told so in a 200", ask(Dialect::Anthropic, "m", false), document),
        own("sends too much, and is told so in an event", messages(), event),
        Line {
            upstream: |_| Reply::document(200, "text/plain", "\n"),
            ..line(
                "has silence written down",
                form(
                    "/v1/audio/transcriptions",
                    &[("model", "m"), ("response_format", "text"), ("prompt", "hello there")],
                ),
            )
        },
        Line {
            upstream: |_| Reply::never(),
            sees: &[0],
            ..line("leaves before a word was said", messages().patience(Duration::from_secs(5)))
        },
        Line {
            upstream: |_| {
                Reply::events()
                    .all(answers::opening(Dialect::Anthropic, USED))
                    .all(answers::content(Dialect::Anthropic, "some words"))
                    .silence()
            },
            ..line("leaves in the middle", messages().patience(Duration::from_secs(5)))
        },
    ]
}

/// Paths on which nothing is priced, or which an upstream reads otherwise than we do.
fn paths() -> Vec<Line> {
    let body = request(Dialect::OpenAi, "m", false);
    let resources = [
        ("reads what the account costs", get("/v1/organization/costs")),
        ("lists files", get("/v1/files")),
        ("reads another's file", get("/v1/files/file-1/content")),
        ("deletes another's file", Call::new(Method::DELETE, "/v1/files/file-1")),
        ("reads a stored answer", get("/v1/responses/resp_1")),
        ("reads a stored completion", get("/v1/chat/completions/c1/messages")),
        (
            "runs a batch",
            post("/v1/batches", &json!({ "input_file_id": "f", "endpoint": "/v1/chat/completions" })),
        ),
        (
            "runs a batch of messages",
            post("/v1/messages/batches", &json!({ "requests": [{ "params": body }] })),
        ),
        ("runs an assistant", post("/v1/threads/t/runs", &json!({ "assistant_id": "a", "model": "m" }))),
        ("makes an assistant", post("/v1/assistants", &body)),
        ("makes a film", post("/v1/videos", &json!({ "model": "m", "prompt": "x" }))),
        ("opens a channel", post("/v1/realtime/sessions", &body)),
        ("tunes a model", post("/v1/fine_tuning/jobs", &json!({ "model": "m", "training_file": "f" }))),
    ];
    let odd = [
        "/v1/Chat/Completions",
        "/v1/chat//completions",
        "/v1/%63hat/completions",
        "/v1/engines/m/completions",
        "/v1/score",
    ];
    let mut lines: Vec<Line> =
        resources.into_iter().map(|(does, call)| refused(does, call, &[403])).collect();
    lines.extend(odd.into_iter().map(|path| refused("spells a path otherwise", post(path, &body), &[404])));
    let put = Call { method: Method::PUT, ..chat() };
    lines.push(refused("puts instead of posting", put, &[404, 405]));
    let work = json!({ "model": "m", "input": "x", "background": true });
    lines.push(refused("has an answer made that it does not wait for", post("/v1/responses", &work), &[400]));
    let upgrade = get("/v1/responses").header("connection", "upgrade").header("upgrade", "websocket");
    lines.push(refused("opens a web socket", upgrade, &[426]));
    lines.push(refused("has no key", chat().header("x-api-key", ""), &[401]));
    lines.push(refused("guesses keys", chat().key(99), &[401, 429]));
    lines
}

/// Creations that an upstream may have carried out when it says no more: a second one would be billed twice.
fn creations() -> Vec<Line> {
    const ANSWERS: [fn(&Seen) -> Reply; 4] = [
        |_| Reply::hang_up(),
        |_| Reply::raw("HTTP/1.1 2").cut(),
        |_| Reply::error(502, "api_error", "bad gateway"),
        |_| Reply::error(504, "api_error", "the gateway gave up"),
    ];
    let body = request(Dialect::OpenAi, "m", false);
    let mut lines = Vec::new();
    for upstream in ANSWERS {
        let once = |does, call: Call| Line {
            upstream,
            sees: &[502, 504],
            most: Some(1),
            owner: |owner| owner.upstream_resources = true,
            // Whoever is held to money makes nothing there.
            ..line(does, call.key(2))
        };
        let batch = json!({ "input_file_id": "f", "endpoint": "/v1/chat/completions" });
        lines.extend([
            once("runs a batch once", post("/v1/batches", &batch)),
            once(
                "runs a batch of messages once",
                post("/v1/messages/batches", &json!({ "requests": [{ "params": body }] })),
            ),
            once("uploads a file once", form("/v1/files", &[("purpose", "batch")])),
            once(
                "tunes a model once",
                post("/v1/fine_tuning/jobs", &json!({ "model": "m", "training_file": "f" })),
            ),
            once("makes a store once", post("/v1/vector_stores", &json!({ "name": "x" }))),
            once("begins a conversation once", post("/v1/conversations", &json!({}))),
        ]);
    }
    lines
}

/// What a caller does to its connection and to this proxy alone. Slow heads and readers, empty lines, bodies that nobody
/// reads and crowds of one address need sockets: `server/tests.rs`.
fn connections() -> Vec<Line> {
    let bare = |call: Call| call.header("x-api-key", "");
    let marked = |line: Line, stranger| Line { stranger: Some(stranger), ..line };
    vec![
        marked(refused("looks whether anybody is there", bare(get("/")), &[200]), true),
        marked(refused("has no key, and stays", bare(messages()), &[401]), true),
        marked(refused("has a wrong key, and stays", messages().key(99), &[401, 429]), true),
        marked(line("has a key", messages()), false),
        marked(refused("is refused with a key", post("/v1/files", &json!({})), &[403]), false),
        refused("lists the models over and over", get("/v1/models"), &[200]),
        refused(
            "lists the models under many names",
            get("/v1/models").header("user-agent", &"x".repeat(10_000)),
            &[200],
        ),
        refused("asks what is allowed", Call::new(Method::OPTIONS, "/v1/messages"), &[404, 405]),
    ]
}

/// Bodies in which the model is missing or hard to find.
fn bodies() -> Vec<Line> {
    let three = |call: Call| call.key(3);
    let prompt = json!({ "prompt": "a cat" });
    let nameless = |does, path: &str| refused(does, post(path, &prompt), &[400]);
    vec![
        refused(
            "has a picture changed by a model it may not use",
            three(form("/v1/images/edits", &[("model", "dear"), ("prompt", "x")])),
            &[400],
        ),
        refused(
            "names two models in a form",
            form("/v1/images/edits", &[("model", "m"), ("model", "dear")]),
            &[400],
        ),
        refused("names no model in a form", form("/v1/audio/transcriptions", &[("prompt", "x")]), &[400]),
        nameless("names no model for a picture", "/v1/images/generations"),
        nameless("names no model for a completion", "/v1/completions"),
        refused("uses a model it may not", three(ask(Dialect::OpenAi, "dear", true)), &[400]),
        refused(
            "names the model twice",
            three(Call::post(
                "/v1/chat/completions",
                r#"{"model":"m","messages":[{"role":"user","content":"x"}],"model":"dear"}"#,
            )),
            &[400],
        ),
        refused(
            "hides the model behind its case",
            three(Call::post(
                "/v1/chat/completions",
                r#"{"model":"m","messages":[{"role":"user","content":"x"}],"Model":"dear"}"#,
            )),
            &[400],
        ),
        Line {
            upstream: |seen| match seen.header("content-type") {
                Some("application/json") => honest(seen),
                other => Reply::error(500, "api_error", &format!("read as {other:?}")),
            },
            ..line(
                "calls JSON a form",
                chat().header("content-type", "application/x-www-form-urlencoded; charset=utf-16"),
            )
        },
        refused(
            "begins its body with a mark",
            Call::post("/v1/chat/completions", format!("\u{feff}{}", request(Dialect::OpenAi, "m", true))),
            &[400],
        ),
        refused(
            "writes its body in another encoding",
            Call::post(
                "/v1/chat/completions",
                request(Dialect::OpenAi, "m", true)
                    .to_string()
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<u8>>(),
            ),
            &[400],
        ),
        line("spells a model in capitals", ask(Dialect::OpenAi, "M", true)),
        line("spells a model with its vendor", ask(Dialect::OpenAi, "vendor/m:nitro", true)),
        line("uses a model that nobody priced", ask(Dialect::OpenAi, "nobody-priced-this", true)),
    ]
}

/// Sensitive words, hidden.
fn words() -> Vec<Line> {
    const TOOL: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"tools":[{"name":"t","description":"forbidden","input_schema":{"type":"object"}}]}"#;
    const SYSTEM: &str =
        r#"{"model":"m","max_tokens":9,"system":"forbidden","messages":[{"role":"user","content":"x"}]}"#;
    let vendor = |does, body: &str, all: bool| {
        let call = Call::post("/v1/messages", body.to_owned());
        match all {
            true => Line { owner: |owner| owner.word_scope = WordScope::All, ..refused(does, call, &[400]) },
            false => line(does, call),
        }
    };
    // A reader that builds a tree of it needs a hundred times its size.
    let numbers = |start: &str, each: &str, end: &str| {
        let many = each.repeat(300_000);
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{start}{many}{end}}}]}}"#);
        Call::post("/v1/chat/completions", body)
    };
    let hidden = |does, body: &str| refused(does, Call::post("/v1/messages", body.to_owned()), &[400]);
    vec![
        hidden(
            "says a forbidden word",
            r#"{"model":"m","messages":[{"role":"user","content":"forbidden"}]}"#,
        ),
        hidden(
            "says it in escapes",
            r#"{"model":"m","messages":[{"role":"user","content":"f\u006frbidden"}]}"#,
        ),
        hidden(
            "says it in a member that only some read",
            r#"{"model":"m","messages":[],"Messages":[{"role":"user","content":"forbidden"}]}"#,
        ),
        hidden(
            "says it in a document",
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"forbidden"}}]}]}"#,
        ),
        hidden(
            "says it first and something else last",
            r#"{"model":"m","messages":[{"role":"user","content":"forbidden"}],"messages":[{"role":"user","content":"x"}]}"#,
        ),
        hidden(
            "says it as a tool's result",
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"forbidden"}]}]}"#,
        ),
        vendor("says it in a tool's description", TOOL, true),
        vendor("says it in a tool's description where that is the vendor's", TOOL, false),
        vendor("says it in the system prompt", SYSTEM, true),
        vendor("says it in the system prompt where that is the vendor's", SYSTEM, false),
        line("sends a great many numbers where words are looked for", numbers("[", "0,", "0]")),
        line("sends a great many lists where words are looked for", numbers("[", "[],", "[]]")),
        line("sends a great many empty texts where words are looked for", numbers("[", "\"\",", "\"\"]")),
        refused("says it behind a great many numbers", numbers("[", "0,", "\"forbidden\"]"), &[400]),
        refused(
            "says it in a rerank",
            post("/v1/rerank", &json!({ "model": "m", "query": "forbidden", "documents": ["x"] })),
            &[400],
        ),
        refused(
            "says it in a form",
            form("/v1/images/edits", &[("model", "m"), ("prompt", "forbidden")]),
            &[400],
        ),
        refused(
            "says it in a form, in a field that calls itself a file",
            form("/v1/images/edits", &[("model", "m"), ("instructions\"; filename=\"a.txt", "forbidden")]),
            &[400],
        ),
    ]
}

/// What an upstream tells of itself and of its account.
fn secrets() -> Vec<Line> {
    fn talkative(seen: &Seen) -> Reply {
        honest(seen)
            .header("openai-organization", "org-of-ours")
            .header("anthropic-organization-id", "org-of-ours")
            .header("strict-transport-security", "max-age=1")
            .header("content-security-policy", "default-src 'none'")
            .header("access-control-allow-origin", "*")
            .header("set-cookie", "a=b")
            .header("cf-ray", "123")
    }
    fn quoting(_: &Seen) -> Reply {
        let text =
            "Incorrect key sk-proj-ab***wxyz in organization org-of-ours, see https://platform.example";
        Reply::error(400, "invalid_request_error", text)
    }
    let told =
        &["org-of-ours", "strict-transport", "content-security", "access-control", "set-cookie", "cf-ray"];
    vec![
        Line { upstream: talkative, hides: told, ..line("reads the headers of an answer", chat()) },
        Line {
            upstream: quoting,
            sees: &[400],
            hides: &["sk-proj", "org-of-ours"],
            ..line("reads an error", chat())
        },
        Line {
            upstream: |_| {
                let text = "Incorrect key sk-proj-ab***wxyz in organization org-of-ours";
                let error = json!({ "type": "invalid_request_error", "message": text });
                Reply::json(200, json!({ "type": "error", "error": error }))
            },
            sees: &[400],
            hides: &["sk-proj", "org-of-ours"],
            ..line("reads an error in the guise of an answer", ask(Dialect::OpenAi, "m", false))
        },
    ]
}
