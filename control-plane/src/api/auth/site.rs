//! Where a request comes from: which site's page sent it, and which address.

use crate::api::Settings;
use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, ORIGIN};
use std::net::{IpAddr, SocketAddr};

/// Whether a page of another site made the browser send this. Programs send neither header.
pub(super) fn is_foreign(request: &HttpRequest) -> bool {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    match request.headers().get(ORIGIN).map(|value| value.to_str()) {
        Some(Ok(origin)) => {
            let Some((_, authority)) = origin.split_once("://") else { return true };
            let info = request.connection_info();
            let own = [info.host(), header("host").unwrap_or_default()];
            !own.iter().any(|host| bare(host) == bare(authority))
        }
        Some(Err(_)) => true,
        None => matches!(header("sec-fetch-site"), Some("cross-site")),
    }
}

/// Without the port that the scheme implies: the scheme itself may differ behind a proxy that ends TLS.
fn bare(authority: &str) -> String {
    let lower = authority.trim_end_matches('/').to_ascii_lowercase();
    let stripped = lower.strip_suffix(":80").or_else(|| lower.strip_suffix(":443")).map(str::to_owned);
    stripped.unwrap_or(lower)
}

/// The caller's address: the peer, or what the configured number of proxies in front say. A header that no
/// proxy of ours wrote is not believed.
pub(super) fn client_ip(request: &HttpRequest, settings: &Settings) -> Option<String> {
    let peer = request.peer_addr().map(|peer| peer.ip().to_string());
    match settings.forwarded_hops {
        0 => peer,
        hops => forwarded(request.headers(), hops).or(peer),
    }
}

fn forwarded(headers: &HeaderMap, hops: usize) -> Option<String> {
    let lines = headers.get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
    let entries: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let entry = entries.get(entries.len().checked_sub(hops)?)?;
    address(entry).map(|ip| ip.to_string())
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse().ok();
    alone.or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

/// Whether the caller speaks TLS to us or to the proxy in front.
pub(super) fn is_https(request: &HttpRequest) -> bool {
    request.connection_info().scheme() == "https"
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn foreign_pages() {
        let cases = [
            (None, None, "gw.example:23000", false),
            (Some("http://gw.example:23000"), None, "gw.example:23000", false),
            (Some("https://GW.example"), None, "gw.example", false),
            (Some("https://gw.example"), None, "gw.example:443", false),
            (Some("https://evil.example"), None, "gw.example", true),
            (Some("http://gw.example:8080"), None, "gw.example:23000", true),
            (Some("null"), None, "gw.example", true),
            (None, Some("cross-site"), "gw.example", true),
            (None, Some("same-origin"), "gw.example", false),
        ];
        for (origin, fetch, host, want) in cases {
            let mut request = TestRequest::post().insert_header(("host", host));
            if let Some(origin) = origin {
                request = request.insert_header(("origin", origin));
            }
            if let Some(fetch) = fetch {
                request = request.insert_header(("sec-fetch-site", fetch));
            }
            assert_eq!(is_foreign(&request.to_http_request()), want, "{origin:?} {fetch:?} {host}");
        }
    }

    #[test]
    fn believed_addresses() {
        let request = TestRequest::post().insert_header(("x-forwarded-for", "9.9.9.9, 1.2.3.4, 10.0.0.1"));
        let headers = request.to_http_request().headers().clone();
        assert_eq!(forwarded(&headers, 1).as_deref(), Some("10.0.0.1"));
        assert_eq!(forwarded(&headers, 2).as_deref(), Some("1.2.3.4"));
        assert_eq!(forwarded(&headers, 4), None);
        for (written, read) in [
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("1.2.3.4:5678", Some("1.2.3.4")),
            ("\"1.2.3.4\"", Some("1.2.3.4")),
            ("unknown", None),
            ("1.2.3.4:x", None),
        ] {
            let request = TestRequest::post().insert_header(("x-forwarded-for", written));
            assert_eq!(forwarded(request.to_http_request().headers(), 1).as_deref(), read, "{written}");
        }
    }
}
