//! Where a caller's path leads under a provider's base URL. People paste bases in every form: the bare host, with
//! the version, with the whole endpoint, below a prefix. None may double or lose a part. Pure.

use contract::table::ProviderKind;
use url::{Position, Url};

/// Endpoints that a pasted base may already end in, longest first.
const ENDPOINTS: &[&[&str]] = &[
    &["messages", "count_tokens"],
    &["chat", "completions"],
    &["responses", "compact"],
    &["images", "generations"],
    &["audio", "speech"],
    &["audio", "transcriptions"],
    &["messages"],
    &["responses"],
    &["completions"],
    &["embeddings"],
    &["moderations"],
    &["rerank"],
    &["models"],
];

/// Path and query to ask for, from the caller's and the base. `metered`: the model is the body's and nothing else's.
pub(super) fn target(kind: ProviderKind, base: &Url, path: &str, query: &str, metered: bool) -> String {
    let mut target = path_under(kind, base.path(), path);
    let own = base.query().unwrap_or_default().split('&');
    let callers =
        query.split('&').filter(|pair| !(is_named(pair, "key") || metered && is_named(pair, "model")));
    for (index, pair) in own.chain(callers).filter(|pair| !pair.is_empty()).enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(pair);
    }
    target
}

/// Whether a pair has this name, also where it is escaped. The caller's `key` is a credential for us, not for the
/// upstream. Some upstreams (LiteLLM) serve the `model` of the query instead of the one in the body, which is the one that
/// was checked and is billed.
fn is_named(pair: &str, wanted: &str) -> bool {
    url::form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name == wanted)
}

/// The value of the `host` header.
pub(super) fn host(base: &Url) -> &str {
    &base[Position::BeforeHost..Position::AfterPort]
}

fn path_under(kind: ProviderKind, base: &str, path: &str) -> String {
    let segments: Vec<&str> = base.split('/').filter(|segment| !segment.is_empty()).collect();
    let (prefix, versioned) = root(kind, &segments);
    let rest = path.trim_start_matches('/');
    let (version, tail) = rest.split_once('/').unwrap_or((rest, ""));
    // Gemini's versions differ in what they can do: the caller's counts. Elsewhere the base's does.
    let gemini = matches!(kind, ProviderKind::Gemini | ProviderKind::GeminiCli);
    let (prefix, rest) = match (versioned && is_version(version), prefix.split_last()) {
        (true, Some((last, above))) if gemini && is_version(last) => (above, rest),
        (true, _) => (prefix, tail),
        (false, _) => (prefix, rest),
    };
    let mut joined = String::with_capacity(base.len() + path.len() + 1);
    for segment in prefix {
        joined.push('/');
        joined.push_str(segment);
    }
    joined.push('/');
    joined.push_str(rest);
    joined
}

/// The base without an endpoint at its end, and whether what is left stands for `/v1`.
fn root<'a, 's>(kind: ProviderKind, base: &'a [&'s str]) -> (&'a [&'s str], bool) {
    if let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| base.ends_with(endpoint)) {
        let above = &base[..base.len() - endpoint.len()];
        // "/openai/chat/completions" without a version is a complete endpoint, too: nothing is put between.
        return (above, true);
    }
    // OpenAI's SDKs take the version as a part of the base, so anything may follow it ("/v1beta/openai").
    let openai = matches!(kind, ProviderKind::OpenAiCompatible | ProviderKind::Codex);
    let versioned =
        base.last().is_some_and(|last| is_version(last)) || openai && base.iter().any(|s| is_version(s));
    (base, versioned)
}

/// `v1`, `v4`, `v1beta`, `v1beta1`, `v2alpha`.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let word = rest[digits..].trim_end_matches(|letter: char| letter.is_ascii_digit());
    digits > 0 && matches!(word, "" | "beta" | "alpha")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProviderKind::{Claude, Codex, Gemini, GeminiCli, OpenAiCompatible};

    #[test]
    fn nothing_doubles_and_nothing_is_lost() {
        let cases = [
            (Claude, "https://api.anthropic.com", "/v1/messages", "/v1/messages"),
            (Claude, "https://api.anthropic.com/", "/v1/messages?beta=true", "/v1/messages?beta=true"),
            (Claude, "https://api.anthropic.com/v1", "/v1/messages", "/v1/messages"),
            (
                Claude,
                "https://api.anthropic.com/v1/",
                "/v1/messages/count_tokens",
                "/v1/messages/count_tokens",
            ),
            (Claude, "https://api.anthropic.com/v1/messages", "/v1/messages", "/v1/messages"),
            (
                Claude,
                "https://x.example/v1/messages/",
                "/v1/messages/count_tokens",
                "/v1/messages/count_tokens",
            ),
            (Claude, "https://x.example/v1/messages", "/v1/models", "/v1/models"),
            (Claude, "https://x.example/api/anthropic", "/v1/messages", "/api/anthropic/v1/messages"),
            (
                Claude,
                "https://g.example/v1/acct/gw/anthropic",
                "/v1/messages",
                "/v1/acct/gw/anthropic/v1/messages",
            ),
            (OpenAiCompatible, "https://x.example/v1", "/v1/chat/completions", "/v1/chat/completions"),
            (OpenAiCompatible, "https://x.example", "/v1/embeddings", "/v1/embeddings"),
            (OpenAiCompatible, "https://x.example/v1/chat/completions", "/v1/embeddings", "/v1/embeddings"),
            (
                OpenAiCompatible,
                "https://x.example/api/paas/v4",
                "/v1/chat/completions",
                "/api/paas/v4/chat/completions",
            ),
            (
                OpenAiCompatible,
                "https://x.example/v1beta/openai/",
                "/v1/chat/completions",
                "/v1beta/openai/chat/completions",
            ),
            (OpenAiCompatible, "https://x.example/v1/openai", "/v1/models", "/v1/openai/models"),
            (
                OpenAiCompatible,
                "https://x.example/openai/chat/completions",
                "/v1/chat/completions",
                "/openai/chat/completions",
            ),
            (
                OpenAiCompatible,
                "https://x.example/openai",
                "/v1/chat/completions",
                "/openai/v1/chat/completions",
            ),
            (
                OpenAiCompatible,
                "https://x.example/d?api-version=7",
                "/v1/embeddings?a=b",
                "/d/v1/embeddings?api-version=7&a=b",
            ),
            (Codex, "https://x.example/v1/responses", "/v1/responses/compact", "/v1/responses/compact"),
            (Codex, "https://x.example/backend/codex", "/v1/responses", "/backend/codex/v1/responses"),
            (
                Gemini,
                "https://x.example/v1beta",
                "/v1beta/models/m:generateContent?key=s&alt=sse",
                "/v1beta/models/m:generateContent?alt=sse",
            ),
            (Gemini, "https://x.example/v1beta", "/v1/models/m:countTokens?key", "/v1/models/m:countTokens"),
            (Claude, "https://x.example", "/v1/messages?%6Bey=s&a=b", "/v1/messages?a=b"),
            (
                Gemini,
                "https://x.example",
                "/v1beta/models/m:generateContent?monkey=1",
                "/v1beta/models/m:generateContent?monkey=1",
            ),
            (GeminiCli, "https://x.example/", "/v1internal:generateContent", "/v1internal:generateContent"),
            (Claude, "https://x.example", "/", "/"),
        ];
        for (kind, base, asked, expected) in cases {
            let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
            let asked_for = target(kind, &Url::parse(base).unwrap(), path, query, false);
            assert_eq!(asked_for, expected, "{base} + {asked}");
        }
    }

    #[test]
    fn the_model_of_a_metered_call_is_not_the_querys() {
        let base = Url::parse("https://x.example").unwrap();
        for (query, metered, expected) in [
            ("model=dear&beta=true", true, "/v1/chat/completions?beta=true"),
            ("mo%64el=dear", true, "/v1/chat/completions"),
            ("model=filter", false, "/v1/chat/completions?model=filter"),
            ("models=1", true, "/v1/chat/completions?models=1"),
        ] {
            let asked_for = target(OpenAiCompatible, &base, "/v1/chat/completions", query, metered);
            assert_eq!(asked_for, expected, "{query}");
        }
    }

    #[test]
    fn the_host_header_has_the_port_only_where_it_differs() {
        for (base, expected) in [
            ("https://x.example:443/v1", "x.example"),
            ("https://user:pw@x.example:8443/v1", "x.example:8443"),
            ("http://[::1]:9/", "[::1]:9"),
        ] {
            assert_eq!(host(&Url::parse(base).unwrap()), expected);
        }
    }
}
