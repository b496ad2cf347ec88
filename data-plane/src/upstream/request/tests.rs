use super::*;
use crate::upstream::tests::{provider, upstream};
use contract::table::Provider;
use contract::usage::Dialect;
use http::Request;
use llm::dialect::EndpointKind;
use std::collections::BTreeMap;

const ROUTE: Route<'static> =
    Route { dialect: Dialect::Anthropic, kind: EndpointKind::Messages, tail: "/messages", repeatable: true };

fn head(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post("/v1/messages?beta=true&key=sk-client");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn request(up: &Upstream, head: &Parts, body: &'static [u8]) -> Result<Request<()>, Failure> {
    let outgoing = super::request(up, &ROUTE, head, Bytes::from_static(body), &HeaderMap::new())?;
    Ok(parsed(&outgoing.bytes()))
}

/// As the upstream reads it.
fn parsed(bytes: &[u8]) -> Request<()> {
    let mut room = [httparse::EMPTY_HEADER; 64];
    let mut found = httparse::Request::new(&mut room);
    assert!(found.parse(bytes).unwrap().is_complete());
    let mut request = Request::builder().method(found.method.unwrap()).uri(found.path.unwrap());
    for header in found.headers.iter() {
        request = request.header(header.name, header.value);
    }
    request.body(()).unwrap()
}

fn sent(row: Provider, headers: &[(&str, &str)]) -> Request<()> {
    request(&upstream(row), &head(headers), b"{}").unwrap()
}

fn all(headers: &HeaderMap) -> BTreeMap<&str, &str> {
    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
}

#[test]
fn credentials_by_kind_and_host() {
    use ProviderKind::*;
    let bearer = |token: &str| (Some(format!("Bearer {token}")), None, None);
    let own = Some("s3cret".to_owned());
    let both = (Some("Bearer s3cret".to_owned()), own.clone(), None);
    let oauth = r#"{"access_token":"ya29.tok","refresh_token":"r"}"#;
    let cases = [
        (Claude, "https://api.anthropic.com", "s3cret", both.clone()),
        (Claude, "https://claude.example.com", "s3cret", both.clone()),
        (Claude, "https://relay.example.com", "s3cret", bearer("s3cret")),
        (Claude, "https://my-gateway.example.com", "s3cret", bearer("s3cret")),
        (Claude, "https://openrouter.ai/api", "s3cret", bearer("s3cret")),
        (Claude, "https://proxy.anthropic.com", "s3cret", both.clone()),
        (Claude, "https://proxyanthropic.com", "s3cret", both),
        (Claude, "https://aws-external-anthropic.us-east-1.api.aws", "s3cret", (None, own.clone(), None)),
        (ClaudeAuth, "https://api.anthropic.com", "s3cret", bearer("s3cret")),
        (Codex, "https://x.example", "s3cret", bearer("s3cret")),
        (OpenAiCompatible, "https://x.example", "s3cret", bearer("s3cret")),
        (Gemini, "https://x.example", "s3cret", (None, None, own)),
        (Gemini, "https://x.example", oauth, bearer("ya29.tok")),
        (GeminiCli, "https://x.example", oauth, bearer("ya29.tok")),
        (GeminiCli, "https://x.example", "s3cret", bearer("s3cret")),
    ];
    for (kind, base, secret, expected) in cases {
        let up = Upstream::new(
            Provider { kind, base_url: base.to_owned(), ..provider(1) },
            crate::table::Secret::new(secret),
        )
        .unwrap();
        let request = request(&up, &head(&[("x-api-key", "sk-client")]), b"").unwrap();
        let value = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let found = (value("authorization"), value("x-api-key"), value("x-goog-api-key"));
        assert_eq!(found, expected, "{kind:?} at {base}");
    }
}

#[test]
fn only_what_the_upstream_may_see_is_passed_on() {
    let request = sent(
        Provider { base_url: "https://x.example:8443/api".into(), kind: ProviderKind::Codex, ..provider(1) },
        &[
            ("host", "gateway.internal"),
            ("authorization", "Bearer sk-client"),
            ("x-goog-api-key", "sk-client"),
            ("cookie", "session=1"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "12"),
            ("content-encoding", "zstd"),
            ("accept-encoding", "gzip, br"),
            ("x-forwarded-for", "10.1.2.3"),
            ("cf-connecting-ip", "10.1.2.3"),
            ("forwarded", "for=10.1.2.3"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a"),
            ("user-agent", "claude-cli/2"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("content-type", "application/json"),
        ],
    );
    let expected = BTreeMap::from([
        ("host", "x.example:8443"),
        ("authorization", "Bearer s3cret"),
        ("accept-encoding", "identity"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a"),
        ("user-agent", "claude-cli/2"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("content-type", "application/json"),
        ("content-length", "2"),
    ]);
    assert_eq!(all(request.headers()), expected);
    assert_eq!(request.uri(), "/api/v1/messages?beta=true");
}

/// Headers of a caller behind balancers, and whether they pass (as they are, where the provider asks for addresses).
const ON_THE_WAY: &[(&str, bool, bool)] = &[
    ("origin", false, false),
    ("referer", false, false),
    ("openai-organization", false, false),
    ("openai-project", false, false),
    ("x-goog-user-project", false, false),
    ("access-control-request-method", false, false),
    ("sec-fetch-mode", false, false),
    ("sec-ch-ua", false, false),
    ("forwarded", false, true),
    ("x-forwarded-for", false, true),
    ("x-forwarded-host", false, false),
    ("x-forwarded-proto", false, false),
    ("x-real-ip", false, true),
    ("via", false, false),
    ("true-client-ip", false, true),
    ("cf-connecting-ip", false, true),
    ("cf-ray", false, false),
    ("cf-ipcountry", false, false),
    ("cdn-loop", false, false),
    ("fastly-client-ip", false, true),
    ("fastly-ssl", false, false),
    ("x-envoy-external-address", false, true),
    ("x-envoy-attempt-count", false, false),
    ("x-amzn-trace-id", false, false),
    ("x-original-url", false, false),
    ("x-http-method-override", false, false),
    ("baggage", false, false),
    ("x-b3-traceid", false, false),
    ("x-datadog-trace-id", false, false),
    ("x-portkey-custom-host", false, false),
    ("x-portkey-config", false, false),
    ("x-litellm-api-key", false, false),
    ("helicone-target-url", false, false),
    ("helicone-auth", false, false),
    ("traceparent", true, true),
    ("tracestate", true, true),
    ("x-request-id", true, true),
    ("x-client-request-id", true, true),
    ("x-app", true, true),
    ("x-stainless-lang", true, true),
    ("x-codex-turn-state", true, true),
    ("originator", true, true),
    ("session-id", true, true),
    ("anthropic-dangerous-direct-browser-access", true, true),
    ("openai-beta", true, true),
];

#[test]
fn an_account_a_page_or_a_way_of_the_caller_stays_here() {
    for preserve_client_ip in [false, true] {
        let row = Provider { preserve_client_ip, ..provider(1) };
        let headers: Vec<_> = ON_THE_WAY.iter().map(|(name, ..)| (*name, "v")).collect();
        let sent = sent(row, &headers);
        for (name, plain, asked) in ON_THE_WAY {
            let expected = if preserve_client_ip { asked } else { plain };
            assert_eq!(sent.headers().contains_key(*name), *expected, "{name}, {preserve_client_ip}");
        }
    }
}

#[test]
fn a_provider_may_name_its_own_account() {
    let custom =
        [("OpenAI-Organization", "org-1"), ("Origin", "https://own.example"), ("x-original-url", "/x")];
    let custom = custom.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let row = Provider { custom_headers: custom, ..provider(1) };
    let request = sent(row, &[("openai-organization", "org-2"), ("origin", "https://evil.example")]);
    assert_eq!(request.headers()["openai-organization"], "org-1");
    assert_eq!(request.headers()["origin"], "https://own.example");
    assert!(!request.headers().contains_key("x-original-url"));
}

#[test]
fn several_values_of_one_header_stay_several() {
    let request = sent(provider(1), &[("anthropic-beta", "a"), ("anthropic-beta", "b")]);
    let betas: Vec<_> = request.headers().get_all("anthropic-beta").iter().collect();
    assert_eq!(betas, ["a", "b"]);
}

#[test]
fn custom_headers_replace_but_not_ours() {
    let custom =
        [("X-Team", "blue"), ("User-Agent", "ua"), ("Authorization", "Bearer evil"), ("Host", "evil")];
    let custom = custom.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let request = sent(Provider { custom_headers: custom, ..provider(1) }, &[("user-agent", "claude-cli/2")]);
    assert_eq!(request.headers()["x-team"], "blue");
    assert_eq!(request.headers()["user-agent"], "ua");
    assert_eq!(request.headers()["authorization"], "Bearer s3cret");
    assert_eq!(request.headers()["host"], "api.example");
}

#[test]
fn settings_that_fit_into_no_request_are_named_without_their_value() {
    let custom = BTreeMap::from([("X-Team".to_owned(), "a\nb".to_owned())]);
    let up = upstream(Provider { custom_headers: custom, ..provider(1) });
    let failure = request(&up, &head(&[]), b"").unwrap_err();
    assert_eq!(failure.to_string(), "the request could not be formed (a custom header)");
    assert!(!failure.retry);
    let up = Upstream::new(provider(1), crate::table::Secret::new("s3\ncret")).unwrap();
    let failure = request(&up, &head(&[]), b"").unwrap_err();
    assert!(!failure.to_string().contains("s3"), "{failure}");
}

#[test]
fn this_proxys_trace_replaces_the_callers() {
    let ours =
        HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::from_static("ours"))]);
    let head = head(&[("traceparent", "theirs"), ("x-a", "1")]);
    let outgoing = super::request(&upstream(provider(1)), &ROUTE, &head, Bytes::new(), &ours).unwrap();
    let headers = parsed(&outgoing.bytes()).headers().clone();
    assert_eq!(headers.get_all("traceparent").iter().collect::<Vec<_>>(), ["ours"]);
    assert_eq!(headers["x-a"], "1");
}
