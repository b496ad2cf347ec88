//! Damaged messages from the control plane, and damaged records on their way to it: what is no row is refused by name,
//! what is taken means the same when it is told again.

use super::*;
use crate::spool::tests::record;
use contract::table::{Breaker, CacheTtl, Key, Limit, Measure, OwnerConfig, User};
use contract::usage::UsageRecord;
use contract::window::Window;
use mutate::{damaged, fuzz};

/// Pieces of messages: lengths that are too large, numbers without an end, groups, empty texts.
const TOKENS: &[&[u8]] = &[
    b"\x00",
    b"\x0a\x00",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80",
    b"\x0b",
    b"\x0c",
    b"\x08\x00",
    b"\x12\x02\xc3\x28",
    b"\x1a\x7f",
    b"\x38\x01",
];

fn leak(bytes: Vec<u8>) -> &'static [u8] {
    Vec::leak(bytes)
}

fn rows() -> Rows {
    let limit =
        |measure, window| Limit { measure, window, amount: 5, since_ms: Some(7), absent_until_ms: None };
    let limits = vec![
        limit(Measure::Usd, Window::Total),
        limit(Measure::Usd, Window::Day { reset_minute: 61 }),
        limit(Measure::Requests, Window::Minute),
        limit(Measure::Sessions, Window::Concurrent),
    ];
    let price = contract::money::Price { input: Some(Decimal::new(3, 6)), ..Default::default() };
    Rows {
        keys: vec![Key { limits: limits.clone(), cache_ttl: Some(CacheTtl::Hour1), ..key(1) }],
        users: vec![User { limits: limits.clone(), allowed_models: vec!["m".to_owned()], ..user(1, "ann") }],
        providers: vec![Provider {
            limits,
            redirects: vec![rule(MatchType::Prefix, "claude-", Some("m"))],
            allowed_models: vec![rule(MatchType::Regex, "^m$", None)],
            breaker: Breaker { failure_threshold: 3, open: Duration::from_secs(60), half_open_successes: 2 },
            custom_headers: BTreeMap::from([("x-a".to_owned(), "b".to_owned())]),
            active: Some((60, 1_439)),
            options: Some(Box::new(Options::default())),
            ..provider(1)
        }],
        prices: vec![ModelPrice { model: "m".to_owned(), price }],
        owners: vec![OwnerConfig { owner_id: UserId(1), ..NO_OWNER.clone() }],
        words: vec![Word {
            id: 1,
            owner_id: UserId(1),
            match_type: MatchType::Regex,
            word: "(a|b)+c{1,9}".to_owned(),
        }],
        health: vec![Health {
            provider_id: ProviderId(1),
            state: CircuitState::Open,
            until_ms: Some(5),
            reason: "failures".to_owned(),
            failures: 3,
            epoch: 9,
        }],
    }
}

#[test]
fn a_damaged_section_is_refused_or_taken_and_never_more() {
    let whole = pb::Rows::from(&rows()).encode_to_vec();
    let part = pb::Rows::from(&keys([1, 2, 3])).encode_to_vec();
    let seeds: &'static [&'static [u8]] = Vec::leak(vec![leak(whole), leak(part)]);
    let mut before = Builder::new(sealer());
    before.apply(Change::whole(1, vec![RawSection::of("keys", &keys([9]))])).unwrap();
    let before = std::cell::RefCell::new(before);
    fuzz(1_500, damaged(seeds, TOKENS), |payload| {
        let version = Bytes::copy_from_slice(&Sha256::digest(&payload)[..16]);
        let section = RawSection { name: "all".to_owned(), version, payload: payload.clone().into() };
        let mut builder = before.borrow_mut();
        let change = Change { replace: false, ..Change::whole(2, vec![section]) };
        let applied = builder.apply(change).map_err(|mismatch| mismatch.to_string())?;
        if applied.snapshot.key(&hash(9)).is_none() && applied.rejected.is_empty() {
            return Err("another section is lost".to_owned());
        }
        let gone = Change { removed: vec!["all".to_owned()], replace: false, ..Change::whole(3, Vec::new()) };
        builder.apply(gone).map_err(|mismatch| mismatch.to_string())?;
        let Some(taken) =
            pb::Rows::decode(payload.as_slice()).ok().and_then(|wire| Rows::try_from(wire).ok())
        else {
            return Ok(());
        };
        let again = Rows::try_from(pb::Rows::from(&taken))
            .map_err(|why| format!("refused when told again: {why}"))?;
        if again == taken { Ok(()) } else { Err(format!("{taken:?} becomes {again:?}")) }
    });
}

#[test]
fn a_damaged_record_is_refused_or_means_the_same_when_it_is_told_again() {
    let mut bytes = Vec::new();
    UsageRecord {
        cost: Some(Decimal::new(123, 4)),
        cost_parts: BTreeMap::from([("input".to_owned(), Decimal::new(1, 2))]),
        ..record(5)
    }
    .encode(&mut bytes);
    let seeds: &'static [&'static [u8]] = Vec::leak(vec![leak(bytes)]);
    fuzz(3_000, damaged(seeds, TOKENS), |bytes| {
        let Ok(wire) = pb::UsageRecord::decode(bytes.as_slice()) else { return Ok(()) };
        let Ok(taken) = UsageRecord::try_from(wire) else { return Ok(()) };
        let mut again = Vec::new();
        taken.encode(&mut again);
        let again = pb::UsageRecord::decode(again.as_slice()).map_err(|why| why.to_string())?;
        let again = UsageRecord::try_from(again).map_err(|why| why.to_string())?;
        if again == taken { Ok(()) } else { Err(format!("{taken:?} becomes {again:?}")) }
    });
}
