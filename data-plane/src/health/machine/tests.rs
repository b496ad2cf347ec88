use super::*;
use proptest::prelude::*;

const RULES: Breaker =
    Breaker { failure_threshold: 5, open: Duration::from_secs(1800), half_open_successes: 2 };
const OPEN_MS: i64 = 1_800_000;

/// Of an attempt that began after the last transition, and that holds the trial if there is one.
fn tell(machine: &mut Machine, verdict: Verdict, rules: &Breaker, now_ms: i64) -> bool {
    by(machine, None, verdict, rules, now_ms)
}

/// The same of this account, which is not the only one.
fn by(machine: &mut Machine, account: Option<i64>, verdict: Verdict, rules: &Breaker, now_ms: i64) -> bool {
    let pass = Pass { epoch: machine.epoch(), trial: machine.trials, account: account.map(UserId) };
    machine.record(verdict, pass, rules, now_ms)
}

fn fail(machine: &mut Machine, times: usize, now_ms: i64) -> Vec<bool> {
    (0..times).map(|_| tell(machine, Verdict::Failure, &RULES, now_ms)).collect()
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
        assert!(!tell(&mut machine, Verdict::Success, &RULES, 0));
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
    assert!(!tell(&mut machine, Verdict::Success, &RULES, wakes));
    assert_eq!(machine.enter(wakes), (Gate::Trial, false));
    assert!(tell(&mut machine, Verdict::Success, &RULES, wakes));
    assert_eq!((machine.state(), machine.epoch()), (State::Closed, 3));
    assert!(machine.is_clean());
}

#[test]
fn one_failure_on_trial_opens_for_a_full_period() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    tell(&mut machine, Verdict::Success, &RULES, OPEN_MS);
    machine.enter(OPEN_MS + 5);
    assert!(tell(&mut machine, Verdict::Failure, &RULES, OPEN_MS + 5));
    assert_eq!(machine.peek(OPEN_MS + 5), asleep(OPEN_MS + 5 + OPEN_MS));
}

#[test]
fn a_released_or_lost_trial_frees_its_place() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    tell(&mut machine, Verdict::Neutral, &RULES, OPEN_MS);
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
        assert!(!tell(&mut machine, Verdict::Failure, &rules, 0));
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
        assert!(tell(&mut machine, limited(seconds), &RULES, 10));
        let row = machine.row(ProviderId(1));
        assert_eq!((row.reason.as_str(), row.failures), (RATE_LIMITED, 4));
        if sleeps_ms > 0 {
            assert_eq!(machine.peek(9 + sleeps_ms), asleep(10 + sleeps_ms));
        }
        assert!(!tell(&mut machine, Verdict::Success, &RULES, 11), "an answer that was under way");
        assert_eq!(machine.enter(10 + sleeps_ms), (Gate::Open, true), "serves at once, no trial");
        assert!(fail(&mut machine, 1, 20)[0], "and remembers its four failures");
    }
}

#[test]
fn many_429s_at_once_are_one_sleep_of_the_longest() {
    let limited = |seconds| Verdict::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
    let mut machine = Machine::default();
    assert!(tell(&mut machine, limited(5), &RULES, 0));
    assert!(!tell(&mut machine, limited(3), &RULES, 0));
    assert!(tell(&mut machine, limited(9), &RULES, 0));
    assert_eq!(machine.peek(0), asleep(9_000));
}

#[test]
fn a_429_on_trial_keeps_the_successes() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    tell(&mut machine, Verdict::Success, &RULES, OPEN_MS);
    machine.enter(OPEN_MS);
    assert!(tell(&mut machine, Verdict::RateLimited { retry_after: None }, &RULES, OPEN_MS));
    let wakes = OPEN_MS + 60_000;
    assert_eq!(machine.peek(wakes - 1), asleep(wakes));
    assert_eq!(machine.enter(wakes), (Gate::Trial, true));
    assert!(tell(&mut machine, Verdict::Success, &RULES, wakes), "the second success closes");
    assert_eq!(machine.state(), State::Closed);
}

fn now(machine: &Machine) -> Pass {
    Pass { epoch: machine.epoch(), ..Pass::default() }
}

#[test]
fn refusals_of_callers_make_suspect_and_never_disable() {
    let refused = |machine: &mut Machine| tell(machine, Verdict::CredentialRefused, &RULES, 0);
    for between in [Verdict::Success, Verdict::Failure, Verdict::RateLimited { retry_after: None }] {
        let mut machine = Machine::default();
        refused(&mut machine);
        refused(&mut machine);
        tell(&mut machine, between, &RULES, 0);
        refused(&mut machine);
        assert!(!machine.is_suspected(&RULES), "{between:?} lies between");
    }
    let mut machine = Machine::default();
    for refusal in 1..=20 {
        assert!(!refused(&mut machine));
        tell(&mut machine, Verdict::Neutral, &RULES, 0);
        assert_eq!(machine.is_suspected(&RULES), refusal >= 3, "{refusal}");
    }
    assert_eq!((machine.state(), machine.row(ProviderId(1)).failures), (State::Closed, 0));
    assert!(!machine.probed(
        Finding { probe: Probe::Unclear, pass: now(&machine), is_last: false },
        &RULES,
        0
    ));
    assert!(!machine.is_suspected(&RULES), "the next refusal asks again");
    refused(&mut machine);
    assert!(machine.is_suspected(&RULES));
    assert!(!machine.probed(
        Finding { probe: Probe::Accepted, pass: now(&machine), is_last: false },
        &RULES,
        0
    ));
    assert!(machine.is_clean());
}

#[test]
fn a_probe_disables_and_a_probe_wakes() {
    let mut machine = Machine::default();
    let before = now(&machine);
    assert!(machine.probed(Finding { probe: Probe::Refused, pass: before, is_last: false }, &RULES, 0));
    let row = machine.row(ProviderId(1));
    assert_eq!((row.state, row.reason.as_str()), (CircuitState::Disabled, CREDENTIAL));
    assert_eq!(machine.peek(i64::MAX), Gate::Asleep { until_ms: None });
    for verdict in [Verdict::Success, Verdict::Failure, Verdict::CredentialRefused] {
        assert!(!tell(&mut machine, verdict, &RULES, 0), "callers change nothing of it");
    }
    for (probe, pass) in
        [(Probe::Refused, now(&machine)), (Probe::Unclear, now(&machine)), (Probe::Accepted, before)]
    {
        assert!(!machine.probed(Finding { probe, pass, is_last: false }, &RULES, 0), "{probe:?}");
        assert_eq!(machine.state(), State::Disabled);
    }
    assert!(machine.probed(
        Finding { probe: Probe::Accepted, pass: now(&machine), is_last: false },
        &RULES,
        0
    ));
    assert_eq!((machine.peek(0), machine.is_refused(), machine.epoch()), (Gate::Open, false, 2));
}

#[test]
fn the_last_of_a_pool_is_rested_and_not_taken_away() {
    let rest_ms = i64::try_from(LAST_REST.as_millis()).unwrap();
    let mut machine = Machine::default();
    assert!(machine.probed(Finding { probe: Probe::Refused, pass: now(&machine), is_last: true }, &RULES, 0));
    assert_eq!(machine.peek(0), asleep(rest_ms), "so it is still the last resort");
    assert_eq!(machine.row(ProviderId(1)).reason, CREDENTIAL);
    assert!(machine.is_refused() && !machine.is_suspected(&RULES));
    assert!(
        !machine.probed(
            Finding { probe: Probe::Refused, pass: now(&machine), is_last: true },
            &RULES,
            rest_ms - 1
        ),
        "told once"
    );
    assert!(machine.probed(
        Finding { probe: Probe::Refused, pass: now(&machine), is_last: true },
        &RULES,
        rest_ms
    ));
    assert!(
        machine.probed(
            Finding { probe: Probe::Refused, pass: now(&machine), is_last: false },
            &RULES,
            rest_ms
        ),
        "no longer the last"
    );
    assert_eq!(machine.state(), State::Disabled);
    assert!(
        machine.probed(
            Finding { probe: Probe::Refused, pass: now(&machine), is_last: true },
            &RULES,
            rest_ms
        ),
        "the last again"
    );
    assert!(machine.probed(
        Finding { probe: Probe::Accepted, pass: now(&machine), is_last: true },
        &RULES,
        rest_ms
    ));
    assert_eq!(machine.peek(0), Gate::Open);
}

#[test]
fn what_began_before_a_transition_says_nothing_about_it() {
    let mut machine = Machine::default();
    let under_way = now(&machine);
    fail(&mut machine, 5, 0);
    for _ in 0..5 {
        assert!(!machine.record(Verdict::Success, under_way, &RULES, 10));
    }
    assert_eq!(machine.peek(10), asleep(OPEN_MS), "old streams that end well do not close it");
    let resting = now(&machine);
    machine.enter(OPEN_MS);
    for verdict in [Verdict::Success, Verdict::Failure, Verdict::CredentialRefused, Verdict::Neutral] {
        assert!(!machine.record(verdict, resting, &RULES, OPEN_MS), "{verdict:?}");
        assert_eq!(machine.state(), State::HalfOpen { successes: 0, trial_ms: Some(OPEN_MS) });
    }
    tell(&mut machine, Verdict::Success, &RULES, OPEN_MS);
    machine.enter(OPEN_MS);
    tell(&mut machine, Verdict::Success, &RULES, OPEN_MS);
    assert_eq!(machine.state(), State::Closed);
    for _ in 0..9 {
        assert!(!machine.record(Verdict::Failure, under_way, &RULES, OPEN_MS));
    }
    assert!(machine.is_clean(), "nor do old failures open it again");
}

#[test]
fn only_its_own_request_ends_a_trial() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    let first = Pass { trial: machine.trials, ..now(&machine) };
    let on_trial = machine.state();
    let limited = Verdict::RateLimited { retry_after: None };
    for verdict in [Verdict::Failure, Verdict::Neutral, Verdict::CredentialRefused, limited] {
        assert!(!machine.record(verdict, now(&machine), &RULES, OPEN_MS), "{verdict:?}");
        assert_eq!(machine.state(), on_trial, "{verdict:?}");
    }
    // It was lost, and another took its place.
    machine.enter(OPEN_MS + 900_000);
    let second = Pass { trial: machine.trials, ..now(&machine) };
    assert_ne!(first, second);
    machine.record(Verdict::Failure, first, &RULES, OPEN_MS + 900_000);
    assert!(matches!(machine.state(), State::HalfOpen { trial_ms: Some(_), .. }));
    machine.record(Verdict::Failure, second, &RULES, OPEN_MS + 900_000);
    assert!(matches!(machine.state(), State::Open { .. }));
}

#[test]
fn a_refused_trial_is_given_back_and_opens_nothing() {
    let mut machine = opened(0);
    machine.enter(OPEN_MS);
    assert!(!tell(&mut machine, Verdict::CredentialRefused, &RULES, OPEN_MS));
    assert_eq!(machine.enter(OPEN_MS), (Gate::Trial, false), "the next one tries it at once");
    tell(&mut machine, Verdict::CredentialRefused, &RULES, OPEN_MS);
    assert!(!machine.is_suspected(&RULES));
    tell(&mut machine, Verdict::CredentialRefused, &RULES, OPEN_MS);
    assert!(machine.is_suspected(&RULES), "but refusals count");
}

#[test]
fn failures_of_one_account_open_a_circuit_only_together_with_another_or_with_a_probe() {
    let found = |machine: &Machine, probe| Finding { probe, pass: now(machine), is_last: false };
    let fails = |machine: &mut Machine, account| by(machine, Some(account), Verdict::Failure, &RULES, 0);
    let doubted = || {
        let mut machine = Machine::default();
        for failure in 1..=20 {
            assert!(!fails(&mut machine, 1), "{failure}");
            assert_eq!(machine.is_suspected(&RULES), failure >= 5, "{failure}");
        }
        machine
    };
    let mut machine = doubted();
    assert!(fails(&mut machine, 2), "another account says so, too");
    assert_eq!(machine.row(ProviderId(1)).reason, FAILURES);
    for (probe, opens, suspected) in
        [(Probe::Failed, true, false), (Probe::Accepted, false, false), (Probe::Unclear, false, true)]
    {
        let mut machine = doubted();
        let finding = found(&machine, probe);
        assert_eq!(machine.probed(finding, &RULES, 0), opens, "{probe:?}");
        assert_eq!(machine.is_suspected(&RULES), suspected, "{probe:?}");
        assert!(probe != Probe::Accepted || machine.is_clean());
    }
    // A probe that fails opens nothing that was not in doubt.
    let mut machine = Machine::default();
    fail(&mut machine, 4, 0);
    let finding = found(&machine, Probe::Failed);
    assert!(!machine.probed(finding, &RULES, 0));
    assert!(fails(&mut machine, 1), "failures before that are anybody's");
    // On trial one failure is enough, whoever sent it, and as often as it is tried.
    for wakes in [OPEN_MS, 2 * OPEN_MS, 3 * OPEN_MS] {
        assert_eq!(machine.enter(wakes), (Gate::Trial, true));
        assert!(by(&mut machine, Some(1), Verdict::Failure, &RULES, wakes));
        assert_eq!(machine.peek(wakes), asleep(wakes + OPEN_MS));
        assert!(!machine.is_suspected(&RULES), "there is nothing to ask");
    }
}

#[test]
fn hang_ups_are_halves_and_need_two_accounts() {
    const MINUTE: i64 = 60_000;
    let left = |machine: &mut Machine, account, now_ms| {
        tell(machine, Verdict::HungUp { account: UserId(account) }, &RULES, now_ms)
    };
    let mut alone = Machine::default();
    for minute in 0..200 {
        assert!(!left(&mut alone, 1, minute * MINUTE), "one account opens nothing");
    }
    fail(&mut alone, 4, 0);
    assert!(fail(&mut alone, 1, 0)[0], "its failures do");
    let mut both = Machine::default();
    for minute in 0..9 {
        assert!(!left(&mut both, minute % 2, minute * MINUTE), "{minute}");
        assert!(!left(&mut both, minute % 2, minute * MINUTE + 59_999), "once a minute");
    }
    assert!(!both.is_clean());
    assert!(left(&mut both, 7, 9 * MINUTE), "ten halves of three accounts");
    let mut mixed = Machine::default();
    fail(&mut mixed, 4, 0);
    assert!(!left(&mut mixed, 1, 0));
    tell(&mut mixed, Verdict::Success, &RULES, 0);
    assert!(mixed.is_clean(), "a success forgets them");
    fail(&mut mixed, 4, 0);
    assert!(!left(&mut mixed, 1, 0) && left(&mut mixed, 2, 0));
}

#[test]
fn a_last_resort_that_works_is_the_first_trial() {
    let mut machine = opened(0);
    assert!(tell(&mut machine, Verdict::Success, &RULES, 10));
    assert_eq!(machine.state(), State::HalfOpen { successes: 1, trial_ms: None });
    assert_eq!(machine.enter(11), (Gate::Trial, false));
    assert!(tell(&mut machine, Verdict::Success, &RULES, 12));
    assert_eq!(machine.state(), State::Closed);
    let mut machine = opened(0);
    assert!(!tell(&mut machine, Verdict::Failure, &RULES, 10), "one that fails does not sleep longer");
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
    tell(&mut machine, Verdict::CredentialRefused, &RULES, 0);
    assert!(!machine.is_suspected(&RULES), "a reset forgets the refusals");
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
        (0i64..4).prop_map(|account| Verdict::HungUp { account: UserId(account) }),
    ]
}

proptest! {
    /// Whatever happens: what `peek` says is what `enter` does, the epoch moves exactly with reports, a sleep
    /// ends, and no caller's request disables.
    #[test]
    fn always(steps in prop::collection::vec((verdicts(), 0i64..4_000_000), 0..60), threshold in 0u32..7) {
        let rules = Breaker { failure_threshold: threshold, ..RULES };
        let mut machine = Machine::default();
        let mut now_ms = 0;
        for (verdict, pause) in steps {
            now_ms += pause;
            let (peeked, epoch) = (machine.peek(now_ms), machine.epoch());
            let (gate, changed) = machine.enter(now_ms);
            prop_assert_eq!(gate, peeked);
            prop_assert_eq!(machine.epoch(), epoch + i64::from(changed));
            if gate == Gate::Trial {
                let resting = matches!(machine.peek(now_ms), Gate::Asleep { .. });
                prop_assert!(resting);
            }
            let epoch = machine.epoch();
            let changed = tell(&mut machine, verdict, &rules, now_ms);
            prop_assert_eq!(machine.epoch(), epoch + i64::from(changed));
            if let State::Open { until_ms, .. } = machine.state() {
                prop_assert!(until_ms <= now_ms + OPEN_MS);
                let wakes = !matches!(machine.peek(until_ms), Gate::Asleep { .. });
                prop_assert!(wakes);
                let by_failures = machine.row(ProviderId(1)).reason == FAILURES;
                prop_assert!(threshold > 0 || !by_failures);
            }
            prop_assert!(machine.state() != State::Disabled);
            prop_assert!(!machine.is_clean() || machine.serves());
        }
    }
}
