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

/// The caller's address: the connection's, or behind a load balancer that is trusted the one that it saw,
/// the last of `X-Forwarded-For` (the earlier ones are whatever the caller wrote).
pub fn client_ip(config: &Config, head: &Parts, peer: SocketAddr) -> IpAddr {
    let last = || head.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok();
    let forwarded = || last()?.rsplit(',').next()?.trim().parse().ok();
    if config.trust_forwarded_for { forwarded().unwrap_or(peer.ip()) } else { peer.ip() }
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
        }
    }
}
