//! Models without a price that proxies were asked for: kept until the price table is fetched because of them.

use contract::pb;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Names that wait at most, and characters of each: callers invent them.
const MOST: usize = 32;
const MAX_NAME: usize = 256;

/// Where they wait. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UnpricedInbox {
    waiting: Arc<Mutex<BTreeSet<String>>>,
    came: Arc<Notify>,
}

impl UnpricedInbox {
    /// Takes what a proxy says.
    pub fn put(&self, said: pb::WithoutPrice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for model in said.models {
            if waiting.len() < MOST {
                waiting.insert(model.chars().take(MAX_NAME).collect());
            }
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Waits until some are there and takes them. Cancel-safe.
    pub async fn take(&self) -> Vec<String> {
        loop {
            self.came.notified().await;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let models: Vec<String> = std::mem::take(&mut *waiting).into_iter().collect();
            drop(waiting);
            if !models.is_empty() {
                return models;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_few_short_and_told_once() {
        let inbox = UnpricedInbox::default();
        let said =
            |models: &[&str]| pb::WithoutPrice { models: models.iter().map(|m| (*m).to_owned()).collect() };
        inbox.put(said(&["b", "a", "b"]));
        inbox.put(said(&["a"]));
        assert_eq!(inbox.take().await, ["a", "b"]);
        inbox.put(said(&[&"x".repeat(9_999)]));
        assert_eq!(inbox.take().await[0].len(), MAX_NAME);
        let many: Vec<String> = (0..999).map(|n| n.to_string()).collect();
        inbox.put(pb::WithoutPrice { models: many });
        assert_eq!(inbox.take().await.len(), MOST);
    }
}
