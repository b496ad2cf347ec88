//! Calls to the outside: webhooks and price tables. The only place that opens such a connection.
//!
//! Whoever may type a URL could otherwise make this process call its neighbours. So the name is resolved here,
//! an address that is not public is refused unless `OUTBOUND_ALLOW` names it, the connection goes to the very
//! addresses that were looked at, and redirects are not followed. Depends on `config` and `rules`. Never holds a
//! database connection, never logs a URL: webhooks carry their secret in it.

mod address;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod webhook;

pub use webhook::{Message, Target};

use crate::config;
use crate::rules::{Code, Refusal};
use address::is_public;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, redirect};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// Most of an answer that is kept where the caller does not say.
const ANSWER_MAX: usize = 64 << 10;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not http or https, or without a host.
    #[error("is no http or https URL")]
    Url,
    /// The name has no address.
    #[error("the name {0} could not be resolved")]
    Resolve(String),
    /// The name leads to an address that is not public and not allowed.
    #[error("{0} is not a public address and not in OUTBOUND_ALLOW")]
    Internal(String),
    /// No connection, or it broke.
    #[error("the host could not be reached")]
    Unreachable(#[source] reqwest::Error),
    /// No whole answer in time.
    #[error("there was no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// An answer, but not a good one.
    #[error("the answer was HTTP {0}")]
    Status(u16),
    /// More than was asked for.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The service answered, and said no.
    #[error("the service refused the message: {0}")]
    NotTaken(String),
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
}

impl Error {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) | Self::Resolve(_) => true,
            Self::Status(status) => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Url | Self::Internal(_) | Self::TooLarge(_) | Self::NotTaken(_) | Self::Tls(_) => false,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Url => Self::new(Code::OutboundUrl),
            Error::Resolve(host) => Self::new(Code::OutboundResolve).with("host", host),
            Error::Internal(host) => Self::new(Code::OutboundInternal).with("host", host),
            Error::Unreachable(_) | Error::Tls(_) => Code::OutboundUnreachable.into(),
            Error::Timeout(after) => Self::new(Code::OutboundTimeout).with("ms", after.as_millis() as u64),
            Error::Status(status) => Self::new(Code::OutboundStatus).with("status", status),
            Error::NotTaken(why) => Self::new(Code::OutboundNotTaken).with("why", why),
            Error::TooLarge(max) => Self::new(Code::OutboundTooLarge).with("max", max),
        }
    }
}

/// Makes the calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    settings: Arc<config::Outbound>,
    tls: rustls::ClientConfig,
}

/// What to send.
#[derive(Debug)]
struct Call {
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
    limit: Duration,
    max: usize,
}

impl Outbound {
    /// Trusts the built-in authorities.
    pub fn new(settings: config::Outbound) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { settings: Arc::new(settings), tls })
    }

    /// The configured price table, as its bytes.
    pub async fn price_table(&self) -> Result<Vec<u8>, Error> {
        let (limit, max) = (self.settings.price_timeout, self.settings.price_max);
        let call = Call { method: Method::GET, headers: HeaderMap::new(), body: Vec::new(), limit, max };
        self.call(&self.settings.price_url, call).await
    }

    /// Posts JSON; the answer's beginning.
    pub async fn post_json(&self, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.extend(headers);
        let limit = self.settings.timeout;
        let call = Call { method: Method::POST, headers: all, body, limit, max: ANSWER_MAX };
        self.call(url, call).await
    }

    async fn call(&self, url: &Url, call: Call) -> Result<Vec<u8>, Error> {
        let limit = call.limit;
        timeout(limit, self.called(url, call)).await.unwrap_or(Err(Error::Timeout(limit)))
    }

    async fn called(&self, url: &Url, call: Call) -> Result<Vec<u8>, Error> {
        let (host, addresses) = self.addresses(url).await?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .resolve_to_addrs(&host, &addresses)
            .user_agent(concat!("switchyard/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unreachable)?;
        let request = client.request(call.method, url.clone()).headers(call.headers).body(call.body);
        let response = request.send().await.map_err(unreachable)?;
        match response.status().is_success() {
            true => body(response, call.max).await,
            false => Err(Error::Status(response.status().as_u16())),
        }
    }

    /// Refuses an address that could never be called. Where a name leads is looked up with each call.
    pub fn check_literal(&self, url: &Url) -> Result<(), Refusal> {
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => address.into(),
            Some(url::Host::Ipv6(address)) => address.into(),
            Some(url::Host::Domain(_)) | None => return Ok(()),
        };
        let host = url.host_str().unwrap_or_default();
        match self.may_call(host.trim_start_matches('[').trim_end_matches(']'), address) {
            true => Ok(()),
            false => Err(Error::Internal(host.to_owned()).into()),
        }
    }

    fn may_call(&self, host: &str, address: IpAddr) -> bool {
        is_public(address) || self.settings.allow.iter().any(|entry| entry.covers(host, address))
    }

    /// Where the host is; refused as soon as one of its addresses is not public.
    async fn addresses(&self, url: &Url) -> Result<(String, Vec<SocketAddr>), Error> {
        let host = url.host_str().filter(|host| !host.is_empty() && matches!(url.scheme(), "http" | "https"));
        let (Some(host), Some(port)) = (host, url.port_or_known_default()) else { return Err(Error::Url) };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|_| Error::Resolve(host.to_owned()))?.collect();
        if addresses.is_empty() {
            return Err(Error::Resolve(host.to_owned()));
        }
        match addresses.iter().all(|at| self.may_call(bare, at.ip())) {
            true => Ok((host.to_owned(), addresses)),
            false => Err(Error::Internal(host.to_owned())),
        }
    }
}

/// The URL stands in the library's error, and must not reach a log.
fn unreachable(error: reqwest::Error) -> Error {
    Error::Unreachable(error.without_url())
}

async fn body(response: Response, max: usize) -> Result<Vec<u8>, Error> {
    let mut stream = response.bytes_stream();
    let mut all = Vec::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(unreachable)?;
        if all.len() + part.len() > max {
            return Err(Error::TooLarge(max));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}
