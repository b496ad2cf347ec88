//! What of an upstream's head a caller does not get: headers of the other connection, whatever names the account
//! behind the provider or tells of its limits, and the policy of the upstream's host towards browsers, which would
//! hold for this host. Pure.
//!
//! Request ids stay, because a vendor's support asks for them, and so do `retry-after` and what describes the body.

use crate::upstream::Names;
use http::HeaderMap;
use http::header::{self, HeaderName};
use smallvec::SmallVec;

static WITHHELD: Names = Names::new(&[
    // Of the connection to the upstream.
    "connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    // Of the account.
    "openai-organization",
    "openai-project",
    "x-openai-organization",
    "anthropic-organization-id",
    "anthropic-workspace-id",
    "x-goog-user-project",
    "x-ms-deployment-name",
    "ratelimit",
    // Of the host, towards browsers.
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "public-key-pins",
    "public-key-pins-report-only",
    "expect-ct",
    "nel",
    "report-to",
    "reporting-endpoints",
    "content-security-policy",
    "content-security-policy-report-only",
    "permissions-policy",
    "feature-policy",
    "document-policy",
    "referrer-policy",
    "timing-allow-origin",
    "origin-agent-cluster",
    "origin-trial",
    "clear-site-data",
    "accept-ch",
    "critical-ch",
    "x-frame-options",
    "x-xss-protection",
    "x-permitted-cross-domain-policies",
    "x-dns-prefetch-control",
    "x-ua-compatible",
    "x-robots-tag",
    "service-worker-allowed",
    "speculation-rules",
    "sourcemap",
    "link",
    "refresh",
    // Which host it is, which way it came, and where else it may be reached.
    "alt-svc",
    "location",
    "content-location",
    "server",
    "server-timing",
    "via",
    "x-via",
    "x-powered-by",
    "x-generator",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-served-by",
    "x-backend-server",
    "x-upstream",
    "x-proxy-cache",
    "x-cache",
    "x-cache-hits",
    "x-timer",
    "x-varnish",
    "x-cloud-trace-context",
    "x-azure-ref",
    "x-runtime",
    "cdn-loop",
]);

/// Beginnings of names; `x-ratelimit-` is looked for in what follows `x-`.
fn is_of_family(name: &str) -> bool {
    const X: &[&str] = &[
        "ratelimit-",
        "rate-limit-",
        "amz-cf-",
        "amzn-",
        "envoy-",
        "litellm-",
        "kong-",
        "vercel-",
        "fastly-",
        "akamai-",
        "ms-region",
    ];
    const OTHERS: &[&str] = &[
        "cf-",
        "ratelimit-",
        "anthropic-ratelimit-",
        "anthropic-priority-",
        "anthropic-fast-",
        "access-control-",
        "cross-origin-",
        "fastly-",
        "akamai-",
    ];
    match name.strip_prefix("x-") {
        // Codex shows the plan's use by these; the one that it must send back is not among them.
        Some(rest) if rest.starts_with("codex-") => rest != "codex-turn-state",
        // A request id, whatever its family.
        Some("amzn-requestid") => false,
        Some(rest) => X.iter().any(|family| rest.starts_with(family)),
        None => OTHERS.iter().any(|family| name.starts_with(family)),
    }
}

/// Takes away what a caller is not to have.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // Of two lengths the chunks' holds.
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut gone: SmallVec<[HeaderName; 16]> = SmallVec::new();
    for value in headers.get_all(header::CONNECTION) {
        // It can name further headers of this hop.
        let words = value.to_str().unwrap_or_default().split(',');
        gone.extend(words.filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    let withheld = headers.keys().filter(|name| WITHHELD.has(name.as_str()) || is_of_family(name.as_str()));
    gone.extend(withheld.cloned());
    for name in gone {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_see_no_account_and_no_policy_of_the_host() {
        let stay = [
            "content-type",
            "content-length",
            "content-encoding",
            "cache-control",
            "date",
            "vary",
            "etag",
            "retry-after",
            "retry-after-ms",
            "x-should-retry",
            "x-request-id",
            "request-id",
            "apim-request-id",
            "x-oneapi-request-id",
            "x-amzn-requestid",
            "openai-version",
            "openai-model",
            "openai-processing-ms",
            "x-codex-turn-state",
            "x-models-etag",
            "x-reasoning-included",
            "x-content-type-options",
            "content-disposition",
        ];
        let go = [
            "openai-organization",
            "openai-project",
            "anthropic-organization-id",
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-unified-5h-utilization",
            "anthropic-ratelimit-tokens-reset",
            "anthropic-priority-input-tokens-limit",
            "ratelimit-policy",
            "x-codex-primary-used-percent",
            "x-codex-plan-type",
            "strict-transport-security",
            "nel",
            "report-to",
            "reporting-endpoints",
            "access-control-allow-origin",
            "access-control-expose-headers",
            "content-security-policy",
            "cross-origin-opener-policy",
            "permissions-policy",
            "server",
            "via",
            "cf-ray",
            "cf-cache-status",
            "alt-svc",
            "set-cookie",
            "x-powered-by",
            "x-litellm-model-api-base",
            "x-envoy-upstream-service-time",
            "x-amzn-trace-id",
            "www-authenticate",
            "location",
            "keep-alive",
            "x-hop",
        ];
        let mut headers = HeaderMap::new();
        for name in stay.iter().chain(&go) {
            headers.append(HeaderName::from_static(name), "v".parse().expect("value"));
        }
        headers.append(header::SET_COOKIE, "w".parse().expect("value"));
        headers.append(header::CONNECTION, "close, X-Hop".parse().expect("value"));
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut expected = stay.to_vec();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn of_two_lengths_the_chunks_hold() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_LENGTH, "3".parse().expect("value"));
        headers.append(header::TRANSFER_ENCODING, "chunked".parse().expect("value"));
        strip(&mut headers);
        assert!(headers.is_empty());
    }
}
