//! How one variable is read and checked.

use contract::seal::Sealer;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A setting that stops the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}.")]
pub struct Invalid {
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong, as the rest of a sentence.
    pub why: String,
}

impl Invalid {
    /// `why` continues the sentence that the variable's name begins.
    pub fn new(variable: &'static str, why: impl Into<String>) -> Self {
        Self { variable, why: why.into() }
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `clear` from being printed.
    pub fn new(clear: &str) -> Self {
        Self(clear.into())
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Reads variables; an empty one counts as absent.
pub(super) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Env<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    pub(super) fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        default: &str,
        why: &str,
    ) -> Result<T, Invalid> {
        self.text(name, default).parse().map_err(|_| Invalid::new(name, why))
    }

    pub(super) fn number(&self, name: &'static str, default: u32) -> Result<u32, Invalid> {
        self.parsed(name, &default.to_string(), "must be a whole number")
    }

    /// A number of things of which there must be at least one.
    pub(super) fn count(&self, name: &'static str, default: u32) -> Result<usize, Invalid> {
        match self.number(name, default)? {
            0 => Err(Invalid::new(name, "must be greater than zero")),
            count => Ok(count as usize),
        }
    }

    pub(super) fn millis(&self, name: &'static str, default: u32) -> Result<Duration, Invalid> {
        Ok(Duration::from_millis(self.count(name, default)? as u64))
    }

    pub(super) fn seconds(&self, name: &'static str, default: u32) -> Result<Duration, Invalid> {
        Ok(Duration::from_secs(self.count(name, default)? as u64))
    }

    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool, Invalid> {
        match self.get(name).as_deref() {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(Invalid::new(name, "must be true or false")),
        }
    }

    pub(super) fn url(&self, name: &'static str) -> Result<Secret, Invalid> {
        self.optional_url(name)?.ok_or_else(|| {
            Invalid::new(name, "is not set; it takes postgres://user:password@host:5432/database")
        })
    }

    pub(super) fn optional_url(&self, name: &'static str) -> Result<Option<Secret>, Invalid> {
        let Some(value) = self.get(name) else { return Ok(None) };
        if !value.starts_with("postgres://") && !value.starts_with("postgresql://") {
            return Err(Invalid::new(name, "must begin with postgres://"));
        }
        // What is required is verified as well, so these two say no more.
        let value = ["verify-full", "verify-ca"]
            .iter()
            .fold(value, |value, mode| value.replace(&format!("sslmode={mode}"), "sslmode=require"));
        // The reason may quote a part of the password.
        let known = "must be like postgres://user:password@host:5432/name?sslmode=require, with special characters \
                     percent-encoded; an authority of your own is named by DATABASE_CA_FILE";
        tokio_postgres::Config::from_str(&value).map_err(|_| Invalid::new(name, known))?;
        Ok(Some(Secret::new(&value)))
    }

    pub(super) fn token(&self, name: &'static str) -> Result<Secret, Invalid> {
        match self.get(name).as_deref() {
            None => Err(Invalid::new(name, "is not set; make one with: openssl rand -hex 32")),
            Some("change-me") => {
                Err(Invalid::new(name, "still has its example value; make one with: openssl rand -hex 32"))
            }
            Some(token) => Ok(Secret::new(token)),
        }
    }

    pub(super) fn sealer(&self, name: &'static str) -> Result<Sealer, Invalid> {
        let hint = "64 hexadecimal digits; make them with: openssl rand -hex 32";
        let key = self.get(name).ok_or_else(|| Invalid::new(name, format!("is not set; it takes {hint}")))?;
        Sealer::from_hex(&key).map_err(|_| Invalid::new(name, format!("must be {hint}")))
    }
}
