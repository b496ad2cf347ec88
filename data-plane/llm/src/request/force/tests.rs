use super::*;
use crate::request::{Edits, edit, parse};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

fn forced(body: &str, forced: &[Force]) -> String {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let ask = parse(&body).unwrap();
    let edited = edit(&body, &ask, Edits { forced, ..Edits::default() });
    String::from_utf8(edited.to_vec()).unwrap()
}

#[test]
fn members_are_replaced_or_added() {
    let most = Force::Member("max_tokens", "9".to_owned());
    let think = Force::Inside("thinking", vec![("type", "\"on\"".to_owned()), ("budget", "7".to_owned())]);
    let both = [most.clone(), think.clone()];
    for (body, force, want) in [
        ("{}", &both[..1], r#"{"max_tokens":9}"#),
        (r#"{ "a":1}"#, &both[..1], r#"{"max_tokens":9, "a":1}"#),
        (r#"{"a":"max_tokens", "max_tokens" : 5 }"#, &both[..1], r#"{"a":"max_tokens", "max_tokens" : 9 }"#),
        (r#"{"max_tokens":[1,{"x":"]"}],"a":1}"#, &both[..1], r#"{"max_tokens":9,"a":1}"#),
        (r#"{"max_tokens":1,"max_tok\u0065ns":2}"#, &both[..1], r#"{"max_tokens":9,"max_tok\u0065ns":9}"#),
        ("{}", &both[..], r#"{"max_tokens":9,"thinking":{"type":"on","budget":7}}"#),
        (r#"{"thinking":null}"#, &both[1..], r#"{"thinking":{"type":"on","budget":7}}"#),
        (r#"{"thinking":{}}"#, &both[1..], r#"{"thinking":{"type":"on","budget":7}}"#),
        (
            r#"{"thinking":{"display":"x", "type":"off"}}"#,
            &both[1..],
            r#"{"thinking":{"budget":7,"display":"x", "type":"on"}}"#,
        ),
    ] {
        assert_eq!(forced(body, force), want, "{body}");
    }
}

#[test]
fn tools_are_added_once_and_taken_out_whole() {
    for (body, wanted, want) in [
        ("{}", true, r#"{"tools":[{"type":"img"}]}"#),
        (r#"{"tools":null}"#, true, r#"{"tools":[{"type":"img"}]}"#),
        (r#"{"tools":[ ]}"#, true, r#"{"tools":[{"type":"img"}]}"#),
        (r#"{"tools":[{"type":"f"}]}"#, true, r#"{"tools":[{"type":"img"},{"type":"f"}]}"#),
        (r#"{"tools":[{"type":"img","q":1}]}"#, true, r#"{"tools":[{"type":"img","q":1}]}"#),
        (r#"{"tools":5}"#, true, r#"{"tools":5}"#),
        ("{}", false, "{}"),
        (r#"{"tools":[{"type":"f"}, 7]}"#, false, r#"{"tools":[{"type":"f"}, 7]}"#),
        (
            r#"{"tools":[{"type":"img"}, {"type":"f","x":{"type":"img"}} ,{"q":1,"type":"img"}]}"#,
            false,
            r#"{"tools":[{"type":"f","x":{"type":"img"}}]}"#,
        ),
        (r#"{"tools":[{"type":"img"}]}"#, false, r#"{"tools":[]}"#),
    ] {
        assert_eq!(forced(body, &[Force::Tool("img", wanted)]), want, "{body}");
    }
}

#[test]
fn only_what_is_marked_is_kept_for_that_long() {
    let mark = r#"{"type":"ephemeral"}"#;
    let kept = r#"{"ttl":"1h","type":"ephemeral"}"#;
    let body = |mark: &str, other: &str| {
        format!(
            r#"{{"cache_control":{mark},"system":[{{"type":"text","text":"\"cache_control\":{{","cache_control":{mark}}},{{"text":"x"}}],
 "tools":[{{"name":"t","input_schema":{{"cache_control":{other}}},"cache_control":{mark}}}],
 "messages":[{{"role":"user","content":"plain"}},{{"role":"user","content":[{{"text":"a","cache_control":{mark}}},
  {{"text":"b","cache_control":{other}}},5,{{"type":"tool_result","content":[{{"text":"c","cache_control":{mark}}}]}}]}}],"metadata":{{"cache_control":{other}}},"model":"m"}}"#
        )
    };
    let persistent = r#"{"type":"persistent"}"#;
    assert_eq!(forced(&body(mark, persistent), &[Force::CacheTtl("1h")]), body(kept, persistent));
    let five = r#"{"ttl": "5m", "type":"ephemeral"}"#;
    let hour = r#"{"ttl": "1h", "type":"ephemeral"}"#;
    assert_eq!(forced(&body(five, "null"), &[Force::CacheTtl("1h")]), body(hour, "null"));
    for odd in [r#"{"system":"text"}"#, r#"{"messages":7,"system":[1,[2]]}"#, r#"{"cache_control":null}"#] {
        assert_eq!(forced(odd, &[Force::CacheTtl("1h")]), odd);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[\\\\\"{},:a-c]{0,9}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON of the names and words that decide what is forced where.
fn pointed_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), Just(json!("ephemeral")), Just(json!("img")), Just(json!(1))];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let name = "cache_control|type|tools|system|messages|content|ttl|thinking";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_comes_stays_what_it_was_json_or_not(
        body in prop::collection::btree_map("cache_control|tools|system|messages|thinking", pointed_json(), 0..5),
        at in any::<prop::sample::Index>(), spoilt in prop::sample::select(&b"{}[],:\"\\ x"[..]), wanted in any::<bool>(),
    ) {
        let whole = Value::Object(body.into_iter().collect()).to_string().into_bytes();
        let mut broken = whole.clone();
        broken[at.index(whole.len())] = spoilt;
        let think = Force::Inside("thinking", vec![("type", "\"on\"".to_owned())]);
        for forced in [&[Force::CacheTtl("1h"), think.clone()][..], &[Force::Tool("img", wanted), think][..]] {
            for body in [&whole, &broken] {
                let body = Bytes::copy_from_slice(body);
                let Ok(ask) = parse(&body) else { continue };
                let edited = edit(&body, &ask, Edits { forced, ..Edits::default() });
                let was_json = serde_json::from_slice::<Value>(&body).is_ok();
                prop_assert!(!was_json || serde_json::from_slice::<Value>(&edited).is_ok());
            }
        }
    }

    #[test]
    fn agrees_with_a_real_parser(
        body in prop::collection::btree_map("[a-d]{1,2}", any_json(), 0..6), pretty in any::<bool>(),
        include_usage in any::<bool>(),
    ) {
        let value = Value::Object(body.into_iter().collect());
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let body = Bytes::from(text.unwrap());
        let forced = [
            Force::Member("a", "[1,\"}\"]".to_owned()),
            Force::Inside("b", vec![("a", "1".to_owned()), ("c", "\"x\"".to_owned())]),
            Force::Inside("d", vec![("a", "2".to_owned())]),
        ];
        let edits = Edits { model: Some("m"), include_usage, forced: &forced };
        let edited: Value = serde_json::from_slice(&edit(&body, &parse(&body).unwrap(), edits)).unwrap();
        let mut want = value;
        want["a"] = json!([1, "}"]);
        for (name, part, to) in [("b", "a", json!(1)), ("b", "c", json!("x")), ("d", "a", json!(2))] {
            if !want[name].is_object() {
                want[name] = json!({});
            }
            want[name][part] = to;
        }
        if include_usage {
            want["stream_options"] = json!({"include_usage": true});
        }
        prop_assert_eq!(edited, want);
    }
}
