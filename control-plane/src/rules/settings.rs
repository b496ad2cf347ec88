//! What an owner may set for all users at once: the keys of the settings table, their values, and their meaning.
//! Where nothing is set, [`OwnerConfig::new`] and `UNPRICED` hold.

use contract::table::{OwnerConfig, Unpriced, WordScope};
use serde_json::{Value, json};

/// Words of `billingModelSource`: asked or redirected model.
pub const BILLING: &[&str] = &["original", "redirected"];
/// Words of `unpriced`.
pub const UNPRICED: &[&str] = &["refuse", "ceiling", "serve"];
/// Words of `wordScope`.
pub const WORD_SCOPE: &[&str] = &["people", "all"];

/// One setting with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Whether callers may reach what the upstream accounts keep.
    UpstreamResources(bool),
    /// Whether the redirected model's price counts.
    BillRedirected(bool),
    /// What happens to a request without a price.
    Unpriced(Unpriced),
    /// Where sensitive words are looked for.
    WordScope(WordScope),
}

impl Setting {
    /// The value of a row. The error continues the sentence that the key begins.
    pub fn read(key: &str, value: &Value) -> Result<Self, &'static str> {
        let word = value.as_str().unwrap_or_default();
        match key {
            "upstreamResources" => {
                value.as_bool().map(Self::UpstreamResources).ok_or("must be true or false; false holds")
            }
            "billingModelSource" => match word {
                "original" => Ok(Self::BillRedirected(false)),
                "redirected" => Ok(Self::BillRedirected(true)),
                _ => Err("must be original or redirected; original holds"),
            },
            "unpriced" => Unpriced::parse(word)
                .map(Self::Unpriced)
                .ok_or("must be refuse, ceiling or serve; UNPRICED holds"),
            "wordScope" => {
                WordScope::parse(word).map(Self::WordScope).ok_or("must be people or all; people holds")
            }
            _ => Err("is not a setting"),
        }
    }

    /// The key of its row.
    pub const fn key(self) -> &'static str {
        match self {
            Self::UpstreamResources(_) => "upstreamResources",
            Self::BillRedirected(_) => "billingModelSource",
            Self::Unpriced(_) => "unpriced",
            Self::WordScope(_) => "wordScope",
        }
    }

    /// The value of its row.
    pub fn value(self) -> Value {
        match self {
            Self::UpstreamResources(on) => json!(on),
            Self::BillRedirected(redirected) => json!(BILLING[usize::from(redirected)]),
            Self::Unpriced(way) => json!(way.as_str()),
            Self::WordScope(scope) => json!(scope.as_str()),
        }
    }

    /// Puts it in the place of what held before.
    pub fn lay_over(self, config: &mut OwnerConfig) {
        match self {
            Self::UpstreamResources(on) => config.upstream_resources = on,
            Self::BillRedirected(redirected) => config.bill_redirected = redirected,
            Self::Unpriced(way) => config.unpriced = way,
            Self::WordScope(scope) => config.word_scope = scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_as_it_was_written() {
        let words = |known: &[&str], all: Vec<&str>| assert_eq!(known, all);
        words(UNPRICED, Unpriced::ALL.map(Unpriced::as_str).to_vec());
        words(WORD_SCOPE, WordScope::ALL.map(WordScope::as_str).to_vec());
        let settings = [
            Setting::UpstreamResources(true),
            Setting::UpstreamResources(false),
            Setting::BillRedirected(true),
            Setting::BillRedirected(false),
        ];
        let unpriced = Unpriced::ALL.map(Setting::Unpriced);
        let scopes = WordScope::ALL.map(Setting::WordScope);
        for setting in settings.into_iter().chain(unpriced).chain(scopes) {
            assert_eq!(Setting::read(setting.key(), &setting.value()), Ok(setting));
        }
        for (key, value) in [
            ("upstreamResources", json!("true")),
            ("billingModelSource", json!(null)),
            ("unpriced", json!("Refuse")),
            ("wordScope", json!(1)),
            ("other", json!(true)),
        ] {
            assert!(Setting::read(key, &value).is_err(), "{key} {value}");
        }
    }
}
