//! Event sequences, plain bodies, counters.

use serde_json::{Value, json};

use super::super::{Answer, Tokens, Upstream};
use super::{KEY, PATHS, ask, parse, question, send, text};

/// The kinds of the events in order, repeated ones once.
fn kinds(events: &[(String, Value)]) -> Vec<String> {
    let mut kinds: Vec<String> = events.iter().map(|(name, _)| name.clone()).collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn messages_stream_has_the_documented_sequence() {
    let upstream = Upstream::start().await;
    upstream.always([Answer::ok().events(3).usage(Tokens {
        input: Some(7),
        output: Some(5),
        cache_read: Some(11),
        cache_write: Some(2),
        cache_write_1h: Some(3),
        reasoning: None,
    })]);
    for prompt in ["hi", "please use the tool"] {
        let body = question("/v1/messages", prompt, true);
        let events = parse(&text(ask(&upstream, "/v1/messages", &body).await).await.expect("a stream"));
        let mut wanted =
            vec!["message_start", "content_block_start", "ping", "content_block_delta", "content_block_stop"];
        if prompt != "hi" {
            wanted.extend(["content_block_start", "content_block_delta", "content_block_stop"]);
        }
        wanted.extend(["message_delta", "message_stop"]);
        assert_eq!(kinds(&events), wanted);
        assert!(events.iter().all(|(name, data)| data["type"] == name.as_str()));
        let start = &events[0].1["message"];
        assert_eq!(start["model"], "claude-sonnet-4-5");
        assert_eq!(start["usage"]["input_tokens"], 7);
        assert_eq!(start["usage"]["cache_read_input_tokens"], 11);
        assert_eq!(start["usage"]["cache_creation_input_tokens"], 5);
        assert_eq!(start["usage"]["cache_creation"]["ephemeral_1h_input_tokens"], 3);
        let last = &events[events.len() - 2].1;
        assert_eq!(last["usage"]["output_tokens"], 5);
        assert_eq!(last["delta"]["stop_reason"], if prompt == "hi" { "end_turn" } else { "tool_use" });
        let arguments: String =
            events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect();
        let wanted = if prompt == "hi" { "" } else { r#"{"city":"demo","days":1}"# };
        assert_eq!(arguments, wanted);
    }
}

#[tokio::test]
async fn chat_stream_ends_with_usage_only_when_asked() {
    let upstream = Upstream::start().await;
    upstream.always([Answer::ok().events(4).tokens(9, 4)]);
    for include in [true, false] {
        let mut body = question("/v1/chat/completions", "hi", true);
        body["stream_options"]["include_usage"] = include.into();
        // Without /v1: base URLs may or may not end in it.
        let events = parse(&text(ask(&upstream, "/chat/completions", &body).await).await.expect("a stream"));
        // role, 4 deltas, finish, [usage], [DONE]
        assert_eq!(events.len(), if include { 8 } else { 7 });
        assert_eq!(events[0].1["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(events[5].1["choices"][0]["finish_reason"], "stop");
        assert_eq!(events[5].1.get("usage"), include.then_some(&Value::Null));
        if include {
            assert_eq!(events[6].1["choices"], json!([]));
            assert_eq!(events[6].1["usage"]["total_tokens"], 13);
        }
        assert_eq!(events.last().expect("events").1, "[DONE]");
    }
}

#[tokio::test]
async fn responses_stream_numbers_its_events() {
    let upstream = Upstream::start().await;
    for (prompt, item) in [("hi", "message"), ("use the tool", "function_call")] {
        let body = question("/v1/responses", prompt, true);
        let events = parse(&text(ask(&upstream, "/v1/responses", &body).await).await.expect("a stream"));
        let middle = match item {
            "message" => vec![
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
            ],
            _ => vec!["response.function_call_arguments.delta", "response.function_call_arguments.done"],
        };
        let mut wanted = vec!["response.created", "response.in_progress", "response.output_item.added"];
        wanted.extend(middle);
        wanted.extend(["response.output_item.done", "response.completed"]);
        assert_eq!(kinds(&events), wanted);
        for (number, (name, data)) in events.iter().enumerate() {
            assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
        }
        let response = &events.last().expect("events").1["response"];
        assert_eq!(response["output"][0]["type"], item);
        assert!(response["usage"]["input_tokens"].as_u64() > Some(0));
    }
}

#[tokio::test]
async fn plain_answers_say_the_same_as_streams() {
    let upstream = Upstream::start().await;
    for path in PATHS {
        let body = question(path, "hello there", false);
        let answer: Value =
            serde_json::from_str(&text(ask(&upstream, path, &body).await).await.expect("a body"))
                .expect("JSON");
        let said = [
            &answer["content"][0]["text"],
            &answer["choices"][0]["message"]["content"],
            &answer["output"][0]["content"][0]["text"],
        ];
        let said = said.into_iter().find_map(Value::as_str).expect("a text");
        assert!(said.contains("abcd") && said.contains("hello there"), "{path}: {said}");
        assert!(answer["usage"].is_object(), "{path}");
    }
    let used = question("/v1/chat/completions", "use the tool", false);
    let answer: Value = serde_json::from_str(
        &text(ask(&upstream, "/v1/chat/completions", &used).await).await.expect("a body"),
    )
    .expect("JSON");
    let arguments = answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str();
    assert_eq!(arguments, Some(r#"{"city":"demo","days":1}"#));
}

#[tokio::test]
async fn other_paths_answer() {
    let upstream = Upstream::start().await;
    let texts = json!({"model": "text-embedding-3-small", "input": ["a", "b"]});
    let cases = [
        ("/v1/messages/count_tokens", question("/v1/messages", "hi", false), "input_tokens"),
        ("/v1/embeddings", texts, r#""index":1"#),
        ("/v1/models", Value::Null, "claude-sonnet-4-5"),
        ("/", Value::Null, "demo-upstream"),
        ("/v1/nothing", Value::Null, "no such path"),
    ];
    for (path, body, wanted) in cases {
        let got = text(ask(&upstream, path, &body).await).await.expect("a body");
        assert!(got.contains(wanted), "{path}: {got}");
    }
}

#[tokio::test]
async fn stats_count_by_credential_and_hide_it() {
    let upstream = Upstream::start().await;
    let body = question("/v1/messages", "hi", true);
    text(ask(&upstream, "/v1/messages?beta=true", &body).await).await.expect("a stream");
    let refused = send(&upstream, "/v1/messages", &[], &body).await.expect("an answer");
    assert_eq!(refused.status(), 401);
    text(send(&upstream, "/v1/messages", &[("x-api-key", "other-9999")], &body).await)
        .await
        .expect("a stream");
    let stats = upstream.stats();
    assert_eq!((stats.total, stats.of(KEY).ok, stats.of("9999").ok, stats.of("none").errors), (3, 1, 1, 1));
    assert_eq!(upstream.in_flight(), 0);
    let seen = upstream.requests();
    assert_eq!((seen[0].path.as_str(), seen[0].query.as_deref()), ("/v1/messages", Some("beta=true")));
    assert_eq!(seen[0].json(), body);
    assert_ne!(seen[0].connection, seen[1].connection);
    let shown = text(send(&upstream, "/_stats", &[], &Value::Null).await).await.expect("stats");
    assert!(
        shown.contains(r#""total":3"#) && shown.contains("***9999") && !shown.contains("other-9999"),
        "{shown}"
    );
    upstream.reset();
    assert_eq!((upstream.stats().total, upstream.requests().len()), (0, 0));
}
