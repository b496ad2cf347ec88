use super::*;
use contract::usage::TokenCounts;
use proptest::prelude::*;
use rust_decimal::Decimal;

fn per_request(usd: i64) -> Price {
    Price { per_request: Some(usd.into()), ..Price::default() }
}

fn table(names: &[&str]) -> Prices {
    let rows: Vec<Price> = (0..names.len()).map(|at| per_request(at as i64)).collect();
    Prices::new(names.iter().copied().zip(&rows))
}

#[test]
fn many_spellings_one_price() {
    let names = [
        "gpt-4o",
        "gpt-4o-2024-05-13",
        "claude-x-20240101",
        "claude-x-20250202",
        "v/own",
        "o1",
        "MiniMax-M2",
        "deepseek-r1",
        "deepseek-r1:free",
        "Twin-1",
        "twin-1",
        "Loud-20250101",
    ];
    let prices = table(&names);
    let cases = [
        ("gpt-4o", Some("gpt-4o")),
        ("gpt-4o-2024-05-13", Some("gpt-4o-2024-05-13")),
        ("gpt-4o-2024-08-06", Some("gpt-4o")),
        ("openai/gpt-4o", Some("gpt-4o")),
        ("openrouter/openai/gpt-4o-latest", Some("gpt-4o")),
        ("us.claude-x-20240101", Some("claude-x-20240101")),
        ("claude-x-latest", Some("claude-x-20250202")),
        ("claude-x", Some("claude-x-20250202")),
        ("claude-x-20990101", Some("claude-x-20250202")),
        ("v/own", Some("v/own")),
        ("own", None),
        ("o1-mini", None),
        ("-20250101", None),
        ("é-2025010", None),
        ("", None),
        // Without regard to case.
        ("GPT-4o", Some("gpt-4o")),
        ("Gpt-4O-2024-05-13", Some("gpt-4o-2024-05-13")),
        ("OpenAI/GPT-4o", Some("gpt-4o")),
        ("minimax-m2", Some("MiniMax-M2")),
        ("MINIMAX/MINIMAX-M2", Some("MiniMax-M2")),
        ("US.Claude-X", Some("claude-x-20250202")),
        ("loud", Some("Loud-20250101")),
        ("Twin-1", Some("Twin-1")),
        ("TWIN-1", Some("twin-1")),
        // Without what follows the last colon, unless that has a row of its own.
        ("openai/gpt-4o:nitro", Some("gpt-4o")),
        ("openai/gpt-4o:free", Some("gpt-4o")),
        ("GPT-4o-2024-08-06:Floor", Some("gpt-4o")),
        ("deepseek/deepseek-r1:free", Some("deepseek-r1:free")),
        ("deepseek/deepseek-r1:online", Some("deepseek-r1")),
        ("gpt-4o:a:b", None),
        (":", None),
        ("gpt-4o:", Some("gpt-4o")),
    ];
    for (model, want) in cases {
        let got = prices.find(model).map(|(name, price)| (name, price.per_request));
        let row = |name| names.iter().position(|n| *n == name).map(Into::into);
        assert_eq!(got, want.map(|name| (name, row(name))), "{model}");
    }
    let long = format!("{}gpt-4o", "v".repeat(MAX_NAME));
    assert_eq!(prices.find(&long), None, "longer than any name");
    assert!(prices.ceiling(&long).is_none());
}

#[test]
fn an_empty_row_hides_no_other_and_a_zero_is_a_price() {
    let (empty, zero, full) = (Price::default(), per_request(0), per_request(7));
    let image = Price { other_unit: true, ..Price::default() };
    let rows = [("openai/gpt-4o", &empty), ("gpt-4o", &full), ("gift", &zero), ("painter", &image)];
    let prices = Prices::new(rows.into_iter());
    assert_eq!(prices.find("openai/gpt-4o").map(|(name, _)| name), Some("gpt-4o"));
    assert_eq!(prices.find("gift"), Some(("gift", &zero)));
    assert_eq!(prices.find("painter"), Some(("painter", &image)));
    let mut models: Vec<&str> = prices.models().collect();
    models.sort_unstable();
    assert_eq!((models, prices.len()), (vec!["gift", "gpt-4o"], 4));
}

#[test]
fn the_longest_shared_beginning_decides() {
    let names = ["cheap-1", "gpt-4", "gpt-5", "gpt-5-mini", "gpt-5-pro-max", "claude-opus-4", "azure/Gpt-6"];
    let prices = table(&names);
    let cases = [
        // Itself counts among those that its name begins: `gpt-5-foo` is no cheaper than `gpt-5`.
        ("gpt-5-foo", Some(4)),
        ("gpt-5-pro-foo", Some(4)),
        ("gpt-5-mini-foo", Some(3)),
        ("gpt-foo", Some(6)),
        ("gpt-4-foo", Some(1)),
        ("openai/GPT-4-foo:nitro", Some(1)),
        ("gpt-6-foo", Some(6)),
        ("us.claude-opus-5", Some(5)),
        ("claude-sonnet-5", Some(5)),
        ("gpt", None),
        ("foo", None),
        ("foo-bar", None),
        ("-", None),
        ("", None),
    ];
    for (model, want) in cases {
        let got = prices.ceiling(model).map(|price| price.per_request);
        assert_eq!(got, want.map(|usd: i64| Some(usd.into())), "{model}");
    }
    let of_kind = |kind| prices.ceiling_of_kind(kind).and_then(|price| price.per_request);
    assert_eq!(of_kind(ProviderKind::Claude), Some(5.into()));
    assert_eq!(of_kind(ProviderKind::Codex), Some(6.into()));
    assert_eq!(of_kind(ProviderKind::Gemini), Some(6.into()), "none of its kind: the dearest of all");
    assert_eq!(table(&[]).ceiling_of_kind(ProviderKind::Codex), None);
    let image = Price { other_unit: true, ..Price::default() };
    assert!(Prices::new([("dall-e", &image)].into_iter()).ceiling("dall-f").is_none());
}

fn price() -> impl Strategy<Value = Price> {
    let usd = || prop::option::of((0i64..50).prop_map(|nano| Decimal::new(nano, 9)));
    (usd(), usd(), usd(), usd()).prop_map(|(input, output, cache_read, reasoning)| Price {
        input,
        output,
        cache_read,
        reasoning,
        ..Price::default()
    })
}

proptest! {
    #[test]
    fn a_ceiling_is_never_below_any_siblings_price(
        rows in prop::collection::btree_map("(v/)?[ab]{1}(-[abC]{1}){0,3}", price(), 1..12),
        model in "[ab]{1}(-[abc]{1}){0,3}-z",
        counts in (0u64..900, 0u64..900, 0u64..900),
    ) {
        let prices = Prices::new(rows.iter().map(|(model, price)| (model.as_str(), price)));
        let family = |model: &str| model[..=model.rfind('-').unwrap_or(0)].to_owned();
        let bare = |row: &str| format!("{}-", row.trim_start_matches("v/").to_lowercase());
        let mut beginning = family(&model);
        let siblings = loop {
            let inside = |(row, price): &(&String, &Price)| bare(row).starts_with(&beginning) && price.is_priced();
            let found: Vec<_> = rows.iter().filter(inside).collect();
            if !found.is_empty() || !beginning.trim_end_matches('-').contains('-') {
                break found;
            }
            beginning = family(beginning.trim_end_matches('-'));
        };
        let (input, output, cache_read) = counts;
        let tokens = TokenCounts { input, output, cache_read, reasoning: output / 2, ..TokenCounts::default() };
        let cost = |price: &Price| price.cost(&tokens, Decimal::ONE, false).total;
        let ceiling = prices.ceiling(&model);
        prop_assert_eq!(ceiling.is_some(), !siblings.is_empty());
        let kind = prices.ceiling_of_kind(ProviderKind::Codex);
        for (row, price) in siblings {
            prop_assert!(ceiling.map(cost) >= Some(cost(price)), "{} {}", model, row);
            prop_assert!(kind.map(cost) >= Some(cost(price)), "{} {}", model, row);
        }
    }
}
