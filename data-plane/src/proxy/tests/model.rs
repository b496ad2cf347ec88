//! The whole walk against a small reference of what ought to happen: random sequences of requests, faults of
//! upstreams, changed limits, clocks that jump, restarts and kills. Where the two part, the shortest sequence is shown.
//!
//! The reference (`allowance`, `wellbeing`) is told by a person who knows the rules and not the program. It says who is
//! admitted, which providers are asked how often, what the caller sees, how each request is recorded and billed, and
//! how each provider is afterwards. In the end all money that is counted must be what the ledger holds.

mod allowance;
mod play;
mod steps;
mod wellbeing;

use super::walk::run;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// How many sequences are played; a number makes them random ones each time.
const SEQUENCES: &str = "SWITCHYARD_MODEL_SEQUENCES";
/// Of each of the two halves that `make test` plays.
const USUAL: u32 = 1_000;

fn runner(half: u8) -> TestRunner {
    let wanted = std::env::var(SEQUENCES).ok().map(|count| count.parse::<u32>().unwrap() / 2);
    let config = Config {
        cases: wanted.unwrap_or(USUAL),
        max_shrink_iters: 4_000,
        failure_persistence: None,
        ..Config::default()
    };
    match wanted {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[half; 32])),
    }
}

/// In two halves, because machines have two cores.
fn compare(half: u8) {
    let compared = runner(half).run(&steps::sequences(), |(house, steps)| {
        run(play::play(house, steps.into())).map_err(TestCaseError::fail)
    });
    match compared {
        Ok(()) => {}
        Err(TestError::Fail(why, (house, steps))) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            panic!("{why}\nthe shortest sequence, with {house:?}:\n{}", steps.concat());
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_proxy_does_what_the_reference_says() {
    compare(1);
}

#[test]
fn the_proxy_does_what_the_reference_says_again() {
    compare(2);
}
