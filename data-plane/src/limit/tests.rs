use super::*;
use contract::ids::{KeyId, UserId};

const NOW: i64 = 1_767_607_200_000; // 2026-01-05T10:00:00Z, a Monday

fn limit(measure: Measure, window: Window, amount: i64) -> Limit {
    Limit { measure, window, amount, since_ms: None, absent_until_ms: None }
}

fn key(limits: Vec<Limit>) -> Key {
    Key {
        id: KeyId(7),
        user_id: UserId(42),
        hash: [0; 32],
        name: "k".into(),
        enabled: true,
        expires_at_ms: None,
        groups: Vec::new(),
        limits,
        cache_ttl: None,
    }
}

fn user(limits: Vec<Limit>) -> User {
    User {
        id: UserId(42),
        owner_id: UserId(1),
        name: "u".into(),
        enabled: true,
        expires_at_ms: None,
        groups: Vec::new(),
        limits,
        allowed_models: Vec::new(),
        allowed_clients: Vec::new(),
        blocked_clients: Vec::new(),
        level: 0,
    }
}

#[test]
fn counters_stand_in_the_order_of_refusal() {
    use Measure::{Requests, Sessions, Usd};
    let all = vec![
        limit(Usd, Window::Month, 8),
        limit(Usd, Window::Week, 7),
        limit(Usd, Window::Day { reset_minute: 0 }, 6),
        limit(Usd, Window::FiveHours, 5),
        limit(Sessions, Window::Concurrent, 2),
        limit(Usd, Window::Total, 1),
    ];
    let mut of_user = all.clone();
    of_user.push(limit(Requests, Window::Minute, 60));
    let got = counters(&key(all), &user(of_user), chrono_tz::UTC, NOW);
    let got: Vec<(bool, &str)> =
        got.iter().map(|c| (matches!(c.scope, Scope::Key(_)), c.limit.word())).collect();
    let want = [
        (true, "usd_total"),
        (false, "usd_total"),
        (true, "concurrent_sessions"),
        (false, "concurrent_sessions"),
        (false, "rpm"),
        (true, "usd_5h"),
        (false, "usd_5h"),
        (true, "daily_quota"),
        (false, "daily_quota"),
        (true, "usd_weekly"),
        (false, "usd_weekly"),
        (true, "usd_monthly"),
        (false, "usd_monthly"),
    ];
    assert_eq!(got, want);
}

#[test]
fn no_limits_no_counters() {
    assert!(counters(&key(Vec::new()), &user(Vec::new()), chrono_tz::UTC, NOW).is_empty());
}

#[test]
fn a_soft_reset_moves_the_start_of_a_fixed_window() {
    let day = NOW - 10 * 3_600_000;
    let cases = [(None, day), (Some(day - 5), day), (Some(day + 5), day + 5)];
    for (since_ms, want) in cases {
        let row = Limit { since_ms, ..limit(Measure::Usd, Window::Day { reset_minute: 0 }, 1) };
        let counter = Counter::new(Scope::Key(KeyId(7)), &row, chrono_tz::UTC, NOW);
        assert_eq!(counter.start_ms(), Some(want), "since {since_ms:?}");
        assert_eq!(counter.end_ms(), Some(day + 24 * 3_600_000));
    }
}

#[test]
fn estimates() {
    let usd = |text: &str| Some(text.parse::<Decimal>().expect("decimal"));
    let plain = Price { input: usd("0.000003"), output: usd("0.000015"), ..Price::default() };
    let flat = Price { per_request: usd("0.02"), ..Price::default() };
    let absurd = Price { input: usd("79228162514264337593543950335"), ..Price::default() };
    let cases = [
        ("unpriced", None, 1000, Some(10), "1", 0),
        ("small ceiling", Some(&plain), 1000, Some(10), "1", 3_150_000),
        ("no ceiling", Some(&plain), 1000, None, "1", 33_720_000),
        ("large ceiling is capped", Some(&plain), 1000, Some(64_000), "1", 33_720_000),
        ("multiplier", Some(&plain), 1000, Some(10), "0.5", 1_575_000),
        ("rounds up", Some(&plain), 1, Some(0), "0.0001", 1),
        ("per request", Some(&flat), 1000, None, "1", 20_000_000),
        ("saturates", Some(&absurd), u64::MAX, None, "1", i64::MAX),
    ];
    for (name, price, input, output, multiplier, want) in cases {
        let got = estimate(price, input, output, multiplier.parse().expect("decimal"));
        assert_eq!(got, NanoUsd(want), "{name}");
    }
}
