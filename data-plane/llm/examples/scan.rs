//! How long it takes to find the few members of a Claude-Code-like body, against serde_json, and to
//! follow a stream.
//! `cargo run --release -p llm --example scan`

use serde::Deserialize;
use serde_json::value::RawValue;
use std::hint::black_box;
use std::time::Instant;

#[derive(Deserialize)]
#[expect(dead_code, reason = "only the cost of reading them is of interest")]
struct Borrowed<'a> {
    #[serde(borrow)]
    model: Option<std::borrow::Cow<'a, str>>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only the cost of reading them is of interest")]
struct Raw<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    tools: &'a RawValue,
    messages: &'a RawValue,
    system: &'a RawValue,
}

/// Like the first turn of Claude Code: 24 tools in 63 KB, 7 KB of messages, 6 KB of system prompt.
fn body() -> Vec<u8> {
    let prose = "Executes a given command in a persistent shell session with optional timeout.\n\n\
                 Usage notes:\n - The \"command\" argument is required.\n - Quote paths with spaces.\n";
    let property = |name: &str| {
        format!(r#""{name}":{{"type":"string","description":"The {name} to use","enum":["a","b"]}}"#)
    };
    let tools: Vec<String> = (0..24)
        .map(|n| {
            let properties: Vec<String> = (0..9).map(|p| property(&format!("field_{n}_{p}"))).collect();
            format!(
                r#"{{"name":"Tool{n}","description":{},"input_schema":{{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{{{}}},"required":["field_{n}_0"],"additionalProperties":false}}}}"#,
                serde_json::json!(prose.repeat(10)),
                properties.join(",")
            )
        })
        .collect();
    let messages = format!(
        r#"[{{"role":"user","content":[{{"type":"text","text":{}}},{{"type":"text","text":"say ok","cache_control":{{"type":"ephemeral"}}}}]}}]"#,
        serde_json::json!(prose.repeat(41))
    );
    let system = format!(
        r#"[{{"type":"text","text":{},"cache_control":{{"type":"ephemeral"}}}}]"#,
        serde_json::json!(prose.repeat(35))
    );
    format!(
        r#"{{"model":"claude-sonnet-4-5","messages":{messages},"system":{system},"tools":[{}],"metadata":{{"user_id":"{{\"session_id\":\"0b1c\"}}"}},"max_tokens":32000,"thinking":{{"type":"enabled","budget_tokens":31999}},"stream":true}}"#,
        tools.join(",")
    )
    .into_bytes()
}

/// The best of many runs: the machine is shared.
fn measure(what: &str, mut run: impl FnMut()) {
    let mut best = u128::MAX;
    for _ in 0..2_000 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_nanos());
    }
    println!("{what:<40} {best:>8} ns");
}

fn main() {
    let large = body();
    let small = br#"{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say this is a test, please, and nothing else at all."}],"max_tokens":64,"temperature":0.7,"stream":true}"#.to_vec();
    for body in [large, small] {
        println!("body of {} bytes", body.len());
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        measure("llm::request::parse", || {
            black_box(llm::request::parse(black_box(&body)).is_ok());
        });
        measure("serde_json IgnoredAny", || {
            black_box(serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&body)).is_ok());
        });
        measure("serde_json borrowed struct", || {
            black_box(serde_json::from_slice::<Borrowed<'_>>(black_box(&body)).is_ok());
        });
        measure("serde_json RawValue members", || {
            black_box(serde_json::from_slice::<Raw<'_>>(black_box(&body)).is_ok());
        });
        measure("serde_json Value", || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(&body)).is_ok());
        });
    }
    streams();
}

/// The cost of one text delta, fed as one piece, in each dialect.
fn streams() {
    use contract::usage::Dialect;
    for (dialect, event) in [
        (
            Dialect::Anthropic,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\n\n",
        ),
        (
            Dialect::OpenAi,
            "data: {\"id\":\"chatcmpl-Cd1\",\"object\":\"chat.completion.chunk\",\"created\":1763700000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello there\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        ),
        (
            Dialect::Responses,
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":6,\"item_id\":\"msg_1\",\"output_index\":1,\"content_index\":0,\"delta\":\"Hello there\",\"logprobs\":[]}\n\n",
        ),
    ] {
        let mut scanner = llm::usage::UsageScanner::new(dialect, true);
        measure(&format!("one {dialect} delta, x 100"), || {
            for _ in 0..100 {
                scanner.feed(black_box(event.as_bytes()));
            }
        });
        let mut scanner = llm::usage::UsageScanner::new(dialect, true);
        let (start, end) = event.split_at(event.len() / 2);
        measure(&format!("one {dialect} delta in two pieces, x 100"), || {
            for _ in 0..100 {
                scanner.feed(black_box(start.as_bytes()));
                scanner.feed(black_box(end.as_bytes()));
            }
        });
    }
}
