//! Damaged bodies and answers against everything here that reads what strangers write: nothing panics, nothing grows
//! without bound, pieces read like the whole, and what is taken is what serde_json takes.

use crate::request::{Edits, ParseError, edit, parse};
use crate::sse::{EVENT_LIMIT, Event, HoldBack, Parser};
use crate::usage::{UsageScanner, fake_success};
use crate::{error_body, session};
use bytes::Bytes;
use contract::usage::Dialect;
use mutate::{cuts, damaged, fuzz, pieces};
use proptest::prelude::*;
use serde_json::Value;

macro_rules! fixtures {
    ($($file:literal),+ $(,)?) => {
        &[$(include_bytes!(concat!("fixtures/", $file))),+]
    };
}

const ANSWERS: &[&[u8]] = fixtures![
    "anthropic.json",
    "anthropic_cut.sse",
    "anthropic_error_first.sse",
    "anthropic_relay.sse",
    "anthropic_tools.sse",
    "chat.json",
    "chat.sse",
    "chat_reasoning_deepseek.sse",
    "embeddings.json",
    "gemini.sse",
    "images_stream.sse",
    "responses.json",
    "responses.sse",
    "responses_failed.sse",
    "responses_incomplete.sse",
];

const REQUESTS: &[&[u8]] = &[
    br#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":[{"type":"text","text":"hi \"x\", }]"}]}],"tools":[{"name":"a","input_schema":{"model":"no"}}],"metadata":{"user_id":"u_session_1"},"max_tokens":32000,"stream":true}"#,
    br#"{"model":"gpt-5","input":[{"role":"user","content":[{"type":"input_text","text":"\u00e9\ud83d\ude00"}]}],"prompt_cache_key":"k","previous_response_id":"resp_0123456789abcdef0123","max_output_tokens":1e3,"service_tier":"priority"}"#,
    br#"{"stream_options":{"include_usage":false,"a":[1,-2.5e-3]},"messages":"hello","model":"m","stream":null}"#,
    br#"{"prompt":"hello","n":[[],{},[null,true,false]],"model":"a","model":"b"}"#,
];

const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"\\\"",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"null",
    b"true",
    b"-",
    b"1e999",
    b"0.0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\x00",
    b" ",
    b"\r",
    b"\n",
    b"\n\n",
    b"\r\n\r\n",
    b"data:",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b": ",
    b"id: 1\n",
    b"retry: 1\n",
    b"\"model\":\"z\",",
    b"\"MODEL\":\"z\",",
    b"\"stream\":true,",
    b"\"usage\":{\"input_tokens\":18446744073709551616},",
    b"\"error\":{},",
    b"\"messages\":[],",
    b"\"stream_options\":{\"include_usage\":true},",
];

const DIALECTS: [Dialect; 4] = [Dialect::Anthropic, Dialect::Responses, Dialect::OpenAi, Dialect::Gemini];

fn same<T: PartialEq + std::fmt::Debug>(one: &T, other: &T, what: &str) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?} and {other:?}")) }
}

const EDITS: Edits<'_> = Edits { model: Some("an\"other"), include_usage: true, forced: &[] };

/// Members by name, the last one where there are several; `None`: no JSON object.
fn members(body: &[u8]) -> Option<serde_json::Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

#[test]
fn a_request_is_read_as_serde_json_reads_it_and_an_edit_changes_what_it_names() {
    fuzz(3_000, damaged(REQUESTS, TOKENS), |body| {
        let body = Bytes::from(body);
        let (ask, mut before) = match (parse(&body), members(&body)) {
            (Ok(ask), Some(before)) => (ask, before),
            // Not a fault of the form, but a member that we need and that is none.
            (Err(ParseError::Member { .. }), _) | (Err(_), None) => return Ok(()),
            (Err(error), Some(_)) => return Err(format!("serde_json takes it, we say {error}")),
            // What is wrong inside a member that we do not need is the upstream's to say.
            (Ok(ask), None) => {
                drop(edit(&body, &ask, EDITS));
                return Ok(());
            }
        };
        let word = |name: &str| before.get(name).and_then(Value::as_str);
        same(&ask.model.as_deref(), &word("model"), "model")?;
        same(
            &ask.stream,
            &before.get("stream").is_some_and(|stream| *stream == Value::Bool(true)),
            "stream",
        )?;
        same(&ask.prompt_cache_key.as_deref(), &word("prompt_cache_key"), "prompt_cache_key")?;
        drop(session::session_id(&ask, [None; 4], &body, 1));

        let edited = edit(&body, &ask, EDITS);
        let mut after = members(&edited).ok_or("an edit made it no JSON")?;
        let model = after.remove("model");
        if ask.model.is_some() {
            same(&model.as_ref().and_then(Value::as_str), &Some("an\"other"), "edited model")?;
        }
        before.remove("model");
        let options = (before.remove("stream_options"), after.remove("stream_options"));
        if !matches!(options.0, Some(ref other) if !other.is_object() && !other.is_null()) {
            let asked = options.1.as_ref().map(|options| &options["include_usage"]);
            same(&asked, &Some(&Value::Bool(true)), "edited stream_options")?;
        }
        same(&before, &after, "members that nobody edited")
    });
}

#[test]
fn events_are_the_same_in_any_pieces() {
    type Owned = (Option<String>, Vec<u8>);
    const LIMIT: usize = 1_024;
    let read = |limit: usize, pieces: &[&[u8]]| {
        let (mut parser, mut events, mut held) = (Parser::new(limit), Vec::<Owned>::new(), 0);
        let mut keep = |event: Event<'_>| events.push((event.event.map(str::to_owned), event.data.to_vec()));
        for piece in pieces {
            // What is too long is passed over.
            let _ = parser.feed(piece, &mut keep);
            held = held.max(parser.held());
        }
        parser.finish(&mut keep);
        (events, held)
    };
    fuzz(3_000, (damaged(ANSWERS, TOKENS), cuts()), |(bytes, cuts)| {
        let pieces = pieces(&bytes, &cuts);
        same(&read(EVENT_LIMIT, &[&bytes]).0, &read(EVENT_LIMIT, &pieces).0, "events")?;
        let held = read(LIMIT, &pieces).1;
        if held > LIMIT { Err(format!("{held} bytes are held")) } else { Ok(()) }
    });
}

#[test]
fn what_is_held_back_is_the_same_in_any_pieces_and_nothing_else_is_lost() {
    let filter = |pieces: &[&[u8]]| {
        let mut filter = HoldBack::default();
        let mut out: Vec<u8> =
            pieces.iter().flat_map(|piece| filter.feed(&Bytes::copy_from_slice(piece)).concat()).collect();
        out.extend(filter.finish().unwrap_or_default());
        (out, filter.dropped())
    };
    fuzz(2_000, (damaged(ANSWERS, TOKENS), cuts()), |(bytes, cuts)| {
        let whole = filter(&[&bytes]);
        same(&whole, &filter(&pieces(&bytes, &cuts)), "filtered")?;
        if whole.1 || whole.0 == bytes {
            Ok(())
        } else {
            Err("bytes were lost of which none was dropped".to_owned())
        }
    });
}

#[test]
fn an_answer_is_metered_the_same_in_any_pieces() {
    let inputs = (damaged(ANSWERS, TOKENS), cuts(), 0..DIALECTS.len(), any::<bool>());
    fuzz(4_000, inputs, |(bytes, cuts, dialect, streamed)| {
        let read = |pieces: &[&[u8]]| {
            let mut scanner = UsageScanner::new(DIALECTS[dialect], streamed);
            pieces.iter().for_each(|piece| scanner.feed(piece));
            let seen = (scanner.first_content(), scanner.ended(), scanner.terminal(), scanner.events());
            let errors = (scanner.leading_error().is_some(), scanner.error().is_some());
            (seen, errors, scanner.finish())
        };
        same(&read(&[&bytes]), &read(&pieces(&bytes, &cuts)), "usage")
    });
}

#[test]
fn errors_of_any_form_are_read_without_a_panic() {
    fuzz(3_000, (damaged(ANSWERS, TOKENS), any::<bool>()), |(bytes, json)| {
        let kind = if json { "application/json" } else { "text/html; charset=x" };
        let _ = fake_success(Some(kind), &bytes).map(|fake| (fake.status(), fake.reason().len()));
        drop(error_body::message_of(&bytes));
        Ok(())
    });
}
