//! How one setting is read from its text, and the small types of settings. Pure.

use super::{Error, Variable};
use contract::seal::Sealer;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Reads the trimmed text; the error says what would have been right.
    fn parse(text: &str) -> Result<Self, String>;
}

pub(super) fn read<T: Setting>(
    variable: &Variable,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<T, Error> {
    let given = lookup(variable.name).filter(|text| !text.trim().is_empty());
    let text = match (&given, variable.default) {
        (Some(text), _) => text.trim(),
        (None, Some(default)) => default,
        (None, None) => {
            return Err(Error::Missing { name: variable.name, doc: variable.doc.trim() });
        }
    };
    T::parse(text).map_err(|expected| Error::Wrong { name: variable.name, expected })
}

macro_rules! parsed_by_std {
    ($($kind:ty: $expected:literal;)+) => {
        $(impl Setting for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| $expected.to_owned())
            }
        })+
    };
}

parsed_by_std! {
    SocketAddr: "an IP address and a port, such as 127.0.0.1:8080";
    u32: "a whole number";
    u64: "a whole number";
    usize: "a whole number";
    PathBuf: "a path";
    String: "a text";
}

impl<T: Setting> Setting for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }
}

impl Setting for Duration {
    /// A number and a unit; a bare number is seconds.
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "a time such as 100ms, 30s, 5m or 1h".to_owned();
        let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..split].parse().map_err(|_| expected())?;
        let millis = match text[split..].trim() {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(expected()),
        };
        number.checked_mul(millis).map(Self::from_millis).ok_or_else(expected)
    }
}

impl Setting for url::Url {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "a URL that begins with http:// or https://".to_owned();
        let url = Self::parse(text).map_err(|_| expected())?;
        let web = matches!(url.scheme(), "http" | "https") && url.has_host();
        if web { Ok(url) } else { Err(expected()) }
    }
}

impl Setting for Sealer {
    fn parse(text: &str) -> Result<Self, String> {
        Self::from_hex(text).map_err(|_| "64 hexadecimal digits".to_owned())
    }
}

/// A setting that must not be seen: prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The value itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Setting for Hidden {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// A number of threads; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores(pub usize);

impl Setting for Cores {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(std::thread::available_parallelism().map_or(1, usize::from))),
            _ => match text.parse() {
                Ok(number @ 1..=1024) => Ok(Self(number)),
                _ => Err("a number of threads from 1 to 1024".to_owned()),
            },
        }
    }
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$case_doc])* $case,)+ }

        impl Setting for $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$case),)+
                    _ => Err([$($word),+].join(" or ")),
                }
            }
        }
    )+};
}

choices! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
    /// Status of a refusal for money.
    QuotaStatus {
        /// Payment Required.
        PaymentRequired = "402",
        /// Too Many Requests, for clients that understand only that.
        TooManyRequests = "429",
    }
    /// What becomes of new requests while records cannot be written.
    SpoolFailure {
        /// 503, and the proxy is not ready.
        Refuse = "refuse",
        /// Served; their records may be lost.
        Serve = "serve",
    }
    /// What a caller who hung up pays.
    BillAborted {
        /// What was seen, estimated where the upstream did not say.
        Estimate = "estimate",
        /// Nothing.
        Free = "free",
    }
}

impl QuotaStatus {
    /// As a number.
    pub const fn code(self) -> u16 {
        match self {
            Self::PaymentRequired => 402,
            Self::TooManyRequests => 429,
        }
    }
}
