//! What was spent, asked over gRPC.

use super::link::Link;
use crate::store::{Complete, Ledger, LedgerError, Spent, SpentQuery};
use contract::pb;
use contract::table::Scope;
use std::future::Future;
use std::pin::Pin;
use tokio::time::timeout;

/// See the module.
pub struct Remote(pub Link);

impl Ledger for Remote {
    fn spent<'a>(
        &'a self,
        queries: &'a [SpentQuery],
    ) -> Pin<Box<dyn Future<Output = Result<Spent, LedgerError>> + Send + 'a>> {
        Box::pin(async move {
            let request = pb::SpentRequest { queries: queries.iter().map(wire).collect() };
            let mut client = self.0.ingest();
            let reply = timeout(self.0.timeout(), client.spent(request))
                .await
                .map_err(|_| LedgerError("no answer in time".to_owned()))?
                .map_err(|status| LedgerError(super::link::brief(&status)))?
                .into_inner();
            if reply.answers.len() != queries.len() {
                return Err(LedgerError("not one answer per question".to_owned()));
            }
            let sums = |answer: pb::SpentAnswer| {
                answer.buckets.into_iter().map(|bucket| (bucket.start_ms, bucket.nano_usd)).collect()
            };
            // An older control plane answers what is not settled, too: that is nothing to compare counters with.
            let is_asked = queries.iter().all(|query| !query.settled) || reply.settled;
            let complete = if is_asked {
                Complete { connected_ms: known(reply.complete_ms), all_ms: known(reply.all_complete_ms) }
            } else {
                Complete::default()
            };
            Ok(Spent { sums: reply.answers.into_iter().map(sums).collect(), complete })
        })
    }
}

/// An instant; 0: not known.
fn known(at_ms: i64) -> Option<i64> {
    (at_ms > 0).then_some(at_ms)
}

fn wire(query: &SpentQuery) -> pb::SpentQuery {
    let (scope, id) = match query.scope {
        Scope::Key(id) => (pb::Scope::Key, id.0),
        Scope::User(id) => (pb::Scope::User, id.0),
        Scope::Provider(id) => (pb::Scope::Provider, id.0),
    };
    let SpentQuery { since_ms, bucket_ms, by_end, settled, .. } = *query;
    pb::SpentQuery { scope: scope.into(), id, since_ms, bucket_ms, by_end, settled }
}
