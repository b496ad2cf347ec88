use super::*;
use proptest::prelude::*;
use serde_json::json;

/// All texts, those of several windows put together.
fn read(body: &[u8], vendors: bool) -> Result<Vec<String>, Unreadable> {
    let mut texts = Texts::new(body, vendors);
    let mut all = Vec::new();
    while let Some(found) = texts.step()? {
        if let Found::Text(mut windows) = found {
            all.push(whole(&mut windows));
        }
    }
    Ok(all)
}

fn whole(windows: &mut Windows<'_>) -> String {
    let mut text = String::new();
    while let Some(window) = windows.step() {
        assert!(window.text.len() <= WINDOW + 4, "{}", window.text.len());
        assert_eq!(window.first, text.is_empty());
        let known =
            if window.first { 0 } else { window.text.ceil_char_boundary(0).max(overlap(&text, window.text)) };
        text.push_str(&window.text[known..]);
    }
    text
}

/// How much of the end of `text` is the beginning of `next`.
fn overlap(text: &str, next: &str) -> usize {
    let most = next.len().min(OVERLAP);
    (0..=most).rev().find(|n| next.is_char_boundary(*n) && text.ends_with(&next[..*n])).unwrap_or(0)
}

#[test]
fn texts_of_people_and_tools_in_every_dialect() {
    let file = format!("data:image/png;base64,{}", "iVBORw0KGgo1".repeat(20));
    let bare = "iVBORw0KGgo1".repeat(20);
    let cases = [
        (
            json!({"model": "bad", "system": [{"type": "text", "text": "v"}], "metadata": {"user_id": "bad"},
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "bad"},
                    {"content": [
                        {"type": "text", "text": "b"},
                        {"type": "tool_result", "tool_use_id": "bad", "content": [{"type": "text", "text": "c"}]},
                        {"type": "document", "title": "d", "source": {"type": "text", "media_type": "text/plain", "data": "e e"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": bare}},
                        "f",
                    ], "role": "user"},
                ],
                "tools": [{"name": "v", "description": "v"}], "stop_sequences": ["v"]}),
            vec!["a", "b", "c", "d", "e e", "f"],
        ),
        (
            json!({"model": "m", "messages": [
                {"role": "system", "content": "v"}, {"role": "developer", "content": "v"},
                {"role": "tool", "tool_call_id": "bad", "content": "a"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": file}}, {"type": "text", "text": "b"}]}],
                "functions": [{"description": "v"}], "user": "bad", "prediction": {"type": "content", "content": "c"}}),
            vec!["a", "b", "c"],
        ),
        (
            json!({"instructions": "v", "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "bad"}]},
                {"type": "function_call", "name": "bad", "arguments": "bad"},
                {"type": "function_call_output", "call_id": "bad", "output": "b"},
                {"type": "function_call_output", "role": "assistant", "output": "c"},
                {"type": "reasoning", "summary": [], "encrypted_content": "bad"},
                {"type": "reasoning", "role": "user", "summary": "d"}],
                "prompt": {"id": "bad", "variables": {"x": "e"}}}),
            vec!["a", "b", "c", "d", "e"],
        ),
        (json!({"input": "a"}), vec!["a"]),
        (json!({"input": ["a", "b", [1, 2], {"text": "c"}]}), vec!["a", "b", "c"]),
        (json!({"input": {"role": "assistant", "content": "a"}}), vec!["a"]),
        (json!({"prompt": ["a"], "suffix": "b"}), vec!["a", "b"]),
        (json!({"query": "a", "documents": ["b", {"text": "c"}]}), vec!["a", "b", "c"]),
        (
            json!({"contents": [{"role": "model", "parts": [{"text": "bad"}]}, {"parts": [{"text": "a"}, {"inlineData": {"mimeType": "x", "data": bare}}]}],
                "systemInstruction": {"parts": [{"text": "v"}]}}),
            vec!["a"],
        ),
        (
            json!({"requests": [{"custom_id": "bad", "params": {"model": "bad", "system": "v", "messages": [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "bad"}]}}, {"extra": "b"}]}),
            vec!["a", "b"],
        ),
        (json!({"unheard_of": [{"deep": {"er": ["a"]}}]}), vec!["a"]),
        (json!([{"role": "assistant", "content": "a"}]), vec!["a"]),
    ];
    for (body, expected) in cases {
        let text = body.to_string();
        let found = read(text.as_bytes(), false).unwrap();
        assert_eq!(sorted(found), expected, "{body}");
        let all = read(text.as_bytes(), true).unwrap();
        assert!(all.iter().filter(|text| *text == "v").count() == text.matches("\"v\"").count(), "{body}");
        assert!(all.iter().all(|text| text != "bad"), "{body}");
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

#[test]
fn no_spelling_hides_a_text() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"Messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#, &["a"]),
        ("{\"me\u{17f}\u{17f}ages\":[{\"role\":\"user\",\"content\":\"a\"}]}", &["a"]),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"b"}]}"#,
            &["a", "b"],
        ),
        (r#"{"messages":[{"role":"user","role":"assistant","content":"a"}]}"#, &["a"]),
        (r#"{"messages":[{"Role":"user","content":"a","role":"assistant"}]}"#, &["a", "user"]),
        (r#"{"messages":[{"r\u006fle":"user","content":"a","role":"assistant"}]}"#, &["a"]),
        (r#"{"messages":[{"role":"Assistant","content":"a"}]}"#, &["a"]),
        (r#"{"messages":[{"role":["assistant"],"content":"a"}]}"#, &["a", "assistant"]),
        (r#"{"messages":[[{"role":"user","content":"a"}]]}"#, &["a"]),
        (r#"{"messages":"a"}"#, &["a"]),
        (r#"{"m\u0065ssages":[{"role":"user","content":"\u0042AD \ud83d\ude00\n"}]}"#, &["BAD 😀\n"]),
        (r#"{"messages":[{"role":"user","content":[{"Type":"a","DATA":"b"}]}]}"#, &["a", "b"]),
        (r#"{"messages":[{"role":"user","content":"half \ud83d"}]}"#, &["half \u{fffd}"]),
        (r#"{"input":[{"type":"function_call","type":"function_call_output","output":"a"}]}"#, &["a"]),
    ];
    for (body, expected) in cases {
        assert_eq!(sorted(read(body.as_bytes(), false).unwrap()), *expected, "{body}");
    }
    assert_eq!(read(b"{\"input\":\"a\xff b\xc3\"}", false).unwrap(), ["a\u{fffd} b\u{fffd}"]);
}

#[test]
fn a_file_is_none_where_it_holds_prose() {
    let prose = "this is no file but a text of a person, who wrote it without a break for quite some while";
    for (name, value, is_text) in [
        ("data", prose.to_owned(), true),
        ("data", prose.replace([' ', ','], "_"), true),
        ("data", "Ab1/".repeat(40), false),
        ("data", "Ab1/\\n".repeat(40), false),
        ("data", "Ab1/".repeat(4), true),
        ("text", "Ab1/".repeat(40), true),
        ("Data", "Ab1/".repeat(40), true),
        ("url", format!("data:image/png;base64,{}", "Ab1/".repeat(40)), false),
        ("url", format!("data:image/png;base64,{prose}"), true),
        ("url", format!("data:text/plain,{}", "Ab1/".repeat(40)), true),
        ("text", format!("data:image/png;base64,{}", "Ab1/".repeat(40)), true),
    ] {
        let body = format!(r#"{{"input":[{{"{name}":"{value}"}}]}}"#);
        assert_eq!(read(body.as_bytes(), false).unwrap().len(), usize::from(is_text), "{body}");
    }
}

#[test]
fn what_is_no_json_is_refused_wherever_it_stands() {
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    for body in [
        "",
        "{",
        "x",
        "{}x",
        "{'a':1}",
        "{\"a\":'b'}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "[1 2]",
        "{]",
        "[}",
        "[nul]",
        "\u{feff}{}",
        "{\"a\":\"",
        "{\"metadata\":{'a':1}}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":'\"'}]}",
        "{/**/}",
        "[NaN]",
        "\"a",
        &deep,
    ] {
        assert!(read(body.as_bytes(), false).is_err(), "{body}");
    }
    let fine = format!("{}{}", "[".repeat(128), "]".repeat(128));
    for body in ["{}", " [ ] ", "[null,true,false,-1.5e+3]", "\"a\"", "1", &fine] {
        assert!(read(body.as_bytes(), false).is_ok(), "{body}");
    }
}

#[test]
fn a_long_text_comes_in_stretches_that_overlap() {
    let text: String = (0..60_000).map(|n| format!("wört{n}\n")).collect();
    let body = json!({"input": text}).to_string();
    assert_eq!(read(body.as_bytes(), false).unwrap(), std::slice::from_ref(&text));
    let mut windows = Windows::plain(text.as_bytes());
    assert_eq!(whole(&mut windows), text);
    let mut windows = Windows::plain(text.as_bytes());
    let mut seen = 0;
    while let Some(window) = windows.step() {
        seen += usize::from(window.text.contains("wört9999\n"));
    }
    assert!(seen >= 1);
}

#[test]
fn many_bytes_without_a_text_are_read_in_steps() {
    for body in [
        format!("[{}0]", "0,".repeat(500_000)),
        " ".repeat(1_000_000) + "{}",
        format!("\"{}\"", "\\n".repeat(500_000)),
    ] {
        let mut texts = Texts::new(body.as_bytes(), false);
        let (mut pauses, mut before) = (0, 0);
        while let Some(found) = texts.step().unwrap() {
            assert!(texts.at() - before <= 2 * 64 * 1024);
            before = texts.at();
            pauses += usize::from(matches!(found, Found::Pause));
        }
        assert!(pauses >= 14, "{pauses}");
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i32>().prop_map(|n| json!(n)),
        ".{0,12}".prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let names = "(messages|input|role|type|data|text|requests|params|[a-c]|\\PC{1,3})";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| json!(items)),
            prop::collection::hash_map(names, inner, 0..6).prop_map(|members| json!(members)),
        ]
    })
}

/// Strings of a tree, under any name but the words of the protocol.
fn strings(value: &serde_json::Value, all: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) if !text.is_empty() => all.push(text.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| strings(item, all)),
        serde_json::Value::Object(members) => members.iter().for_each(|(name, value)| {
            if !(value.is_string() && name::is_word(name)) {
                strings(value, all);
            }
        }),
        _ => {}
    }
}

proptest! {
    #[test]
    fn reads_what_a_parser_reads(value in any_json()) {
        // Under an unknown name everything is looked at.
        let body = json!({"x": value}).to_string();
        let mut expected = Vec::new();
        strings(&json!({"x": value}), &mut expected);
        prop_assert_eq!(sorted(read(body.as_bytes(), false).unwrap()), sorted(expected));
    }

    #[test]
    fn takes_no_more_than_a_parser_takes(text in r#"[\[\]{}",:a1 \\ntrue]{0,24}"#) {
        if read(text.as_bytes(), false).is_ok() {
            // Numbers and escapes are not judged.
            let judged = text.contains(['1', '\\']);
            prop_assert!(judged || serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, true);
        let _ = read(&[b"{\"input\":\"", bytes.as_slice(), b"\"}"].concat(), true);
    }
}
