//! Models without a price that callers asked for, until the control plane is told, which looks for one then.

use super::Live;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Names that wait at most: callers invent them.
const MOST: usize = 32;

/// Those that wait.
#[derive(Default)]
pub(super) struct Unpriced(Mutex<BTreeSet<String>>);

impl Live {
    /// A model without a price was asked for.
    pub fn lacks_price(&self, model: &str) {
        let mut waiting = self.0.unpriced.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST && !waiting.contains(model) {
            waiting.insert(model.to_owned());
        }
    }

    /// Takes the names that wait.
    pub fn unpriced(&self) -> Vec<String> {
        let mut waiting = self.0.unpriced.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_few_and_told_once() {
        let live = Live::default();
        ["b", "a", "b"].iter().for_each(|model| live.lacks_price(model));
        assert_eq!(live.unpriced(), ["a", "b"]);
        assert!(live.unpriced().is_empty());
        (0..999).for_each(|n| live.lacks_price(&n.to_string()));
        assert_eq!(live.unpriced().len(), MOST);
    }
}
