use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

const CLAUDE: &str = r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":[{"type":"text","text":"model: \"x\", }]"}]},{"role":"assistant","content":"ok"}],
 "tools":[{"name":"a","input_schema":{"model":"no","stream":false}}],
 "metadata":{"user_id":"u_session_1"},"max_tokens":32000,"stream":true}"#;

#[test]
fn finds_the_members_of_a_messages_request() {
    let ask = parse(CLAUDE.as_bytes()).unwrap();
    assert_eq!(ask.model.as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(&CLAUDE[ask.model_token().unwrap()], "\"claude-sonnet-4-5\"");
    assert!(ask.stream && !ask.include_usage);
    assert_eq!((ask.max_output, ask.messages_count), (Some(32000), 2));
    assert_eq!(ask.user_id.as_deref(), Some("u_session_1"));
}

#[test]
fn reads_each_member_in_each_form() {
    let model = |body: &str| parse(body.as_bytes()).unwrap().model.map(Cow::into_owned);
    assert_eq!(model(r#"{}"#), None);
    assert_eq!(model(r#"{"model":null}"#), None);
    assert_eq!(model(r#" { "model" : "a" } "#), Some("a".into()));
    assert_eq!(model(r#"{"model":"a\u002db"}"#), Some("a-b".into()));
    assert_eq!(model(r#"{"model":"a","model":"b"}"#), Some("b".into()), "the last one counts");
    assert_eq!(model(r#"{"model":"a","mod\u0065l":"b"}"#), Some("b".into()), "escapes do not hide a name");

    for twice in [r#"{"model":"a","model":null}"#, r#"{"model":null,"model":"a"}"#] {
        assert!(parse(twice.as_bytes()).is_err(), "readers differ about {twice}");
    }
    let background = |body: &str| parse(body.as_bytes()).unwrap().background;
    assert!(background("{\"bac\u{212a}ground\":true}") && background(r#"{"bac\u212aGround":true}"#));
    assert!(background(r#"{"background":true}"#) && background(r#"{"BackGround":1,"background":false}"#));
    assert!(
        !background(r#"{"background":false}"#)
            && !background(r#"{"background":null,"x":{"background":true}}"#)
    );

    let ceiling = |body: &str| parse(body.as_bytes()).unwrap().max_output;
    assert_eq!(ceiling(r#"{"max_tokens":5}"#), Some(5));
    assert_eq!(ceiling(r#"{"max_completion_tokens":7,"max_tokens":5}"#), Some(7));
    assert_eq!(ceiling(r#"{"max_output_tokens":1e3}"#), Some(1000));
    assert_eq!(ceiling(r#"{"max_tokens":null}"#), None);
    assert_eq!(ceiling(r#"{"max_tokens":-1}"#), None);
    assert_eq!(ceiling(r#"{"max_tokens":1e99}"#), Some(u64::MAX));

    let ask = parse(
        br#"{"stream_options":{"include_usage":true},"service_tier":"priority","input":"hi",
        "prompt_cache_key":"k","previous_response_id":"r","metadata":{"session_id":"s","user_id":7}}"#,
    )
    .unwrap();
    assert!(ask.include_usage);
    assert_eq!(ask.service_tier.as_deref(), Some("priority"));
    assert_eq!(
        (ask.prompt_cache_key.as_deref(), ask.previous_response_id.as_deref()),
        (Some("k"), Some("r"))
    );
    assert_eq!((ask.session_id.as_deref(), ask.user_id.as_deref()), (Some("s"), None));
    assert_eq!(ask.messages_count, 1);
}

#[test]
fn says_what_is_wrong_and_where() {
    use ParseError::*;
    for (body, error) in [
        ("", NotAnObject),
        ("[]", NotAnObject),
        ("null", NotAnObject),
        ("{", Truncated { offset: 1 }),
        (r#"{"model":"a""#, Truncated { offset: 12 }),
        (r#"{"model":"a"#, Truncated { offset: 11 }),
        (r#"{"messages":[{"a":"b"}"#, Truncated { offset: 22 }),
        (r#"{"stream":tru"#, Truncated { offset: 13 }),
        (r#"{"model":"a"}}"#, Malformed { offset: 13, expected: "nothing after the object" }),
        (r#"{"model":"a"} x"#, Malformed { offset: 14, expected: "nothing after the object" }),
        (r#"{"model" "a"}"#, Malformed { offset: 9, expected: "a colon" }),
        (r#"{"model":"a",}"#, Malformed { offset: 13, expected: "a member name in quotes" }),
        (r#"{model:"a"}"#, Malformed { offset: 1, expected: "a member name in quotes" }),
        (r#"{"a":tru,"b":1}"#, Malformed { offset: 5, expected: "a value" }),
        (r#"{"a":1 "b":1}"#, Malformed { offset: 7, expected: "a comma or the end of the object" }),
        (r#"{"model":5}"#, Member { name: "model", expected: "a string", offset: 9 }),
        (r#"{"stream":"yes"}"#, Member { name: "stream", expected: "true or false", offset: 10 }),
    ] {
        assert_eq!(parse(body.as_bytes()), Err(error), "{body}");
    }
    assert_eq!(
        parse(br#"{"model":5}"#).unwrap_err().to_string(),
        "model must be a string (at byte 9 of the request body)"
    );
    assert!(parse(b"{\"model\":\"\xff\"}").is_err(), "a model that is no UTF-8");
}

#[test]
fn another_model_leaves_every_other_byte() {
    let body = Bytes::from_static(CLAUDE.as_bytes());
    let ask = parse(&body).unwrap();
    assert_eq!(
        with_model(&body, &ask, "claude-sonnet-4-5").as_ptr(),
        body.as_ptr(),
        "no copy if nothing changes"
    );
    let edited = with_model(&body, &ask, "a\"b");
    assert_eq!(edited, CLAUDE.replacen("\"claude-sonnet-4-5\"", "\"a\\\"b\"", 1));

    let twice = Bytes::from_static(br#"{"model":"x","a":1,"model":"m"}"#);
    let ask = parse(&twice).unwrap();
    assert_eq!(
        with_model(&twice, &ask, "m"),
        r#"{"model":"m","a":1,"model":"m"}"#,
        "no second model slips by"
    );
}

#[test]
fn usage_is_asked_for_in_every_form() {
    for (body, expected) in [
        (r#"{}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{ "model":"m"}"#, r#"{"stream_options":{"include_usage":true}, "model":"m"}"#),
        (r#"{"stream_options":null}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{"stream_options":{}}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{"stream_options":{"a":[1]}}"#, r#"{"stream_options":{"include_usage":true,"a":[1]}}"#),
        (r#"{"stream_options":{"include_usage":false}}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{"stream_options":{"include_usage":true}}"#, r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{"stream_options":5}"#, r#"{"stream_options":5}"#),
    ] {
        let body = Bytes::from(body);
        assert_eq!(with_include_usage(&body, &parse(&body).unwrap()), expected);
    }
}

#[test]
fn both_edits_at_once() {
    let body = Bytes::from_static(br#"{"stream":true,"stream_options":{"include_usage":false},"model":"a"}"#);
    let edits = Edits { model: Some("b"), include_usage: true, ..Edits::default() };
    let edited = edit(&body, &parse(&body).unwrap(), edits);
    assert_eq!(edited, r#"{"stream":true,"stream_options":{"include_usage":true},"model":"b"}"#);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| json!(f64::from(n) / 8.0)),
        "[\\\\\"{}\\[\\],:a-c\u{e9}\n]{0,90}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-d\"\\\\]{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_a_real_parser(
        before in any_json(), messages in prop::collection::vec(any_json(), 0..5), model in "\\PC{0,20}",
        ceiling in any::<u64>(), stream in any::<bool>(), pretty in any::<bool>(), other in "\\PC{1,20}",
    ) {
        let value = json!({"a": before, "input": messages, "max_tokens": ceiling, "model": model, "stream": stream});
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let body = Bytes::from(text);
        let ask = parse(&body).unwrap();
        prop_assert_eq!(ask.model.as_deref(), Some(model.as_str()));
        prop_assert_eq!(ask.stream, stream);
        prop_assert_eq!(ask.max_output, Some(ceiling));
        let containers = messages.iter().filter(|m| m.is_object() || m.is_array()).count();
        prop_assert_eq!(ask.messages_count as usize, containers);

        let edited = edit(&body, &ask, Edits { model: Some(&other), include_usage: true, ..Edits::default() });
        let mut expected = value;
        expected["model"] = json!(other);
        expected["stream_options"] = json!({"include_usage": true});
        prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), expected);
    }

    #[test]
    fn a_shortened_or_spoilt_body_is_refused_without_panic(
        value in any_json(), cut in any::<prop::sample::Index>(), spoilt in any::<u8>(),
    ) {
        let body = json!({"model": "m", "a": value, "metadata": {"user_id": "u"}}).to_string().into_bytes();
        let at = cut.index(body.len());
        prop_assert!(parse(&body[..at]).is_err());
        let mut body = body;
        body[at] = spoilt;
        if let Ok(ask) = parse(&body) {
            edit(&Bytes::copy_from_slice(&body), &ask, Edits { model: Some("n"), include_usage: true, ..Edits::default() });
        }
    }
}

#[test]
fn every_model_that_a_body_names_is_found() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"model":"a"}"#, &[]),
        (r#"{"model":"a","models":["b","c"]}"#, &["b", "c"]),
        (r#"{"model":"a","Models":["b"],"mode\u006cs":"c"}"#, &["b", "c"]),
        ("{\"model\":\"a\",\"model\u{17f}\":[\"b\"]}", &["b"]),
        (r#"{"model":"a","fallbacks":["b",{"model":"c"},{"a":["d"]}]}"#, &["b", "c", "d"]),
        (r#"{"model":"a","fallbac\u212as":["b"]}"#, &["b"]),
        (
            r#"{"model":"a","context_window_fallbacks":[{"a":["b"]}],"content_policy_fallbacks":[{"a":["c"]}]}"#,
            &["b", "c"],
        ),
        (r#"{"model":"a","models":null}"#, &[]),
    ];
    for (body, expected) in cases {
        let ask = parse(body.as_bytes()).unwrap();
        assert_eq!(ask.other_models(body.as_bytes()).unwrap(), *expected, "{body}");
    }
    let many = format!(r#"{{"models":["{}"]}}"#, ["m"; 65].join("\",\""));
    assert!(parse(many.as_bytes()).unwrap().other_models(many.as_bytes()).is_err());
}

#[test]
fn a_null_for_a_model_stays() {
    for body in [r#"{"model":null,"input":"x"}"#, r#"{"model":null,"model":null}"#] {
        let body = Bytes::from(body);
        let ask = parse(&body).unwrap();
        assert_eq!(with_model(&body, &ask, ""), body);
        assert_eq!(with_model(&body, &ask, "m"), body);
    }
}
