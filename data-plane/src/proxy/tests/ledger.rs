//! The control plane, as far as a proxy asks it for sums: records that were reported, counted once each.

use crate::store::{self, LedgerError, Spent, SpentQuery};
use contract::ids::{ProviderId, RequestId};
use contract::money::NanoUsd;
use contract::table::Scope;
use contract::usage::UsageRecord;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

/// All records by id, as Postgres has them.
#[derive(Default)]
pub struct Ledger(Mutex<BTreeMap<RequestId, UsageRecord>>);

impl Ledger {
    /// Takes records in; one that is known already changes nothing.
    pub fn ingest(&self, records: &[UsageRecord]) {
        let mut known = self.0.lock().unwrap();
        for record in records {
            known.entry(record.id).or_insert_with(|| record.clone());
        }
    }

    /// The sum of a scope's costs, and of what is held in place of some, since a moment, in nano-USD.
    pub fn sum(&self, scope: Scope, since_ms: i64) -> i64 {
        self.costs(scope, since_ms).into_iter().map(|(_, cost)| cost).sum()
    }

    fn costs(&self, scope: Scope, since_ms: i64) -> Vec<(i64, i64)> {
        let known = self.0.lock().unwrap();
        let wanted = known.values().filter(|record| {
            let own = match scope {
                Scope::Key(id) => record.key_id == id,
                Scope::User(id) => record.user_id == id,
                Scope::Provider(ProviderId(id)) => record.provider_id == Some(ProviderId(id)),
            };
            own && record.started_at_ms >= since_ms
        });
        let charge = |record: &UsageRecord| record.cost.or(record.held_cost);
        let cost = |record: &UsageRecord| charge(record).map_or(0, |usd| NanoUsd::from_usd(usd).0);
        wanted.map(|record| (record.started_at_ms, cost(record))).filter(|(_, cost)| *cost > 0).collect()
    }
}

impl store::Ledger for Ledger {
    fn spent<'a>(
        &'a self,
        queries: &'a [SpentQuery],
    ) -> Pin<Box<dyn Future<Output = Result<Spent, LedgerError>> + Send + 'a>> {
        let answer = |query: &SpentQuery| {
            let mut buckets: BTreeMap<i64, i64> = BTreeMap::new();
            for (at, cost) in self.costs(query.scope, query.since_ms) {
                let start = match query.bucket_ms {
                    0 => query.since_ms,
                    length => at.div_euclid(length) * length,
                };
                *buckets.entry(start).or_default() += cost;
            }
            buckets.into_iter().collect()
        };
        Box::pin(async move {
            let sums = queries.iter().map(answer).collect();
            Ok(Spent { sums, complete: store::Complete::default() })
        })
    }
}
