use super::*;
use crate::table::Secret;
use crate::upstream::tests::provider;

/// Text, for callers, for admins; `=`: as it was.
const CASES: &[(&str, &str, &str)] = &[
    // Keys and their fragments.
    (
        "Incorrect API key provided: sk-proj-ab***wxyz. Try again",
        "Incorrect API key provided: ***. Try again",
        "Incorrect API key provided: ***. Try again",
    ),
    (
        "Incorrect API key provided: ****wxyz.",
        "Incorrect API key provided: ***.",
        "Incorrect API key provided: ***.",
    ),
    (
        "Incorrect API key provided: 0f3c9a7b11.",
        "Incorrect API key provided: ***.",
        "Incorrect API key provided: ***.",
    ),
    ("bad key sk-ant-api03-AbCdEf123456", "bad key ***", "bad key ***"),
    ("无效的令牌sk-AbCdEf123456，请检查", "无效的令牌***，请检查", "无效的令牌***，请检查"),
    ("key sk-ab…wxyz is off", "key *** is off", "key *** is off"),
    ("key sk-a...wxyz is off", "key *** is off", "key *** is off"),
    ("authorization: Bearer abcdef0123456789", "authorization: Bearer ***", "authorization: Bearer ***"),
    (
        r#"{"api_key":"abcd1234efgh","model":"m"}"#,
        r#"{"api_key":"***","model":"m"}"#,
        r#"{"api_key":"***","model":"m"}"#,
    ),
    (r#"{"message":"line\nsk-AbCdEf123456"}"#, r#"{"message":"line\n***"}"#, r#"{"message":"line\n***"}"#),
    ("AIzaSyA1234567890abcdefghij is not valid", "*** is not valid", "*** is not valid"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "***", "***"),
    ("token 0123456789abcdef0123456789abcdef", "token ***", "token ***"),
    // Accounts.
    (
        "Rate limit reached for gpt-4o in organization org-abc on tokens per min",
        "Rate limit reached for gpt-4o in organization *** on tokens per min",
        "=",
    ),
    ("no access for org-a1B2c3D4e5", "no access for ***", "="),
    ("Project `proj_a1B2c3D4` has no access", "Project `***` has no access", "="),
    (
        "the limit for your organization (1c0e9f5a-7a34-4e1d-9a63-0a1b2c3d4e5f) of 30,000",
        "the limit for your organization (***) of 30,000",
        "=",
    ),
    (
        "Permission denied on resource project my-gcp-project-7.",
        "Permission denied on resource project ***.",
        "=",
    ),
    ("denied on projects/acme-1/locations/us", "denied on ***", "="),
    ("arn:aws:iam::123456789012:user/x may not", "*** may not", "="),
    ("ask ops@acme-corp.com for more", "ask *** for more", "="),
    // Hosts.
    ("see https://platform.openai.com/account/api-keys.", "see ***.", "="),
    (r#"{"m":"https:\/\/relay.example\/v1 is down"}"#, r#"{"m":"https:\/\/***\/v1 is down"}"#, "="),
    ("dial tcp 10.0.3.7:443: refused", "dial tcp ***: refused", "="),
    ("dial tcp [2001:db8::7]:443: refused", "dial tcp [***]:443: refused", "="),
    ("lookup api.acme.internal on 10.96.0.10:53", "lookup *** on ***", "="),
    (
        "certificate not valid for name \"x.acme.io\"; only for DnsName(\"*.acme.com\")",
        "certificate not valid for name \"***\"; only for DnsName(\"***\")",
        "=",
    ),
    ("openresty at upstream relay-7 said no", "openresty at upstream *** said no", "="),
    (
        "https://user:pa55word9@relay.example/v1?key=abcd1234efgh",
        "***",
        "https://***@relay.example/v1?key=***",
    ),
    // What stays.
    ("messages.0.content.1.type: Field required", "=", "="),
    ("tools.0.custom.input_schema: JSON schema is invalid. It must match draft 2020-12", "=", "="),
    ("max_tokens: 64000 > 8192, the most of claude-3-5-sonnet-20241022", "=", "="),
    ("tool_use ids without tool_result: toolu_01A09q90qw90lq917835lq9", "=", "="),
    ("Item 'rs_68af4030592c8192a2ab25d8f3ad1c2b0e2d7bc6a9e0d4a3' not found", "=", "="),
    ("prompt is too long: 208310 tokens > 200000 maximum", "=", "="),
    ("model `gpt-4.1-mini` and o3.5 do not exist", "=", "="),
    ("a **bold** word, a list: * one * two", "=", "="),
    ("token: expected a string; key: a name", "=", "="),
    ("your account balance is too low", "=", "="),
    (r#"{"project":1234567,"error":{"@type":"type.googleapis.com/google.rpc.RetryInfo"}}"#, "=", "="),
    ("wait... what? Ünïcödé — “quoted”…", "=", "="),
    ("", "=", "="),
];

fn known() -> Known {
    let mut row = provider(1);
    row.base_url = "https://relay-7:8443/v1".to_owned();
    row.custom_headers = [("cf-access".to_owned(), "cf-secret-value".to_owned())].into();
    Known::of(&Upstream::new(row, Secret::new("plain secret")).unwrap())
}

#[test]
fn callers_and_admins_read_what_they_may() {
    let known = known();
    for (text, callers, admins) in CASES {
        let as_was = |expected: &&'static str| if *expected == "=" { *text } else { *expected };
        assert_eq!(for_callers(text, &known), as_was(callers), "for callers");
        assert_eq!(for_admins(text, &known), as_was(admins), "for admins");
    }
}

#[test]
fn what_is_known_of_a_provider_goes_wherever_it_stands() {
    let known = known();
    assert_eq!(for_admins("xplain secretx RELAY-7 cf-secret-value", &known), "*** RELAY-7 ***");
    assert_eq!(for_callers("RELAY-7 relay-77", &known), "*** relay-77");
    let oauth = r#"{"access_token":"tok en","refresh_token":"re fresh"}"#;
    let known = Known::of(&Upstream::new(provider(1), Secret::new(oauth)).unwrap());
    let text = format!("{oauth} tok en, re fresh");
    assert_eq!(for_admins(&text, &known), "*** ***, ***");
}

#[test]
fn nothing_is_read_twice_however_it_is_written() {
    let known = Known::default();
    for piece in ["a", "a.", "@", "sk-", "***", "\\", "\\u", "…", "://", "key=", "bearer ", "\u{e000}"] {
        let text = piece.repeat(50_000 / piece.len());
        let _ = (for_callers(&text, &known), for_admins(&text, &known));
    }
}

proptest::proptest! {
    #[test]
    fn never_panics_and_never_misses(text in r#"([a-z0-9.:/@=*…ü" \\-]|sk-|org-|://|u00e4){0,60}"#) {
        let known = known();
        let text = format!("{text} sk-0123456789 {text}");
        proptest::prop_assert!(!for_callers(&text, &known).contains("0123456789"));
        proptest::prop_assert!(!for_admins(&text, &known).contains("0123456789"));
    }
}
