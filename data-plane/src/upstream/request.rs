//! The request as the upstream gets it: the caller's method, path and headers, minus what was meant for this
//! proxy, plus the provider's credential. Pure.

use super::failure::{Failure, FailureClass};
use super::join;
use super::names::Names;
use super::outgoing::{Outgoing, Writer};
use crate::table::Upstream;
use bytes::Bytes;
use contract::table::ProviderKind;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use llm::dialect::Route;
use smallvec::SmallVec;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Words in a host name that mark a relay in front of Anthropic: those want Bearer alone.
const RELAY_MARKS: &[&str] =
    &["proxy", "relay", "gateway", "router", "worker", "openrouter", "api2d", "oaipro"];

/// The request for `up`: the caller's method, query and headers, the route's path, and `body`, which is
/// decompressed and final. `ours` are headers of this proxy, which replace the caller's; an empty one takes it away. The
/// provider's own headers replace both.
pub fn request(
    up: &Upstream,
    route: &Route<'_>,
    head: &Parts,
    body: Bytes,
    ours: &HeaderMap,
) -> Result<Outgoing, Failure> {
    let wrong = |what: &str| Failure::because(FailureClass::Request, what);
    let prepared = up.prepared.get_or_make(|| Prepared::new(up));
    let prepared = match prepared {
        Some(Ok(prepared)) => prepared,
        Some(Err(what)) => return Err(wrong(what)),
        None => return Err(wrong("prepared as something else")),
    };
    let path = ["/v1", route.tail].concat();
    let query = head.uri.query().unwrap_or_default();
    let target = join::target(up.row.kind, &up.base, &path, query, route.kind.is_metered());
    if !target.bytes().all(|byte| byte > b' ' && byte != 0x7f) {
        return Err(wrong("the path is no URL"));
    }
    let room = prepared.lines.len() + 64 * (head.headers.len() + ours.len());
    let mut writer = Writer::new(&head.method, &target, room);
    writer.lines(&prepared.lines);
    let replaced = |name: &HeaderName| prepared.custom.contains(name) || ours.contains_key(name);
    passed_on(&head.headers, up.row.preserve_client_ip, |name, value| {
        if !replaced(name) {
            writer.header(name.as_str(), value);
        }
    });
    for (name, value) in ours {
        if !prepared.custom.contains(name) && !value.is_empty() {
            writer.header(name.as_str(), value);
        }
    }
    Ok(writer.end(body))
}

/// What is the same in every request to a provider.
struct Prepared {
    /// Header lines: host, encoding, the provider's own headers, its credential.
    lines: Vec<u8>,
    /// Which of the caller's headers the provider's own replace.
    custom: Vec<HeaderName>,
}

impl Prepared {
    fn new(up: &Upstream) -> Result<Self, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in &up.row.custom_headers {
            let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                return Err("a custom header");
            };
            if !OURS.has(name.as_str()) {
                headers.insert(name, value);
            }
        }
        let custom: Vec<HeaderName> = headers.keys().cloned().collect();
        let host = HeaderValue::from_str(join::host(&up.base)).map_err(|_| "the base URL's host")?;
        headers.insert(header::HOST, host);
        // An answer that the usage scanner can read as it passes.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        authorize(up, &mut headers).map_err(|_| "the credential does not fit into a header")?;
        let mut lines = Vec::new();
        for (name, value) in &headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        Ok(Self { lines, custom })
    }
}

/// What the upstream may see of the caller's headers.
fn passed_on<'a>(
    from: &'a HeaderMap,
    preserve_client_ip: bool,
    mut pass: impl FnMut(&'a HeaderName, &'a HeaderValue),
) {
    let named: SmallVec<[&str; 4]> = from
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    for (name, value) in from {
        let word = name.as_str();
        let kept =
            !stays(word, preserve_client_ip) && !named.iter().any(|named| named.eq_ignore_ascii_case(word));
        if kept {
            pass(name, value);
        }
    }
}

/// Headers of this hop: transport, credentials, what describes a body that was decoded; and what would have the
/// upstream read another method or path than the one that was judged here. Neither a caller nor a custom header sets
/// them upstream.
static OURS: Names = Names::new(&[
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "expect",
    "accept-encoding",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
]);

/// Of whose account and from which page the caller speaks: the account upstream is the provider's, and a page's
/// origin makes upstreams refuse the credential. A provider's custom headers may name an account.
static ACCOUNT: Names = Names::new(&[
    "origin",
    "referer",
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
]);

/// What balancers, networks and tracers on the way here have added. `traceparent` and `tracestate` pass: they hold
/// numbers, and a relay may continue the trace. Baggage is whatever a program inside put in.
static WAY: Names = Names::new(&[
    "via",
    "cdn-loop",
    "baggage",
    "b3",
    "uber-trace-id",
    "sentry-trace",
    "newrelic",
    "x-cloud-trace-context",
    "x-real-host",
    "x-scheme",
    "x-arr-log-id",
    "x-arr-ssl",
    "x-site-deployment-id",
    "x-waws-unencoded-url",
    "front-end-https",
    "x-nginx-proxy",
    "x-varnish",
    "surrogate-capability",
]);

/// Where the caller's address stands, by which a provider that asks for it knows the caller.
static ADDRESSES: Names = Names::new(&[
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "x-remote-addr",
    "x-remote-ip",
    "x-originating-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-appengine-user-ip",
    "x-vercel-forwarded-for",
    "x-vercel-ip-address",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "fastly-client-ip",
    "fly-client-ip",
    "cloudfront-viewer-address",
    "client-ip",
    "remote-addr",
]);

/// Beginnings of names that networks and browsers own, or that command a gateway: an upstream that is one would obey them
/// and go to another target, with another key.
fn is_of_network(name: &str) -> bool {
    const X: &[&str] = &[
        "forwarded-",
        "envoy-",
        "amzn-",
        "amz-cf-",
        "b3-",
        "datadog-",
        "original-",
        "azure-",
        "appengine-",
        "akamai-",
        "vercel-",
        "fastly-",
        "nf-",
        "portkey-",
        "litellm-",
    ];
    const OTHERS: &[&str] = &["cf-", "sec-", "fastly-", "fly-", "cloudfront-", "akamai-", "helicone-"];
    match name.strip_prefix("x-") {
        Some(rest) => X.iter().any(|family| rest.starts_with(family)),
        None => OTHERS.iter().any(|family| name.starts_with(family)),
    }
}

/// Whether a caller's header stays here.
fn stays(name: &str, preserve_client_ip: bool) -> bool {
    OURS.has(name)
        || ACCOUNT.has(name)
        || WAY.has(name)
        || (ADDRESSES.has(name) && !preserve_client_ip)
        || (is_of_network(name) && !(preserve_client_ip && ADDRESSES.has(name)))
}

fn authorize(up: &Upstream, headers: &mut HeaderMap) -> Result<(), header::InvalidHeaderValue> {
    let secret = up.secret.expose();
    let (bearer, own) = match up.row.kind {
        ProviderKind::Claude => {
            let (bearer, own) = claude_forms(up.base.host_str().unwrap_or_default());
            (bearer.then_some(secret.to_owned()), own.then_some(X_API_KEY))
        }
        ProviderKind::ClaudeAuth | ProviderKind::Codex | ProviderKind::OpenAiCompatible => {
            (Some(secret.to_owned()), None)
        }
        ProviderKind::Gemini => match access_token(secret) {
            Some(token) => (Some(token), None),
            None => (None, Some(X_GOOG_API_KEY)),
        },
        ProviderKind::GeminiCli => (Some(access_token(secret).unwrap_or_else(|| secret.to_owned())), None),
    };
    if let Some(token) = bearer {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    if let Some(name) = own {
        let mut value = HeaderValue::from_str(secret)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

/// Which forms a Claude host takes: (Bearer, `x-api-key`).
fn claude_forms(host: &str) -> (bool, bool) {
    let below =
        |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if host.starts_with("aws-external-anthropic.") && below("api.aws") {
        return (false, true);
    }
    let vendor = below("anthropic.com") || below("claude.ai");
    let relay = host.split(['.', '-']).any(|part| RELAY_MARKS.contains(&part));
    (true, vendor || !relay)
}

/// The token of an OAuth credential: its JSON form, or a bare Google access token.
fn access_token(secret: &str) -> Option<String> {
    if secret.starts_with("ya29.") {
        return Some(secret.to_owned());
    }
    let fields: serde_json::Value =
        secret.trim_start().starts_with('{').then(|| serde_json::from_str(secret).ok())??;
    fields.get("access_token")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
