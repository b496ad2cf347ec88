//! Calls to the outside that admins ask for: where to, how long, how much.

use super::read::{Env, Invalid};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// LiteLLM's own table, as its repository serves it.
const LITELLM: &str =
    "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json";

/// Webhooks and price tables.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// `OUTBOUND_ALLOW`: hosts, addresses and networks (`10.1.0.0/16`) that may be called although they are not
    /// public; a comma list. Whoever may set a webhook can reach what stands here.
    pub allow: Vec<Allowed>,
    /// `OUTBOUND_TIMEOUT_MS`: for one delivery, from the name look-up to the end of the answer.
    pub timeout: Duration,
    /// `PRICE_URL`: the table that `syncLiteLLMPrices` takes.
    pub price_url: Url,
    /// `PRICE_SYNC_SECONDS`: how often it is fetched without being asked for; 0: never.
    pub price_sync: Option<Duration>,
    /// `PRICE_TIMEOUT_MS`: for the whole table; after that the bundled one is taken.
    pub price_timeout: Duration,
    /// `PRICE_MAX_BYTES`: of the table.
    pub price_max: usize,
}

impl Outbound {
    pub(super) fn read(env: &Env<'_>) -> Result<Self, Invalid> {
        let allow = env.text("OUTBOUND_ALLOW", "");
        let entries = allow.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let wrong =
            |()| Invalid::new("OUTBOUND_ALLOW", "must be a comma list of hosts, addresses and networks");
        let sync = env.number("PRICE_SYNC_SECONDS", 21_600)?;
        Ok(Self {
            allow: entries.map(str::parse).collect::<Result<_, _>>().map_err(wrong)?,
            timeout: env.millis("OUTBOUND_TIMEOUT_MS", 10_000)?,
            price_url: env.parsed("PRICE_URL", LITELLM, "must be an absolute URL")?,
            price_sync: (sync > 0).then(|| Duration::from_secs(sync.into())),
            price_timeout: env.millis("PRICE_TIMEOUT_MS", 10_000)?,
            price_max: env.count("PRICE_MAX_BYTES", 16 << 20)?,
        })
    }
}

/// Notifications.
#[derive(Clone, Copy, Debug)]
pub struct Notify {
    /// `NOTIFY_POLL_MS`: how often it is looked whether there is something to tell.
    pub poll: Duration,
    /// `NOTIFY_ATTEMPTS`: deliveries of one message before it is given up.
    pub attempts: usize,
    /// `NOTIFY_BACKOFF_SECONDS`: pause after the first failed delivery; each further one doubles it, up to an hour.
    pub backoff: Duration,
    /// `NOTIFY_KEEP_DAYS`: how long what was told is remembered, and so not told again.
    pub keep: Duration,
}

impl Notify {
    pub(super) fn read(env: &Env<'_>) -> Result<Self, Invalid> {
        Ok(Self {
            poll: env.millis("NOTIFY_POLL_MS", 5_000)?,
            attempts: env.count("NOTIFY_ATTEMPTS", 5)?,
            backoff: env.seconds("NOTIFY_BACKOFF_SECONDS", 10)?,
            keep: Duration::from_secs(env.count("NOTIFY_KEEP_DAYS", 100)? as u64 * 86_400),
        })
    }
}

/// One entry of `OUTBOUND_ALLOW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A host by its name.
    Host(String),
    /// An address, or all that share its first bits.
    Network(IpAddr, u8),
}

impl Allowed {
    /// Whether a call to `address`, found under `host`, is meant by it.
    pub fn covers(&self, host: &str, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Host(name), _) => name.eq_ignore_ascii_case(host),
            (Self::Network(IpAddr::V4(network), bits), IpAddr::V4(address)) => {
                same(&network.octets(), &address.octets(), *bits)
            }
            (Self::Network(IpAddr::V6(network), bits), IpAddr::V6(address)) => {
                same(&network.octets(), &address.octets(), *bits)
            }
            _ => false,
        }
    }
}

/// Whether the first `bits` agree.
fn same(one: &[u8], other: &[u8], bits: u8) -> bool {
    one.iter().zip(other).enumerate().all(|(at, (one, other))| {
        let left = usize::from(bits).saturating_sub(at * 8).min(8);
        let mask = !u8::MAX.checked_shr(left as u32).unwrap_or(0);
        one & mask == other & mask
    })
}

impl FromStr for Allowed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let longest = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address, longest(&address)));
        }
        if let Some((address, bits)) = text.split_once('/') {
            let (address, bits) = (address.parse().map_err(|_| ())?, bits.parse().map_err(|_| ())?);
            return if bits <= longest(&address) { Ok(Self::Network(address, bits)) } else { Err(()) };
        }
        let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if is_name { Ok(Self::Host(text.to_owned())) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let covers = |entry: &str, host: &str, address: &str| {
            entry.parse::<Allowed>().map(|entry| entry.covers(host, address.parse().expect("address")))
        };
        for (entry, host, address, want) in [
            ("127.0.0.1", "x", "127.0.0.1", Ok(true)),
            ("127.0.0.1", "x", "127.0.0.2", Ok(false)),
            ("10.1.0.0/16", "x", "10.1.255.3", Ok(true)),
            ("10.1.0.0/16", "x", "10.2.0.1", Ok(false)),
            ("10.1.128.0/17", "x", "10.1.127.1", Ok(false)),
            ("0.0.0.0/0", "x", "8.8.8.8", Ok(true)),
            ("0.0.0.0/0", "x", "::1", Ok(false)),
            ("fd00::/8", "x", "fd12::1", Ok(true)),
            ("Hooks.local", "hooks.LOCAL", "10.0.0.1", Ok(true)),
            ("hooks.local", "a.hooks.local", "10.0.0.1", Ok(false)),
            ("10.0.0.0/33", "x", "10.0.0.1", Err(())),
            ("http://x", "x", "10.0.0.1", Err(())),
        ] {
            assert_eq!(covers(entry, host, address), want, "{entry} {host} {address}");
        }
    }
}
