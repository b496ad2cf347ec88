use super::*;
use crate::table::{Builder, Change, RawSection, Secret, fixtures};
use contract::ids::UserId;
use contract::table::{Breaker, CircuitState, Provider, Rows};
use std::time::Duration;

const ANN: UserId = UserId(1);

fn provider(id: i64, threshold: u32) -> Provider {
    let breaker =
        Breaker { failure_threshold: threshold, open: Duration::from_secs(10), half_open_successes: 1 };
    Provider { breaker, ..fixtures::provider(id) }
}

fn upstream(id: i64, threshold: u32) -> Upstream {
    Upstream::new(provider(id, threshold), Secret::new("s")).expect("provider")
}

fn snapshot(providers: &[(i64, u32)]) -> Arc<Snapshot> {
    let rows = providers.iter().map(|(id, threshold)| provider(*id, *threshold)).collect();
    let section = RawSection::of("providers", &Rows { providers: rows, ..Rows::default() });
    Builder::new(fixtures::sealer()).apply(Change::whole(1, vec![section])).expect("table").snapshot
}

fn row(id: i64, state: CircuitState, epoch: i64) -> Health {
    let reason = "manual".to_owned();
    Health { provider_id: ProviderId(id), state, until_ms: Some(1), reason, failures: 0, epoch }
}

#[test]
fn the_well_cost_nothing_and_the_sick_are_shared() {
    let book = Book::new();
    let (well, sick) = (upstream(1, 2), upstream(2, 2));
    book.record(&well, book.pass(well.row.id), (&Verdict::Success, ANN), 0);
    book.record(&well, book.pass(well.row.id), (&Verdict::Neutral, ANN), 0);
    assert!(book.rows().is_empty());
    let other = book.clone();
    book.record(&sick, book.pass(sick.row.id), (&Verdict::Failure, ANN), 0);
    assert_eq!(other.gate(&sick, 0).0, Gate::Open);
    book.record(&upstream(3, 2), Pass::default(), (&Verdict::Failure, ANN), 7);
    let failing: Vec<_> =
        book.transitions().failing().iter().map(|(row, at)| (row.provider_id.0, row.failures, *at)).collect();
    assert_eq!(failing, [(2, 1, 0), (3, 1, 7)]);
    other.record(&sick, other.pass(sick.row.id), (&Verdict::Failure, ANN), 0);
    assert_eq!(book.gate(&sick, 0).0, Gate::Asleep { until_ms: Some(10_000) });
    assert_eq!(book.peek(sick.row.id, 10_000), Gate::Trial);
    let (gate, pass) = book.gate(&sick, 10_000);
    assert_eq!(gate, Gate::Trial);
    assert_eq!(other.gate(&sick, 10_000).0, Gate::Asleep { until_ms: Some(910_000) });
    other.record(&sick, pass, (&Verdict::Neutral, ANN), 10_000);
    let (gate, pass) = other.gate(&sick, 10_000);
    assert_eq!(gate, Gate::Trial);
    book.record(&sick, pass, (&Verdict::Success, ANN), 10_000);
    assert_eq!((book.gate(&sick, 10_000).0, book.gate(&well, 0).0), (Gate::Open, Gate::Open));
}

#[tokio::test]
async fn only_the_newest_transition_of_a_provider_waits() {
    let book = Book::new();
    let transitions = book.transitions();
    let (one, two) = (upstream(1, 1), upstream(2, 1));
    book.record(&one, book.pass(one.row.id), (&Verdict::Failure, ANN), 0);
    book.record(&two, book.pass(two.row.id), (&Verdict::Failure, ANN), 0);
    let (_, pass) = book.gate(&one, 10_000);
    book.record(&one, pass, (&Verdict::Success, ANN), 10_000);
    let rows = transitions.next().await;
    let seen: Vec<_> = rows.iter().map(|row| (row.provider_id.0, row.state, row.epoch)).collect();
    assert_eq!(seen, [(1, CircuitState::Closed, 3), (2, CircuitState::Open, 1)]);
    book.adopt(&[row(1, CircuitState::Closed, 3)], 0);
    transitions.repeat();
    let rows = transitions.next().await;
    assert_eq!(rows.len(), 1, "only what the control plane was never seen to know: {rows:?}");
    assert_eq!(rows[0].provider_id, ProviderId(2));
}

#[tokio::test]
async fn a_reset_wakes_at_once_and_is_not_contradicted() {
    let book = Book::new();
    let up = upstream(1, 1);
    book.record(&up, book.pass(up.row.id), (&Verdict::Failure, ANN), 0);
    book.adopt(&[row(1, CircuitState::Closed, 2), row(7, CircuitState::Disabled, 1)], 0);
    assert_eq!(
        (book.gate(&up, 0).0, book.peek(ProviderId(7), 0)),
        (Gate::Open, Gate::Asleep { until_ms: None })
    );
    let transitions = book.transitions();
    transitions.repeat();
    let next = tokio::time::timeout(Duration::from_millis(10), transitions.next()).await;
    assert!(next.is_err(), "nothing to say: {next:?}");
}

#[test]
fn follows_the_table() {
    let book = Book::new();
    for id in [1, 2, 3] {
        book.record(&upstream(id, 1), Pass::default(), (&Verdict::Failure, ANN), 0);
    }
    book.follow(&snapshot(&[(1, 1), (2, 0)]));
    assert_eq!(book.peek(ProviderId(1), 0), Gate::Asleep { until_ms: Some(10_000) });
    assert_eq!(book.peek(ProviderId(2), 0), Gate::Open, "a threshold of 0 closes what is open");
    assert_eq!(book.rows().len(), 2, "3 is gone");
}

#[test]
fn threads_share_one_trial() {
    let book = Book::new();
    let up = upstream(1, 1);
    book.record(&up, book.pass(up.row.id), (&Verdict::Failure, ANN), 0);
    let got: usize = std::thread::scope(|scope| {
        let ask = || (0..100).filter(|_| book.gate(&up, 10_000).0 == Gate::Trial).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).sum()
    });
    assert_eq!(got, 1);
}

#[tokio::test]
async fn failures_of_one_account_count_in_full_only_while_nobody_else_is_there() {
    for others in [false, true] {
        let book = Book::new();
        let (up, id) = (upstream(1, 1), ProviderId(1));
        if others {
            book.sends(UserId(2), 0);
        }
        book.sends(ANN, 1);
        book.record(&up, book.pass(id), (&Verdict::Failure, ANN), 1);
        assert_eq!(book.gate(&up, 2).0 == Gate::Open, others);
        if others {
            assert_eq!(book.suspected().await.into_iter().collect::<Vec<_>>(), [id]);
            book.probed(&up, Finding { probe: Probe::Failed, pass: book.pass(id), is_last: false }, 2);
            assert_ne!(book.gate(&up, 3).0, Gate::Open);
        }
    }
}

#[tokio::test]
async fn refused_callers_ask_for_a_look_and_the_look_decides() {
    let book = Book::new();
    let (up, id) = (upstream(1, 5), ProviderId(1));
    for _ in 0..3 {
        book.record(&up, book.pass(id), (&Verdict::CredentialRefused, ANN), 0);
    }
    assert_eq!(book.suspected().await.into_iter().collect::<Vec<_>>(), [id]);
    assert!(book.refused().is_empty() && book.gate(&up, 0).0 == Gate::Open);
    book.rest(id, (EndpointKind::Messages, "m"), 0, 60);
    book.probed(&up, Finding { probe: Probe::Refused, pass: book.pass(id), is_last: false }, 0);
    assert_eq!(book.refused().into_iter().collect::<Vec<_>>(), [id]);
    assert_eq!(book.transitions().next().await[0].state, CircuitState::Disabled);
    book.probed(&up, Finding { probe: Probe::Accepted, pass: book.pass(id), is_last: false }, 0);
    assert!(book.refused().is_empty() && !book.rests(id, (EndpointKind::Messages, "m"), 0));
    assert_eq!(book.transitions().next().await[0].state, CircuitState::Closed);
}
