//! What the head of a request says: a header's value, the caller's address. Pure.

use crate::config::Config;
use http::HeaderMap;
use http::request::Parts;
use std::net::{IpAddr, SocketAddr};

/// So many headers are compared one by one sooner than a name is parsed and hashed.
const FEW_HEADERS: usize = 24;

/// A header's value as text, its first one; `None` if absent or not ASCII. `name` in lower case.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = if headers.len() <= FEW_HEADERS {
        headers.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value)
    } else {
        headers.get(name)
    };
    value.and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The same of several names in one pass. `names` in lower case.
pub fn headers<'a, const N: usize>(headers: &'a HeaderMap, names: [&str; N]) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    for (own, value) in headers {
        let own = own.as_str();
        if let Some(at) = names.iter().position(|name| *name == own)
            && found[at].is_none()
        {
            found[at] = value.to_str().ok().map(str::trim);
        }
    }
    found
}

/// A header that readers differ about, because it is given several times.
#[derive(Debug, thiserror::Error)]
#[error("the header `{0}` is given several times; send one")]
pub struct Several(&'static str);

/// The same of a header that may be there once.
pub fn only<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Several> {
    let mut values = headers.iter().filter(|(own, _)| own.as_str() == name).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() {
        return Err(Several(name));
    }
    Ok(first.and_then(|value| value.to_str().ok()).map(str::trim))
}

/// The caller's address: the connection's, or behind `FORWARDED_HOPS` proxies the one that the first of them saw.
/// What stands further to the left in `X-Forwarded-For` is whatever the caller wrote.
pub fn client_ip(config: &Config, head: &Parts, peer: SocketAddr) -> IpAddr {
    match config.forwarded_hops {
        0 => peer.ip(),
        hops => forwarded(&head.headers, hops as usize).unwrap_or(peer.ip()),
    }
}

fn forwarded(headers: &HeaderMap, hops: usize) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut entries = lines.filter_map(|value| value.to_str().ok()).flat_map(|line| line.rsplit(','));
    address(entries.nth(hops - 1)?.trim().trim_matches('"'))
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = bare.unwrap_or(text).parse().ok();
    alone.or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

/// The address in text. The common kind by hand: the library's formatter costs as much as a lookup in the table.
pub fn ip_text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_among_few_and_many() {
        let mut headers = HeaderMap::new();
        for at in 0..2 * FEW_HEADERS {
            headers.append("x-two", format!(" {at} ").parse().expect("value"));
            headers.append(
                format!("x-{at}").parse::<http::HeaderName>().expect("name"),
                "v".parse().expect("value"),
            );
            assert_eq!(header(&headers, "x-two"), Some("0"));
            assert_eq!(header(&headers, &format!("x-{at}")), Some("v"));
            assert_eq!(header(&headers, "x"), None);
            let names = ["x", "x-two", "x-0"];
            assert_eq!(super::headers(&headers, names), [None, Some("0"), Some("v")]);
        }
    }

    #[test]
    fn the_address_is_what_the_first_trusted_proxy_saw() {
        let cases: [(u32, &[&str], &str); 13] = [
            (0, &["192.0.2.1"], "203.0.113.9"),
            (1, &["192.0.2.1"], "192.0.2.1"),
            (1, &["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
            (2, &["198.51.100.7, 192.0.2.1"], "198.51.100.7"),
            (2, &["6.6.6.6, 198.51.100.7", "192.0.2.1"], "198.51.100.7"),
            (2, &["192.0.2.1"], "203.0.113.9"),
            (1, &["192.0.2.1:4711"], "192.0.2.1"),
            (1, &["2001:db8::1"], "2001:db8::1"),
            (1, &["[2001:db8::1]"], "2001:db8::1"),
            (1, &["[2001:db8::1]:4711"], "2001:db8::1"),
            (1, &["\"192.0.2.1\""], "192.0.2.1"),
            (1, &["unknown"], "203.0.113.9"),
            (1, &[], "203.0.113.9"),
        ];
        let peer = SocketAddr::from(([203, 0, 113, 9], 1));
        let key = "00".repeat(32);
        for (hops, lines, expected) in cases {
            let hops_text = hops.to_string();
            let pairs = [("CONTROL_TOKEN", "t"), ("SECRETS_KEY", &key), ("FORWARDED_HOPS", &hops_text)];
            let config = Config::from_pairs(&pairs).expect("config");
            let mut request = http::Request::builder();
            for line in lines {
                request = request.header("x-forwarded-for", *line);
            }
            let (head, ()) = request.body(()).expect("request").into_parts();
            assert_eq!(client_ip(&config, &head, peer).to_string(), expected, "{hops} {lines:?}");
        }
        let pairs = [("CONTROL_TOKEN", "t"), ("SECRETS_KEY", &key), ("TRUST_FORWARDED_FOR", "true")];
        assert_eq!(Config::from_pairs(&pairs).expect("config").forwarded_hops, 1, "the older setting");
    }
}
