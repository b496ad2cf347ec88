//! Delivers usage records: spool → batches → `UsageIngest.Report`. A batch leaves the spool only when the
//! control plane has committed it; until then it is tried again, for ever. Sending twice is harmless.

use super::backoff::Backoff;
use super::link::{Link, brief};
use crate::config::Config;
use crate::spool::Spool;
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use contract::pb;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;

/// First and longest pause after a failed report.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// What the reporter works with.
pub struct Report {
    /// Settings.
    pub config: Arc<Config>,
    /// Where it runs.
    pub tasks: Tasks,
    /// The way to the control plane.
    pub link: Link,
    /// Where records wait.
    pub spool: Spool,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

impl Report {
    /// Starts the loop. When the tasks are told to stop it delivers what is left, for `FLUSH_TIMEOUT` at most;
    /// the rest stays in the spool.
    pub fn start(self) {
        let tasks = self.tasks.clone();
        tasks.spawn_vital("report", async move {
            let stop = self.tasks.stopping().clone();
            stop.run_until_cancelled(self.deliver()).await;
            if timeout(self.config.flush_timeout, self.flush()).await.is_err() {
                tracing::warn!("the last usage records stay in the spool until the next start");
            }
        });
    }

    /// Cancel-safe: a batch that was sent and not acknowledged here is sent again.
    async fn deliver(&self) {
        loop {
            self.one_batch(self.config.report_linger).await;
        }
    }

    async fn flush(&self) {
        while self.spool.depth().records > 0 {
            self.one_batch(Duration::ZERO).await;
        }
    }

    async fn one_batch(&self, linger: Duration) {
        let batch = self.spool.next_batch(self.config.report_batch, linger).await;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        while let Err(why) = self.send(&batch.records).await {
            self.metrics.report_failures.increment(1);
            let pause = backoff.pause();
            tracing::warn!(why, ?pause, records = batch.records.len(), "a report failed; it is sent again");
            tokio::time::sleep(pause).await;
        }
        self.spool.acknowledge(batch.position);
    }

    /// Sends records, in halves where they are too much for one message.
    async fn send(&self, records: &[Bytes]) -> Result<(), String> {
        let request = pb::ReportRequest { proxy_id: self.config.proxy_id.clone(), records: records.to_vec() };
        let mut client = self.link.ingest();
        let answer = timeout(self.link.timeout(), client.report(request)).await;
        match answer.map_err(|_| "no answer in time".to_owned())? {
            Ok(reply) => {
                self.done(records.len(), &reply.into_inner());
                Ok(())
            }
            Err(status) if status.code() == Code::OutOfRange && records.len() > 1 => {
                let (first, second) = records.split_at(records.len() / 2);
                Box::pin(self.send(first)).await?;
                Box::pin(self.send(second)).await
            }
            Err(status) if status.code() == Code::OutOfRange => {
                // Larger than any message may be: no other try can do better, and the rest must not wait.
                let record = records.first().and_then(|record| pb::UsageRecord::decode(record.clone()).ok());
                let id = record.map(|record| record.id).unwrap_or_default();
                let refused = vec![pb::RefusedRecord { id, reason: brief(&status) }];
                self.done(records.len(), &pb::ReportReply { refused, ..pb::ReportReply::default() });
                Ok(())
            }
            Err(status) => Err(brief(&status)),
        }
    }

    fn done(&self, sent: usize, reply: &pb::ReportReply) {
        let refused = reply.refused.len();
        self.metrics.records_reported.increment(sent.saturating_sub(refused) as u64);
        for record in &reply.refused {
            self.metrics.record_lost();
            tracing::error!(
                record = %hex::encode(&record.id),
                reason = record.reason,
                "the control plane refuses a usage record; it is dropped"
            );
        }
    }
}
