//! The dearest price of every family of models, worked out once per table. Names come bare and in lower case.

use super::{bare, of_kind};
use contract::money::Price;
use contract::table::ProviderKind;
use std::collections::{BTreeMap, HashMap};

/// See the module.
#[derive(Default)]
pub(super) struct Ceilings {
    /// By beginnings of names, each up to and with a dash.
    families: HashMap<Box<str>, Price>,
    /// By the position of the kind in [`ProviderKind::ALL`].
    kinds: Vec<Option<Price>>,
    all: Option<Price>,
}

impl Ceilings {
    pub(super) fn new<'a>(rows: impl Iterator<Item = (&'a str, &'a Price)>) -> Self {
        let rows: Vec<(String, &Price)> = rows
            .filter(|(_, price)| price.is_priced())
            .map(|(model, price)| (format!("{}-", bare(&model.to_ascii_lowercase())), price))
            .collect();
        let families = families(&rows);
        // A vendor's naming shows before the first dash.
        let roots = families.iter().filter(|(family, _)| beginnings(family).nth(1).is_none());
        let roots: Vec<(&str, &Price)> = roots.map(|(family, price)| (&**family, price)).collect();
        let dearest = |kind: Option<ProviderKind>| {
            let is_of_kind = |name: &str| kind.is_none_or(|kind| of_kind(kind, name));
            let prices = roots.iter().filter(|(name, _)| is_of_kind(name)).map(|(_, price)| *price);
            let prices: Vec<&Price> = prices.collect();
            (!prices.is_empty()).then(|| Price::dearest(&prices))
        };
        let kinds = ProviderKind::ALL.map(|kind| dearest(Some(kind))).into();
        let all = dearest(None);
        Self { families, kinds, all }
    }

    /// Of the longest beginning of the name, up to a dash, that any model shares.
    pub(super) fn of_family(&self, bare: &str) -> Option<&Price> {
        beginnings(bare).find_map(|family| self.families.get(family))
    }

    pub(super) fn of_kind(&self, kind: ProviderKind) -> Option<&Price> {
        let at = ProviderKind::ALL.iter().position(|case| *case == kind)?;
        self.kinds.get(at)?.as_ref().or(self.all.as_ref())
    }
}

/// The beginnings of a name that end with a dash, the longest first.
fn beginnings(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('-').map(|(at, dash)| &name[..at + dash.len()])
}

/// Each family is the dearest of the models that stand in no smaller one and of the smaller ones' ceilings, so that
/// every row is looked at once.
fn families(rows: &[(String, &Price)]) -> HashMap<Box<str>, Price> {
    let mut members: BTreeMap<(usize, &str), Vec<&Price>> = BTreeMap::new();
    for (name, price) in rows {
        for (depth, family) in beginnings(name).enumerate() {
            let held = members.entry((family.len(), family)).or_default();
            if depth == 0 {
                held.push(price);
            }
        }
    }
    let mut done: HashMap<Box<str>, Price> = HashMap::new();
    let mut children: HashMap<&str, Vec<&str>> = HashMap::new();
    // The longest first: a family comes after all that it holds.
    for ((_, family), own) in members.iter().rev() {
        let inner = children.remove(family).unwrap_or_default();
        let inner = inner.into_iter().filter_map(|child| done.get(child));
        let prices: Vec<&Price> = own.iter().copied().chain(inner).collect();
        let ceiling = Price::dearest(&prices);
        if let Some(outer) = beginnings(family).nth(1) {
            children.entry(outer).or_default().push(family);
        }
        done.insert((*family).into(), ceiling);
    }
    done
}
