//! Prices by model name, the forgiving step from the many spellings of a model to its price row, and the ceilings
//! that models without a row are held to. Everything is indexed when the table is built; a look-up allocates nothing.

mod ceilings;

use crate::map::Map;
use ceilings::Ceilings;
use contract::money::Price;
use contract::table::ProviderKind;
use std::collections::HashMap;

/// Prefixes that name where a model runs, not which it is.
const REGIONS: [&str; 8] = ["us.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "global."];
/// Suffix of names that follow a model's newest version.
const LATEST: &str = "-latest";
/// Longest name that is looked up in another spelling than its own.
const MAX_NAME: usize = 256;

/// See the module.
#[derive(Default)]
pub struct Prices {
    /// Only rows with a price in them: an empty one must not hide that of another spelling.
    by_model: Map<Box<str>, Price>,
    /// Names of rows that are not written in lower case, by their lower case.
    folded: Map<Box<str>, Box<str>>,
    /// Name in lower case without its date → the row with the newest date.
    newest: Map<Box<str>, Box<str>>,
    ceilings: Ceilings,
    rows: usize,
}

impl Prices {
    /// Indexes rows; of two rows for one model the later one counts.
    pub fn new<'a>(rows: impl Iterator<Item = (&'a str, &'a Price)>) -> Self {
        let all: HashMap<&str, &Price> = rows.collect();
        let rows = all.len();
        let priced = all.into_iter().filter(|(_, price)| price.is_priced() || price.other_unit);
        let by_model: Map<Box<str>, Price> =
            priced.map(|(model, price)| (model.into(), price.clone())).collect();
        let mut folded: Map<Box<str>, Box<str>> = Map::default();
        let mut newest: Map<Box<str>, Box<str>> = Map::default();
        // Which of several rows counts must not depend on the order of a map.
        let mut models: Vec<&Box<str>> = by_model.keys().collect();
        models.sort_unstable();
        for model in models {
            let lower: Box<str> = model.to_ascii_lowercase().into();
            let base = undated(&lower);
            if base.len() < lower.len() {
                // Dates are written year first, and both names begin alike: the greater name is the newer.
                newest.insert(base.into(), model.clone());
            }
            if lower != *model {
                folded.entry(lower).or_insert_with(|| model.clone());
            }
        }
        let ceilings = Ceilings::new(by_model.iter().map(|(model, price)| (&**model, price)));
        Self { by_model, folded, newest, ceilings, rows }
    }

    /// Models with a row.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Names of models that are really priced.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.by_model.iter().filter(|(_, price)| price.is_priced()).map(|(model, _)| &**model)
    }

    /// The name as written; then without regard to case: the name, without `vendor/`, without region, without date or
    /// `-latest`, and the newest dated row of that name; last all of these without what follows the last colon. With
    /// the name that the row has.
    pub fn find(&self, model: &str) -> Option<(&str, &Price)> {
        self.row(model).or_else(|| self.respelt(model))
    }

    /// What a model without a price costs at most: the dearest of those that share the longest beginning of its name
    /// up to a dash.
    pub fn ceiling(&self, model: &str) -> Option<&Price> {
        folded(model, |lower| self.ceilings.of_family(bare(lower)))
    }

    /// The dearest price among the models of a kind of provider; where there are none, of all.
    pub fn ceiling_of_kind(&self, kind: ProviderKind) -> Option<&Price> {
        self.ceilings.of_kind(kind)
    }

    fn row(&self, model: &str) -> Option<(&str, &Price)> {
        self.by_model.get_key_value(model).map(|(name, price)| (&**name, price))
    }

    #[cold]
    fn respelt(&self, model: &str) -> Option<(&str, &Price)> {
        folded(model, |lower| {
            let variant = || lower.rsplit_once(':').and_then(|(name, _)| self.spelt(name));
            self.spelt(lower).or_else(variant)
        })
    }

    /// A name in lower case, from the whole of it to the newest of its kind.
    fn spelt(&self, model: &str) -> Option<(&str, &Price)> {
        let name = unowned(model);
        let here = unplaced(name);
        let base = undated(here);
        let row = |name: &str| self.row(name).or_else(|| self.row(self.folded.get(name)?));
        [model, name, here, base].into_iter().find_map(row).or_else(|| self.row(self.newest.get(base)?))
    }
}

/// Calls `with` with the name in lower case, without allocating. Longer names are nobody's.
fn folded<T>(model: &str, with: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut room = [0; MAX_NAME];
    let room = room.get_mut(..model.len())?;
    room.copy_from_slice(model.as_bytes());
    room.make_ascii_lowercase();
    with(std::str::from_utf8(room).ok()?)
}

/// The family name of a model: without vendor, region and what follows the last colon.
fn bare(model: &str) -> &str {
    let name = unplaced(unowned(model));
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

fn unowned(model: &str) -> &str {
    model.rsplit_once('/').map_or(model, |(_, name)| name)
}

fn unplaced(model: &str) -> &str {
    REGIONS.iter().find_map(|region| model.strip_prefix(region)).unwrap_or(model)
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

/// Whether a provider of this kind can be expected to know a model, by the vendor's naming.
pub fn of_kind(kind: ProviderKind, model: &str) -> bool {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
    match kind {
        ProviderKind::Claude | ProviderKind::ClaudeAuth => starts(&["claude"]),
        ProviderKind::Codex => starts(&["gpt", "o1", "o3", "o4", "codex", "chatgpt"]),
        ProviderKind::Gemini | ProviderKind::GeminiCli => starts(&["gemini", "gemma", "imagen", "veo"]),
        ProviderKind::OpenAiCompatible => !starts(&["claude", "gemini"]),
    }
}

#[cfg(test)]
mod tests;
