//! Wire to domain and back. The step to the domain checks everything; its error names the field.

mod encode;
mod options;
mod owner;
mod price;
mod record;
mod rows;

use std::fmt;

/// A wire value that has no meaning in the domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Invalid {
    /// `keys[17].limits[2].window`.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl Invalid {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// The same error seen from the message that holds the field.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.path = format!("{outer}.{}", self.path);
        self
    }
}

fn decimal(text: &str, path: &str) -> Result<rust_decimal::Decimal, Invalid> {
    text.parse().map_err(|_| Invalid::new(path, "not a decimal number"))
}
