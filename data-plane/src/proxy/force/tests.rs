use super::super::silence::Silence;
use super::*;
use crate::table::{Secret, fixtures::provider};
use bytes::Bytes;
use contract::table::{AdaptiveThinking, Provider};
use llm::Route;

fn upstream(options: Options) -> Upstream {
    Upstream::new(Provider { options: options.boxed(), ..provider(1) }, Secret::new("s")).unwrap()
}

#[test]
fn flags_are_added_and_taken_away() {
    let options = |context_1m, cache_ttl| Options { context_1m, cache_ttl, ..Options::default() };
    let (million, no_million) = (options(Some(true), None), options(Some(false), None));
    let hour = options(None, Some(CacheTtl::Hour1));
    let (sonnet, haiku) = ("claude-sonnet-4-5-20250929", "claude-haiku-4-5");
    let cases: [(&Options, &str, &[&str], Option<&str>); 11] = [
        (&Options::default(), sonnet, &["context-1m-2025-08-07"], None),
        (&million, sonnet, &[], Some("context-1m-2025-08-07")),
        (&million, sonnet, &["a, b", "c"], Some("a,b,c,context-1m-2025-08-07")),
        (&million, sonnet, &["context-1m-2026-01-01"], None),
        (&million, haiku, &["a"], None),
        (&million, "claude-sonnet-45", &["a"], None),
        (&no_million, sonnet, &["a"], None),
        (&no_million, sonnet, &["a,context-1m-2026-01-01", "b"], Some("a,b")),
        (&no_million, haiku, &["context-1m-2025-08-07"], Some("")),
        (&hour, haiku, &["a"], Some("a,extended-cache-ttl-2025-04-11")),
        (&hour, haiku, &["extended-cache-ttl-2025-04-11"], None),
    ];
    for (options, model, given, want) in cases {
        let mut head = http::Request::post("/v1/messages");
        for value in given {
            head = head.header("anthropic-beta", *value);
        }
        let head = head.body(()).unwrap().into_parts().0;
        let sent = |dialect, kind| {
            let (route, body) = (Route { dialect, kind, tail: "/x", repeatable: true }, Bytes::new());
            let silence = Silence::default();
            let exchange = Exchange {
                silence: &silence,
                head: &head,
                route: &route,
                body: &body,
                ask: None,
                inject_usage: false,
                cache_ttl: None,
            };
            let mut headers = HeaderMap::new();
            flags(&upstream(options.clone()), &exchange, model, &mut headers);
            headers.get(BETA).map(|value| value.to_str().unwrap().to_owned())
        };
        let messages = sent(Dialect::Anthropic, EndpointKind::Messages);
        assert_eq!(messages.as_deref(), want, "{options:?} {model} {given:?}");
        assert_eq!(sent(Dialect::Responses, EndpointKind::Responses), None);
    }
}

#[test]
fn bodies_are_forced_where_they_generate() {
    let text = |text: &str| Some(text.to_owned());
    let codex = Codex {
        reasoning_effort: text("high"),
        text_verbosity: text("low"),
        parallel_tool_calls: Some(false),
        service_tier: text("flex"),
        image_generation: Some(false),
        ..Codex::default()
    };
    let anthropic = |max_tokens, thinking_budget, models: Option<Option<&str>>| Anthropic {
        max_tokens,
        thinking_budget,
        adaptive_thinking: models.map(|models| AdaptiveThinking {
            effort: "max".to_owned(),
            models: models.map(|name| vec![name.to_owned()]),
        }),
    };
    let thinks = |options| Options { anthropic: options, ..Options::default() };
    let all = r#"{"model":"claude-opus-4-6","max_tokens":5000,"thinking":{"type":"disabled"}}"#;
    let cases = [
        (Options::default(), EndpointKind::Messages, all, all),
        (
            thinks(anthropic(Some(9000), Some(2000), None)),
            EndpointKind::Messages,
            all,
            r#"{"model":"claude-opus-4-6","max_tokens":9000,"thinking":{"budget_tokens":2000,"type":"enabled"}}"#,
        ),
        (
            thinks(anthropic(None, Some(9000), None)),
            EndpointKind::Messages,
            all,
            r#"{"model":"claude-opus-4-6","max_tokens":5000,"thinking":{"budget_tokens":4999,"type":"enabled"}}"#,
        ),
        (
            thinks(anthropic(None, Some(2000), None)),
            EndpointKind::Messages,
            r#"{"max_tokens":1024}"#,
            r#"{"max_tokens":1024}"#,
        ),
        // The caller's own thinking stays below a forced maximum.
        (
            thinks(anthropic(Some(8000), None, None)),
            EndpointKind::Messages,
            r#"{"max_tokens":32000,"thinking":{"type":"enabled","budget_tokens":31999}}"#,
            r#"{"max_tokens":8000,"thinking":{"type":"enabled","budget_tokens":7999}}"#,
        ),
        (
            thinks(anthropic(Some(8000), None, None)),
            EndpointKind::Messages,
            r#"{"max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
            r#"{"max_tokens":8000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
        ),
        (
            thinks(anthropic(Some(1000), Some(2000), None)),
            EndpointKind::Messages,
            r#"{"max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
            r#"{"max_tokens":1000,"thinking":{"type":"disabled"}}"#,
        ),
        (
            thinks(anthropic(None, Some(2000), Some(Some("claude-opus-4")))),
            EndpointKind::Messages,
            all,
            r#"{"output_config":{"effort":"max"},"model":"claude-opus-4-6","max_tokens":5000,"thinking":{"type":"adaptive"}}"#,
        ),
        (thinks(anthropic(None, None, Some(Some("claude-sonnet")))), EndpointKind::Messages, all, all),
        (thinks(anthropic(Some(9), None, Some(None))), EndpointKind::CountTokens, all, all),
        (
            Options { codex: codex.clone(), ..Options::default() },
            EndpointKind::Responses,
            r#"{"reasoning":{"effort":"low","summary":"auto"},"tools":[{"type":"image_generation"}],"service_tier":"auto"}"#,
            r#"{"text":{"verbosity":"low"},"parallel_tool_calls":false,"reasoning":{"effort":"high","summary":"auto"},"tools":[],"service_tier":"flex"}"#,
        ),
        (
            Options {
                codex: Codex { image_generation: Some(false), ..Codex::default() },
                ..Options::default()
            },
            EndpointKind::Responses,
            r#"{"tool_choice":{"type":"image_generation"},"tools":[{"type":"image_generation"},{"type":"x"}]}"#,
            r#"{"tool_choice":"auto","tools":[{"type":"x"}]}"#,
        ),
        (Options { codex, ..Options::default() }, EndpointKind::ResponsesCompact, "{}", "{}"),
    ];
    for (options, kind, body, want) in cases {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let ask = llm::request::parse(&body).unwrap();
        let forced = members(&upstream(options), kind, None, &ask, "claude-opus-4-6");
        let edits = llm::request::Edits { forced: &forced, ..Default::default() };
        assert_eq!(llm::request::edit(&body, &ask, edits), want, "{kind:?}");
    }
}

#[test]
fn cache_writes_are_counted_as_the_provider_keeps_them() {
    let hour = Some(CacheTtl::Hour1);
    for (of_key, cache_ttl, swap_cache_ttl_billing, told, want) in [
        (None, None, false, true, (30, 7)),
        (None, None, true, true, (7, 30)),
        (None, Some(CacheTtl::Minutes5), false, false, (30, 7)),
        (None, hour, false, true, (30, 7)),
        (None, hour, false, false, (0, 37)),
        (hour, None, false, false, (0, 37)),
        (Some(CacheTtl::Minutes5), hour, false, false, (30, 7)),
        (None, hour, true, false, (37, 0)),
    ] {
        let up = upstream(Options { cache_ttl, swap_cache_ttl_billing, ..Options::default() });
        let mut tokens = TokenCounts { cache_write_5m: 30, cache_write_1h: 7, ..TokenCounts::default() };
        cache_writes(&up, of_key, &mut tokens, told);
        assert_eq!((tokens.cache_write_5m, tokens.cache_write_1h), want);
    }
}

#[test]
fn the_wish_of_a_key_comes_before_the_providers() {
    let minutes = Options { cache_ttl: Some(CacheTtl::Minutes5), ..Options::default() };
    let body = Bytes::from_static(br#"{"cache_control":{"type":"ephemeral"}}"#);
    let ask = llm::request::parse(&body).unwrap();
    for (options, of_key, want) in [
        (Options::default(), None, None),
        (Options::default(), Some(CacheTtl::Hour1), Some("1h")),
        (minutes.clone(), None, Some("5m")),
        (minutes, Some(CacheTtl::Hour1), Some("1h")),
    ] {
        let forced = members(&upstream(options), EndpointKind::Messages, of_key, &ask, "m");
        assert_eq!(forced, want.map(Force::CacheTtl).into_iter().collect::<Vec<_>>());
    }
}
