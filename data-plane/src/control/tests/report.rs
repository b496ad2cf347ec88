//! Usage records on their way to the control plane, and what it is asked about money.

use super::fake::{Dir, Fake, PATIENCE, config, eventually, soon};
use crate::config::Config;
use crate::control::{Link, Report};
use crate::spool::Spool;
use crate::spool::tests::{options, record};
use crate::store::SpentQuery;
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use contract::ids::{KeyId, ProviderId, UserId};
use contract::pb;
use contract::table::Scope;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::Status;

struct Sender {
    spool: Spool,
    tasks: Tasks,
}

/// A reporter over a spool that holds records `0..records`.
fn sender(fake: &Fake, dir: &Dir, records: i64) -> Sender {
    let options = options(dir.path().join("spool"), 1 << 16, 1 << 20);
    let spool = Spool::open(&options).expect("spool");
    (0..records).for_each(|number| spool.append(&record(number), None).expect("append"));
    let config = Config::clone(&config(fake.address, dir));
    let config = Config { report_batch: 3, report_linger: Duration::ZERO, flush_timeout: PATIENCE, ..config };
    let tasks = Tasks::new(Handle::current());
    let report = Report {
        link: Link::new(&config, tasks.handle()).expect("link"),
        config: Arc::new(config),
        tasks: tasks.clone(),
        spool: spool.clone(),
        metrics: Metrics::install().0,
    };
    report.start();
    Sender { spool, tasks }
}

fn numbers(request: &pb::ReportRequest) -> Vec<i64> {
    crate::spool::tests::numbers(&request.records)
}

#[tokio::test]
async fn a_batch_leaves_the_spool_when_it_is_committed_and_not_before() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let sender = sender(&fake, &dir, 4);
    for why in [Status::unavailable("Postgres is away"), Status::internal("anything")] {
        let (request, answer) = fake.report().await;
        assert_eq!((request.proxy_id.as_str(), numbers(&request)), ("proxy-1", vec![0, 1, 2]));
        assert_eq!(sender.spool.depth().records, 4);
        answer.send(Err(why)).expect("answer");
    }
    let (request, answer) = fake.report().await;
    assert_eq!(numbers(&request), [0, 1, 2]);
    // One can never be stored: it is dropped with the others.
    let refused = vec![pb::RefusedRecord { id: vec![1; 16].into(), reason: "no such user".into() }];
    answer.send(Ok(pb::ReportReply { inserted: 2, refused })).expect("answer");
    let (request, answer) = fake.report().await;
    assert_eq!((numbers(&request), sender.spool.depth().records), (vec![3], 1));
    answer.send(Ok(pb::ReportReply { inserted: 1, ..pb::ReportReply::default() })).expect("answer");
    eventually("an empty spool", || sender.spool.depth().records == 0).await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_goes_in_parts() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let sender = sender(&fake, &dir, 3);
    let mut stored = Vec::new();
    while sender.spool.depth().records > 0 {
        let Ok((request, answer)) = tokio::time::timeout(Duration::from_millis(20), fake.report()).await
        else {
            continue;
        };
        let reply = match request.records.len() {
            1 if numbers(&request) != [1] => {
                stored.extend(numbers(&request));
                Ok(pb::ReportReply { inserted: 1, ..pb::ReportReply::default() })
            }
            _ => Err(Status::out_of_range("decoded message length too large")),
        };
        answer.send(reply).expect("answer");
    }
    assert_eq!(stored, [0, 2], "the one that fits into no message does not hold up the others");
}

#[tokio::test]
async fn what_is_left_is_delivered_at_the_end() {
    let (mut fake, dir) = (Fake::start().await, Dir::new());
    let sender = sender(&fake, &dir, 2);
    let (_, unanswered) = fake.report().await;
    sender.spool.append(&record(2), None).expect("append");
    sender.tasks.stopping().cancel();
    drop(unanswered);
    let (request, answer) = fake.report().await;
    assert_eq!(numbers(&request), [0, 1, 2]);
    answer.send(Ok(pb::ReportReply::default())).expect("answer");
    assert!(soon("the end", sender.tasks.finish(PATIENCE)).await);
    assert_eq!(sender.spool.depth().records, 0);
}

#[tokio::test]
async fn the_ledger_answers_question_by_question() {
    let (fake, dir) = (Fake::start().await, Dir::new());
    let link = Link::new(&config(fake.address, &dir), &Handle::current()).expect("link");
    let ask = |scope, since_ms| SpentQuery { scope, since_ms, bucket_ms: 0, by_end: false, settled: false };
    let queries = [ask(Scope::User(UserId(3)), 7), ask(Scope::Provider(ProviderId(4)), 8)];
    let spent = link.ledger().spent(&queries).await.expect("answer");
    assert_eq!(spent.sums, [[(7, 300)], [(8, 400)]]);
    assert_eq!((spent.complete.connected_ms, spent.complete.all_ms), (Some(5), None), "0: not known");
    // Sums are only settled where the control plane says so.
    for (id, complete_ms) in [(3, None), (9, Some(5))] {
        let settled = SpentQuery { settled: true, ..ask(Scope::User(UserId(id)), 7) };
        let spent = link.ledger().spent(&[settled]).await.expect("answer");
        assert_eq!(spent.complete.connected_ms, complete_ms, "{id}");
    }
    // The fake leaves out the question about id 0.
    let error = link.ledger().spent(&[ask(Scope::Key(KeyId(0)), 0)]).await.expect_err("one too few");
    assert!(error.to_string().contains("one answer per question"), "{error}");
}
