use super::*;
use crate::table::fixtures::sealer;
use crate::table::{Builder, Change, RawSection};
use contract::table::{ModelPrice, OwnerConfig, Rows};
use std::sync::Arc;

const OWNER: UserId = UserId(1);

fn usd(text: &str) -> Decimal {
    text.parse().expect("decimal")
}

/// USD per million input and output tokens.
fn price(model: &str, input: &str, output: &str) -> ModelPrice {
    let per_token = |text: &str| Some(usd(text) / Decimal::from(1_000_000));
    let price = Price { input: per_token(input), output: per_token(output), ..Price::default() };
    ModelPrice { model: model.to_owned(), price }
}

fn table(bill_redirected: bool) -> Arc<Snapshot> {
    with_owner(OwnerConfig { bill_redirected, ..OwnerConfig::new(OWNER, chrono_tz::Tz::UTC) })
}

fn with_owner(owner: OwnerConfig) -> Arc<Snapshot> {
    let painter = Price { other_unit: true, ..Price::default() };
    let prices = vec![
        price("claude-opus-4", "15", "75"),
        price("gpt-4o", "2", "10"),
        price("gpt-4o-mini", "1", "4"),
        price("gift", "0", "0"),
        ModelPrice { model: "painter".to_owned(), price: painter },
    ];
    let sections = vec![
        RawSection::of("prices", &Rows { prices, ..Rows::default() }),
        RawSection::of("owners", &Rows { owners: vec![owner], ..Rows::default() }),
    ];
    Builder::new(sealer()).apply(Change::whole(1, sections)).expect("table").snapshot
}

fn service<'a>(asked: &'a str, sent: Option<&'a str>, answered: Option<&'a str>) -> Service<'a> {
    let names = Names { asked, sent, answered, falls_back: false };
    Service {
        owner: OWNER,
        names,
        kind: ProviderKind::OpenAiCompatible,
        multiplier: Decimal::ONE,
        fast: false,
    }
}

fn million(input: u64) -> TokenCounts {
    TokenCounts { input: input * 1_000_000, ..TokenCounts::default() }
}

#[test]
fn the_first_name_with_a_price_is_billed() {
    let (original, redirected) = (table(false), table(true));
    for (table, asked, sent, answered, want) in [
        (&original, "gpt-4o", "gpt-4o-mini", None, "gpt-4o"),
        (&redirected, "gpt-4o", "gpt-4o-mini", None, "gpt-4o-mini"),
        (&original, "mine", "gpt-4o-mini", Some("gpt-4o"), "gpt-4o-mini"),
        (&redirected, "gpt-4o", "mine", Some("gpt-4o-mini"), "gpt-4o"),
        (&original, "mine", "theirs", Some("openai/GPT-4o:nitro"), "gpt-4o"),
        (&original, "painter", "gpt-4o", None, "gpt-4o"),
    ] {
        let bill = bill(table, &service(asked, Some(sent), answered), &million(1), false);
        assert_eq!(bill.model.as_deref(), Some(want), "{asked} {sent} {answered:?}");
        assert!(bill.cost.is_some() && bill.unpriced.is_none() && bill.held.is_none());
    }
}

#[test]
fn who_lets_an_upstream_fall_back_pays_the_dearer() {
    for (bill_redirected, asked, sent, answered, want) in [
        (false, "gpt-4o-mini", "gpt-4o-mini", Some("gpt-4o"), "gpt-4o"),
        (true, "gpt-4o-mini", "gpt-4o-mini", Some("gpt-4o"), "gpt-4o"),
        (false, "gpt-4o-mini", "gpt-4o-mini", Some("unknown"), "gpt-4o-mini"),
        (false, "gpt-4o-mini", "gpt-4o-mini", None, "gpt-4o-mini"),
        // A redirect is billed by what was asked for, whatever else the caller adds.
        (false, "gpt-4o", "gpt-4o-mini", Some("gpt-4o-mini"), "gpt-4o"),
        (false, "gpt-4o", "gift", Some("gift"), "gpt-4o"),
        (false, "mine", "mine", Some("gpt-4o"), "gpt-4o"),
    ] {
        let table = table(bill_redirected);
        let mut service = service(asked, Some(sent), answered);
        service.names.falls_back = true;
        let bill = bill(&table, &service, &million(1), false);
        assert_eq!(bill.model.as_deref(), Some(want), "{asked} {sent} {answered:?}");
    }
}

#[test]
fn without_a_price_the_dearest_of_the_family_is_held() {
    let table = table(false);
    for (asked, sent, answered, unpriced, held) in [
        ("gpt-4o-foo", None, None, Some(WhyUnpriced::NoPrice), Some("2")),
        ("gpt-4o-mini-foo", None, None, Some(WhyUnpriced::NoPrice), Some("1")),
        // The dearest of its names: the caller chooses the first.
        ("gpt-4o-mini-foo", Some("claude-foo"), None, Some(WhyUnpriced::NoPrice), Some("15")),
        ("gpt-4o-mini-foo", None, Some("gpt-4o-foo"), Some(WhyUnpriced::NoPrice), Some("2")),
        // No family: the dearest that such a provider serves.
        ("invented", None, None, Some(WhyUnpriced::NoPrice), Some("2")),
        ("painter", None, None, Some(WhyUnpriced::OtherUnit), None),
    ] {
        let bill = bill(&table, &service(asked, sent, answered), &million(1), false);
        assert_eq!((bill.cost, bill.unpriced, bill.model.clone()), (None, unpriced, None), "{asked}");
        assert_eq!(bill.held, held.map(usd), "{asked}");
        assert_eq!(bill.charge(), bill.held);
        let doubled = Service { multiplier: Decimal::TWO, ..service(asked, sent, answered) };
        let twice = super::bill(&table, &doubled, &million(1), false).held;
        assert_eq!(twice, held.map(|held| usd(held) * Decimal::TWO), "{asked}");
    }
    let free = bill(&table, &service("gift", None, None), &million(1), false);
    assert_eq!((free.cost, free.unpriced, free.charge()), (Some(Decimal::ZERO), None, None), "0 is a price");
}

#[test]
fn fast_mode_costs_a_multiple() {
    let mut own = price("gpt-4o", "2", "10");
    own.price.fast = Some(Decimal::from(3));
    let rows = Rows { prices: vec![own, price("gpt-4o-mini", "1", "4")], ..Rows::default() };
    let section = RawSection::of("prices", &rows);
    let table = Builder::new(sealer()).apply(Change::whole(1, vec![section])).expect("table").snapshot;
    for (model, usual, fast, times) in [
        ("gpt-4o", "2", "6", "3"),
        // What was published, where the table does not say.
        ("gpt-4o-mini", "1", "6", "6"),
        ("gpt-4o-foo", "2", "12", "6"),
    ] {
        for (is_fast, usd_wanted, multiplier) in [(false, usual, "1"), (true, fast, times)] {
            let service = Service { fast: is_fast, ..service(model, None, None) };
            let bill = bill(&table, &service, &million(1), false);
            assert_eq!(bill.charge(), Some(usd(usd_wanted)), "{model} {is_fast}");
            assert!(bill.cost.is_none() || bill.multiplier == usd(multiplier), "{model} {is_fast}");
            let reserved = expected(&table, &service, 4_000_000, Some(0));
            assert_eq!(reserved, NanoUsd::from_usd(usd(usd_wanted)), "{model} {is_fast}");
        }
    }
}

#[test]
fn an_owner_may_have_them_served_without_a_hold() {
    let owner = |unpriced| OwnerConfig { unpriced, ..OwnerConfig::new(OWNER, chrono_tz::Tz::UTC) };
    for (unpriced, is_held) in [(Unpriced::Ceiling, true), (Unpriced::Refuse, true), (Unpriced::Serve, false)]
    {
        let table = with_owner(owner(unpriced));
        let service = service("gpt-4o-foo", None, None);
        let bill = bill(&table, &service, &million(1), false);
        assert_eq!((bill.cost, bill.unpriced), (None, Some(WhyUnpriced::NoPrice)));
        assert_eq!((bill.held.is_some(), bill.charge().is_some()), (is_held, is_held), "{unpriced:?}");
        assert_eq!(expected(&table, &service, 4, None).0 > 0, is_held, "{unpriced:?}");
    }
}

#[test]
fn a_reservation_is_for_the_same_price_as_the_bill() {
    let table = table(false);
    for (asked, multiplier, want) in [
        ("gpt-4o", "1", 2_000),
        ("gpt-4o", "0.5", 1_000),
        ("gpt-4o-foo", "1", 2_000),
        ("gpt-4o-foo", "3", 6_000),
        ("invented", "1", 2_000),
        ("painter", "1", 0),
        ("gift", "1", 0),
    ] {
        let service = Service { multiplier: usd(multiplier), ..service(asked, None, None) };
        assert_eq!(expected(&table, &service, 4, Some(0)), NanoUsd(want), "{asked} x {multiplier}");
    }
    let nothing = Builder::new(sealer()).snapshot().clone();
    assert_eq!(expected(&nothing, &service("m", None, None), 4, None), NanoUsd(0), "no table, no ceiling");
}

#[test]
fn a_hang_up_costs_the_input_in_the_classes_of_the_last_answer() {
    let last = TokenCounts { input: 50, cache_read: 900, cache_write_5m: 50, ..TokenCounts::default() };
    let (tokens, source) = hung_up(4_000, Classes::of(&last));
    let want = TokenCounts { input: 50, cache_read: 900, cache_write_5m: 50, ..TokenCounts::default() };
    assert_eq!((tokens, source), (want, UsageSource::Estimated));
    let (tokens, _) = hung_up(4_001, None);
    assert_eq!(tokens, TokenCounts { input: 1_001, ..TokenCounts::default() });
}
