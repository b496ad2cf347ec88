use super::*;
use proptest::prelude::*;

macro_rules! fixtures {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_bytes!(concat!("../fixtures/", $file)))),+]
    };
}

const FIXTURES: &[(&str, &[u8])] = fixtures![
    "anthropic.json",
    "anthropic_cut.sse",
    "anthropic_error_first.sse",
    "anthropic_error_late.sse",
    "anthropic_relay.sse",
    "anthropic_tools.sse",
    "chat.json",
    "chat.sse",
    "chat_empty.sse",
    "chat_error_first.sse",
    "chat_reasoning_deepseek.sse",
    "chat_tools_no_usage.sse",
    "embeddings.json",
    "gemini.sse",
    "images_stream.sse",
    "responses.json",
    "responses.sse",
    "responses_cut.sse",
    "responses_error.sse",
    "responses_failed.sse",
    "responses_incomplete.sse",
];

fn scanner(file: &str) -> UsageScanner {
    let dialect = match file.split(['.', '_']).next() {
        Some("anthropic") => Dialect::Anthropic,
        Some("responses") => Dialect::Responses,
        Some("gemini") => Dialect::Gemini,
        _ => Dialect::OpenAi,
    };
    UsageScanner::new(dialect, file.ends_with(".sse"))
}

fn fixture(file: &str) -> &'static [u8] {
    FIXTURES.iter().find(|(name, _)| *name == file).unwrap().1
}

/// What is known at the end, and how many bytes it took until there was content.
fn read(file: &str, pieces: &[&[u8]]) -> (Usage, bool) {
    let mut scanner = scanner(file);
    pieces.iter().for_each(|piece| scanner.feed(piece));
    let leads = scanner.leading_error().is_some();
    (scanner.finish(), leads)
}

/// One line per fixture: what a reader of the snapshot wants to compare with the fixture.
fn line(file: &str, usage: &Usage, leads: bool) -> String {
    let tokens = usage.tokens;
    let classes = [
        ("in", tokens.input),
        ("out", tokens.output),
        ("reasoning", tokens.reasoning),
        ("read", tokens.cache_read),
        ("5m", tokens.cache_write_5m),
        ("1h", tokens.cache_write_1h),
        ("in_image", tokens.input_image),
    ];
    let classes: Vec<String> =
        classes.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
    let error = usage.error.as_ref().map(|error| {
        format!(" {} error {}: {}", if leads { "leading" } else { "late" }, error.status(), error.message)
    });
    format!(
        "{file}: {}{}[{}] text={} model={} tier={}{}",
        if usage.complete { "complete " } else { "" },
        if usage.reported { "reported " } else { "" },
        classes.join(" "),
        usage.output_bytes_seen,
        usage.response_model.as_deref().unwrap_or("-"),
        usage.service_tier.as_deref().unwrap_or("-"),
        error.unwrap_or_default(),
    )
}

#[test]
fn every_fixture() {
    let lines: Vec<String> = FIXTURES
        .iter()
        .map(|(file, text)| {
            let (usage, leads) = read(file, &[text]);
            line(file, &usage, leads)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r###"
        anthropic.json: complete reported [in=12 out=10 5m=300] text=66 model=claude-haiku-4-5-20251001 tier=standard
        anthropic_cut.sse: [in=4 out=1 read=15640 5m=1500 1h=420] text=22 model=claude-sonnet-4-5-20250929 tier=standard
        anthropic_error_first.sse: [] text=0 model=- tier=- leading error 529: Overloaded
        anthropic_error_late.sse: [in=4 out=1 read=15640 5m=1500 1h=420] text=22 model=claude-sonnet-4-5-20250929 tier=standard late error 502: Internal server error
        anthropic_relay.sse: complete reported [in=21 out=3 read=8] text=2 model=glm-4.6 tier=-
        anthropic_tools.sse: complete reported [in=4 out=97 read=15640 5m=1500 1h=420] text=79 model=claude-sonnet-4-5-20250929 tier=standard
        chat.json: complete reported [in=19 out=10] text=130 model=gpt-4o-mini-2024-07-18 tier=default
        chat.sse: complete reported [in=93 out=46 reasoning=20 read=1024] text=11 model=gpt-4o-mini-2024-07-18 tier=default
        chat_empty.sse: complete [] text=0 model=- tier=-
        chat_error_first.sse: [] text=0 model=- tier=- leading error 429: Rate limit reached
        chat_reasoning_deepseek.sse: complete reported [in=4 out=9 reasoning=5 read=60] text=5 model=deepseek-reasoner tier=default
        chat_tools_no_usage.sse: complete [] text=15 model=gpt-4o-mini-2024-07-18 tier=default
        embeddings.json: complete reported [in=8] text=0 model=text-embedding-3-small tier=-
        gemini.sse: complete reported [in=36 out=52 reasoning=40 read=64] text=13 model=gemini-2.5-pro tier=-
        images_stream.sse: complete reported [in=10 out=50 in_image=40] text=0 model=- tier=-
        responses.json: complete reported [in=308 out=120 reasoning=64 read=8192] text=103 model=gpt-5-codex tier=priority
        responses.sse: complete reported [in=308 out=120 reasoning=64 read=8192] text=21 model=gpt-5-codex tier=priority
        responses_cut.sse: [] text=4 model=gpt-5-codex tier=auto
        responses_error.sse: [] text=0 model=- tier=- leading error 502: The server had an error
        responses_failed.sse: complete [] text=0 model=gpt-5-codex tier=priority leading error 429: Please try again in 1.2s.
        responses_incomplete.sse: complete reported [in=308 out=120 reasoning=64 read=8192] text=0 model=gpt-5-codex tier=priority
        "###);
}

#[test]
fn every_fixture_in_any_pieces() {
    for (file, text) in FIXTURES {
        let whole = read(file, &[text]);
        for size in [1, 2, 3, 7, 64, 65, 1000] {
            assert_eq!(read(file, &text.chunks(size).collect::<Vec<_>>()), whole, "{file} by {size}");
        }
    }
}

/// The event after which headers may go out, and the one after which the answer is over.
fn milestones(file: &str) -> (Option<usize>, Option<usize>) {
    let text = String::from_utf8(fixture(file).to_vec()).unwrap();
    let mut scanner = scanner(file);
    let (mut content, mut end) = (None, None);
    for (index, event) in text.split_inclusive("\n\n").enumerate() {
        scanner.feed(event.as_bytes());
        content = content.or(scanner.first_content().then_some(index));
        end = end.or(scanner.ended().then_some(index));
    }
    (content, end)
}

#[test]
fn content_and_end_are_seen_in_time() {
    for (file, expected) in [
        ("anthropic_tools.sse", (Some(3), Some(14))),
        ("anthropic_cut.sse", (Some(3), None)),
        ("anthropic_error_first.sse", (None, None)),
        ("chat.sse", (Some(1), Some(3))),
        ("chat_tools_no_usage.sse", (Some(0), Some(2))),
        ("chat_empty.sse", (None, Some(0))),
        ("chat_error_first.sse", (None, None)),
        ("images_stream.sse", (Some(0), Some(1))),
        ("responses.sse", (Some(3), Some(9))),
        ("responses_failed.sse", (None, Some(2))),
        ("responses_error.sse", (None, None)),
        ("responses_incomplete.sse", (Some(3), Some(3))),
    ] {
        assert_eq!(milestones(file), expected, "{file}");
    }
}

#[test]
fn what_was_not_reported_is_estimated() {
    let (usage, _) = read("anthropic_cut.sse", &[fixture("anthropic_cut.sse")]);
    assert!(!usage.reported && !usage.complete);
    let input = || TokenCounts { input: 1_000, cache_read: 7, ..TokenCounts::default() };
    let (tokens, source) = usage.or_estimated(input);
    assert_eq!(source, UsageSource::Estimated);
    assert_eq!((tokens.input, tokens.cache_read), (4, 15640), "the input was reported");
    assert_eq!(tokens.output, estimate::tokens(usage.output_bytes_seen));

    let (usage, _) = read("responses_cut.sse", &[fixture("responses_cut.sse")]);
    let (tokens, _) = usage.or_estimated(input);
    assert_eq!((tokens.input, tokens.cache_read, tokens.output), (1_000, 7, 1));

    let (usage, _) = read("chat.sse", &[fixture("chat.sse")]);
    assert_eq!(usage.or_estimated(input), (usage.tokens, UsageSource::Reported));
}

#[test]
fn an_answer_that_is_no_json_leaves_its_end_to_the_transport() {
    let (usage, _) = read("audio.json", &[b"ID3\x04", b"\x00{\"usage\":{\"total_tokens\":5}}"]);
    assert!(usage.complete && !usage.reported);
    let (usage, _) = read("chat.json", &[&fixture("chat.json")[..300]]);
    assert!(!usage.complete);
}

#[test]
fn an_error_object_in_a_json_answer() {
    let (usage, leads) = read("chat.json", &[br#"{"error":{"message":"no","type":"server_error"}}"#]);
    assert_eq!(usage.error.map(|error| error.message).as_deref(), Some("no"));
    assert!(!leads, "a JSON answer is judged by fake_success, before it is relayed");
}

proptest! {
    #[test]
    fn nothing_panics(
        index in 0..FIXTURES.len(), at in any::<prop::sample::Index>(), spoilt in any::<u8>(), size in 1usize..40,
    ) {
        let (file, text) = FIXTURES[index];
        let mut text = text.to_vec();
        let at = at.index(text.len());
        text[at] = spoilt;
        read(file, &text.chunks(size).collect::<Vec<_>>());
    }
}

#[test]
fn a_fake_is_suspected_wherever_it_is_one() {
    let cases = [
        (r#"{"id":"m","type":"message","error":null}"#, false),
        (r#"{"choices":[{"error":"no"}],"object":"chat.completion"}"#, false),
        (r#"{"error":{"message":"busy"}}"#, true),
        (r#"{"error":"boom"}"#, true),
        (r#"{"message":"x","type":"error"}"#, true),
        (r#"{"object":"error","message":"m"}"#, true),
        ("<html>", true),
    ];
    for (text, suspected) in cases {
        let mut scanner = UsageScanner::new(Dialect::OpenAi, false);
        scanner.feed(text.as_bytes());
        assert_eq!(scanner.may_be_fake(), suspected, "{text}");
        let known = fake_success(Some("application/json"), text.as_bytes()).is_some();
        assert_eq!(known, suspected, "{text}");
    }
}
