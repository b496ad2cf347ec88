use super::*;
use proptest::prelude::*;

const RULES: Breaker =
    Breaker { failure_threshold: 5, open: Duration::from_secs(1800), half_open_successes: 2 };
const OPEN_MS: i64 = 1_800_000;

fn fail(machine: &mut Machine, times: usize, now_ms: i64) -> Vec<bool> {
    (0..times).map(|_| machine.record(Verdict::Failure, &RULES, now_ms)).collect()
}

fn asleep(until_ms: i64) -> Gate {
    Gate::Asleep { until_ms: Some(until_ms) }
}

fn opened(now_ms: i64) -> Machine {
    let mut machine = Machine::default();
    assert_eq!(fail(&mut machine, 5, now_ms), [false, false, false, false, true]);
    machine
}

#[test]
fn failures_count_in_a_row_only() {
    let mut machine = Machine::default();
    for _ in 0..3 {
        fail(&mut machine, 4, 0);
        assert!(!machine.record(Verdict::Success, &RULES, 0));
        assert!(machine.is_clean());
    }
    assert_eq!(machine.peek(0), Gate::Open);
    assert_eq!(machine.epoch(), 0);
}

#[test]
fn opens_at_the_threshold_and_closes_after_enough_trials() {
    let mut machine = opened(1000);
    assert_eq!(machine.peek(1000), asleep(1000 + OPEN_MS));
    assert_eq!(machine.peek(999 + OPEN_MS), asleep(1000 + OPEN_MS));
    let wakes = 1000 + OPEN_MS;
    assert_eq!(machine.enter(wakes), (Gate::Trial, true));
    assert_eq!(
        machine.enter(wakes),
        (Gate::Asleep { until_ms: Some(wakes + 900_000) }, false),
        "one trial at a time"
    );
    assert!(!machine.record(Verdict::Success, &RULES, wakes));
    assert_eq!(machine.enter(wakes), (Gate::Trial, false));
    assert!(machine.record(Verdict::Success, &RULES, wakes));
    assert_eq!((machine.state(), machine.epoch()), (State::Closed, 3));
    assert!(machine.is_clean());
}

#[test]
fn one_failure_on_trial_opens_for_a_full_period() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    machine.record(Verdict::Success, &RULES, OPEN_MS);
    machine.enter(OPEN_MS + 5);
    assert!(machine.record(Verdict::Failure, &RULES, OPEN_MS + 5));
    assert_eq!(machine.peek(OPEN_MS + 5), asleep(OPEN_MS + 5 + OPEN_MS));
}

#[test]
fn a_released_or_lost_trial_frees_its_place() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    machine.release();
    assert_eq!(machine.peek(OPEN_MS), Gate::Trial);
    machine.enter(OPEN_MS);
    machine.record(Verdict::Neutral, &RULES, OPEN_MS);
    assert_eq!(machine.peek(OPEN_MS), Gate::Trial, "the caller's fault says nothing");
    machine.enter(OPEN_MS);
    assert_eq!(machine.peek(OPEN_MS + 899_999), Gate::Asleep { until_ms: Some(OPEN_MS + 900_000) });
    assert_eq!(machine.peek(OPEN_MS + 900_000), Gate::Trial, "nobody came back");
}

#[test]
fn threshold_zero_never_opens() {
    let rules = Breaker { failure_threshold: 0, ..RULES };
    let mut machine = Machine::default();
    for _ in 0..100 {
        assert!(!machine.record(Verdict::Failure, &rules, 0));
    }
    assert_eq!(machine.peek(0), Gate::Open);
    let mut machine = opened(0);
    assert!(machine.force_closed());
    assert_eq!((machine.peek(0), machine.force_closed()), (Gate::Open, false));
}

#[test]
fn too_many_requests_is_a_sleep_and_no_failure() {
    let limited =
        |seconds: Option<u64>| Verdict::RateLimited { retry_after: seconds.map(Duration::from_secs) };
    let cases = [(None, 60_000), (Some(7), 7_000), (Some(0), 0), (Some(86_400), 600_000)];
    for (seconds, sleeps_ms) in cases {
        let mut machine = Machine::default();
        fail(&mut machine, 4, 0);
        assert!(machine.record(limited(seconds), &RULES, 10));
        let row = machine.row(ProviderId(1));
        assert_eq!((row.reason.as_str(), row.failures), (RATE_LIMITED, 4));
        if sleeps_ms > 0 {
            assert_eq!(machine.peek(9 + sleeps_ms), asleep(10 + sleeps_ms));
        }
        assert!(!machine.record(Verdict::Success, &RULES, 11), "an answer that was under way");
        assert_eq!(machine.enter(10 + sleeps_ms), (Gate::Open, true), "serves at once, no trial");
        assert!(fail(&mut machine, 1, 20)[0], "and remembers its four failures");
    }
}

#[test]
fn many_429s_at_once_are_one_sleep_of_the_longest() {
    let limited = |seconds| Verdict::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
    let mut machine = Machine::default();
    assert!(machine.record(limited(5), &RULES, 0));
    assert!(!machine.record(limited(3), &RULES, 0));
    assert!(machine.record(limited(9), &RULES, 0));
    assert_eq!(machine.peek(0), asleep(9_000));
}

#[test]
fn a_429_on_trial_keeps_the_successes() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    machine.record(Verdict::Success, &RULES, OPEN_MS);
    machine.enter(OPEN_MS);
    assert!(machine.record(Verdict::RateLimited { retry_after: None }, &RULES, OPEN_MS));
    let wakes = OPEN_MS + 60_000;
    assert_eq!(machine.peek(wakes - 1), asleep(wakes));
    assert_eq!(machine.enter(wakes), (Gate::Trial, true));
    assert!(machine.record(Verdict::Success, &RULES, wakes), "the second success closes");
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn the_third_refused_credential_in_a_row_disables() {
    let refused = |machine: &mut Machine| machine.record(Verdict::CredentialRefused, &RULES, 0);
    for between in [Verdict::Success, Verdict::Failure, Verdict::RateLimited { retry_after: None }] {
        let mut machine = Machine::default();
        refused(&mut machine);
        refused(&mut machine);
        machine.record(between, &RULES, 0);
        refused(&mut machine);
        assert_ne!(machine.state(), State::Disabled, "{between:?} lies between");
    }
    let mut machine = Machine::default();
    assert!(!refused(&mut machine));
    machine.record(Verdict::Neutral, &RULES, 0);
    assert!(!refused(&mut machine));
    assert!(refused(&mut machine));
    assert!(!refused(&mut machine), "told once");
    let row = machine.row(ProviderId(1));
    assert_eq!((row.state, row.reason.as_str(), row.failures), (CircuitState::Disabled, CREDENTIAL, 3));
    assert_eq!(machine.peek(i64::MAX), Gate::Asleep { until_ms: None });
    assert!(!machine.record(Verdict::Success, &RULES, 0), "only a person wakes it");
    assert_eq!(machine.state(), State::Disabled);
}

#[test]
fn a_low_threshold_opens_first_and_disables_later() {
    let rules = Breaker { failure_threshold: 1, ..RULES };
    let mut machine = Machine::default();
    for (refusal, now_ms) in [(1, 0), (2, OPEN_MS), (3, 2 * OPEN_MS)] {
        machine.enter(now_ms);
        assert!(machine.record(Verdict::CredentialRefused, &rules, now_ms), "{refusal}");
    }
    assert_eq!(machine.state(), State::Disabled);
}

#[test]
fn a_last_resort_that_works_is_the_first_trial() {
    let mut machine = opened(0);
    assert!(machine.record(Verdict::Success, &RULES, 10));
    assert_eq!(machine.state(), State::HalfOpen { successes: 1, trial_ms: None });
    assert_eq!(machine.enter(11), (Gate::Trial, false));
    assert!(machine.record(Verdict::Success, &RULES, 12));
    assert_eq!(machine.state(), State::Closed);
    let mut machine = opened(0);
    assert!(!machine.record(Verdict::Failure, &RULES, 10), "one that fails does not sleep longer");
    assert_eq!(machine.peek(10), asleep(OPEN_MS));
}

fn row(state: CircuitState, until_ms: Option<i64>, epoch: i64) -> Health {
    Health { provider_id: ProviderId(1), state, until_ms, reason: FAILURES.to_owned(), failures: 5, epoch }
}

#[test]
fn the_newest_epoch_wins() {
    let mut machine = opened(0);
    assert_eq!(machine.epoch(), 1);
    assert!(!machine.adopt(&row(CircuitState::Closed, None, 0), 0), "older");
    assert!(!machine.adopt(&row(CircuitState::Closed, None, 1), 0), "same number, less careful");
    assert!(!machine.adopt(&machine.row(ProviderId(1)).clone(), 0), "its own echo");
    let manual = Health { reason: "manual".to_owned(), failures: 0, ..row(CircuitState::Closed, None, 2) };
    assert!(machine.adopt(&manual, 0));
    assert_eq!((machine.peek(0), machine.epoch()), (Gate::Open, 2));
    assert!(machine.is_clean(), "a reset forgets the failures");
    assert!(machine.adopt(&row(CircuitState::Open, Some(77), 9), 0));
    assert_eq!(machine.peek(76), asleep(77));
    assert!(machine.adopt(&row(CircuitState::Open, Some(99), 9), 0), "same number, more careful");
    assert!(machine.adopt(&row(CircuitState::HalfOpen, None, 10), 0));
    assert_eq!(machine.peek(0), Gate::Trial);
    assert!(machine.adopt(&row(CircuitState::Disabled, None, 11), 0));
    assert_eq!(machine.peek(0), Gate::Asleep { until_ms: None });
    assert!(machine.adopt(&row(CircuitState::Closed, None, 12), 0));
    assert_eq!(machine.peek(0), Gate::Open);
    machine.record(Verdict::CredentialRefused, &RULES, 0);
    assert!(machine.serves(), "a reset forgets the refusals");
    assert!(machine.adopt(&row(CircuitState::Open, None, 13), 50));
    assert_eq!(machine.peek(50), Gate::Trial, "open without an end is tried");
}

#[test]
fn half_open_elsewhere_does_not_disturb_the_trial_here() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    assert!(machine.adopt(&row(CircuitState::HalfOpen, None, 50), OPEN_MS));
    assert_eq!(machine.peek(OPEN_MS), Gate::Asleep { until_ms: Some(OPEN_MS + 900_000) });
    assert_eq!(machine.epoch(), 50);
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Success),
        Just(Verdict::Failure),
        (0u64..1000).prop_map(|s| Verdict::RateLimited { retry_after: Some(Duration::from_secs(s)) }),
        Just(Verdict::CredentialRefused),
        Just(Verdict::Neutral),
    ]
}

proptest! {
    /// Whatever happens: what `peek` says is what `enter` does, the epoch moves exactly with reports, a sleep
    /// ends, and nothing but a person wakes a disabled one.
    #[test]
    fn always(steps in prop::collection::vec((verdicts(), 0i64..4_000_000), 0..60), threshold in 0u32..7) {
        let rules = Breaker { failure_threshold: threshold, ..RULES };
        let mut machine = Machine::default();
        let mut now_ms = 0;
        for (verdict, pause) in steps {
            now_ms += pause;
            let was_disabled = machine.state() == State::Disabled;
            let (peeked, epoch) = (machine.peek(now_ms), machine.epoch());
            let (gate, changed) = machine.enter(now_ms);
            prop_assert_eq!(gate, peeked);
            prop_assert_eq!(machine.epoch(), epoch + i64::from(changed));
            if gate == Gate::Trial {
                let resting = matches!(machine.peek(now_ms), Gate::Asleep { .. });
                prop_assert!(resting);
            }
            let epoch = machine.epoch();
            let changed = machine.record(verdict, &rules, now_ms);
            prop_assert_eq!(machine.epoch(), epoch + i64::from(changed));
            if let State::Open { until_ms, .. } = machine.state() {
                prop_assert!(until_ms <= now_ms + OPEN_MS);
                let wakes = !matches!(machine.peek(until_ms), Gate::Asleep { .. });
                prop_assert!(wakes);
                let by_failures = machine.row(ProviderId(1)).reason == FAILURES;
                prop_assert!(threshold > 0 || !by_failures);
            }
            prop_assert!(!was_disabled || machine.state() == State::Disabled);
            prop_assert!(!machine.is_clean() || machine.serves());
        }
    }
}
