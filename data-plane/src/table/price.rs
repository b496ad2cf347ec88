//! Prices by model name, and the forgiving step from the many spellings of a model to its price row.

use contract::money::Price;
use std::collections::HashMap;

/// Prefixes that name where a model runs, not which it is.
const REGIONS: [&str; 8] = ["us.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "global."];
/// Suffix of names that follow a model's newest version.
const LATEST: &str = "-latest";

/// See the module.
#[derive(Default)]
pub struct Prices {
    by_model: HashMap<Box<str>, Price>,
    /// Name without its date → the row with the newest date.
    newest: HashMap<Box<str>, Box<str>>,
}

impl Prices {
    /// Indexes rows; of two rows for one model the later one counts.
    pub fn new<'a>(rows: impl Iterator<Item = (&'a str, &'a Price)>) -> Self {
        let by_model: HashMap<Box<str>, Price> =
            rows.map(|(model, price)| (model.into(), price.clone())).collect();
        let mut newest: HashMap<Box<str>, Box<str>> = HashMap::new();
        for model in by_model.keys() {
            let base = undated(model);
            if base.len() == model.len() {
                continue;
            }
            let held = newest.entry(base.into()).or_insert_with(|| model.clone());
            // Dates are written year first, and both names begin alike: the greater name is the newer.
            if *held < *model {
                held.clone_from(model);
            }
        }
        Self { by_model, newest }
    }

    /// Models with a row.
    pub fn len(&self) -> usize {
        self.by_model.len()
    }

    /// Names of models that are really priced.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.by_model.iter().filter(|(_, price)| price.is_priced()).map(|(model, _)| &**model)
    }

    /// Exact name; without `vendor/`; without region; without date or `-latest`; and last the newest dated
    /// row of that name. With the name that the row has.
    pub fn find(&self, model: &str) -> Option<(&str, &Price)> {
        let bare = model.rsplit_once('/').map_or(model, |(_, name)| name);
        let here = REGIONS.iter().find_map(|region| bare.strip_prefix(region)).unwrap_or(bare);
        let base = undated(here);
        [model, bare, here, base]
            .into_iter()
            .find_map(|name| self.by_model.get_key_value(name))
            .or_else(|| self.by_model.get_key_value(self.newest.get(base)?))
            .map(|(name, price)| (&**name, price))
    }
}

/// The name without a trailing `-YYYYMMDD`, `-YYYY-MM-DD` or `-latest`.
fn undated(model: &str) -> &str {
    if let Some(base) = model.strip_suffix(LATEST) {
        return base;
    }
    ["-dddddddd", "-dddd-dd-dd"].iter().find_map(|form| strip_form(model, form)).unwrap_or(model)
}

/// Strips a suffix of a form in which `d` stands for a digit.
fn strip_form<'a>(text: &'a str, form: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(form.len()).filter(|at| *at > 0)?;
    let (head, tail) = text.split_at_checked(at)?;
    let fits = |(byte, sign): (u8, u8)| if sign == b'd' { byte.is_ascii_digit() } else { byte == sign };
    tail.bytes().zip(form.bytes()).all(fits).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_spellings_one_price() {
        let names = ["gpt-4o", "gpt-4o-2024-05-13", "claude-x-20240101", "claude-x-20250202", "v/own", "o1"];
        let price = |at: usize| Price { per_request: Some(at.into()), ..Price::default() };
        let rows: Vec<Price> = (0..names.len()).map(price).collect();
        let prices = Prices::new(names.iter().copied().zip(&rows));
        let cases = [
            ("gpt-4o", Some("gpt-4o")),
            ("gpt-4o-2024-05-13", Some("gpt-4o-2024-05-13")),
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("openai/gpt-4o", Some("gpt-4o")),
            ("openrouter/openai/gpt-4o-latest", Some("gpt-4o")),
            ("us.claude-x-20240101", Some("claude-x-20240101")),
            ("claude-x-latest", Some("claude-x-20250202")),
            ("claude-x", Some("claude-x-20250202")),
            ("claude-x-20990101", Some("claude-x-20250202")),
            ("v/own", Some("v/own")),
            ("own", None),
            ("o1-mini", None),
            ("-20250101", None),
            ("é-2025010", None),
            ("", None),
        ];
        for (model, want) in cases {
            let got = prices.find(model).map(|(name, price)| (name, price.per_request));
            let row = |name| names.iter().position(|n| *n == name).map(Into::into);
            assert_eq!(got, want.map(|name| (name, row(name))), "{model}");
        }
    }
}
