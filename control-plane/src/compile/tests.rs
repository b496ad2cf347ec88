use super::*;
use crate::db::rows::{
    HealthRow, KeyLimits, KeyRow, PriceRow, ProviderLimits, ProviderRow, SettingRow, UserLimits, UserRow,
};
use chrono::{DateTime, Utc};
use contract::table::{AdaptiveThinking, Anthropic, CacheTtl, Codex, MatchType, Measure, Options, WordScope};
use contract::window::Window;
use proptest::prelude::*;
use serde_json::{Value, json};

fn sealer() -> Sealer {
    Sealer::from_hex(&"0f".repeat(32)).unwrap()
}

fn gone(is_gone: bool) -> Option<DateTime<Utc>> {
    is_gone.then_some(DateTime::UNIX_EPOCH)
}

fn user(id: i64, owner_id: i64, name: &str) -> UserRow {
    UserRow {
        id,
        owner_id,
        name: name.to_owned(),
        enabled: true,
        expires_at: None,
        groups: vec!["default".to_owned()],
        level: 0,
        rpm: Some(60),
        limits: UserLimits {
            limit_5h_usd: None,
            limit_5h_reset_mode: "rolling".to_owned(),
            limit_daily_usd: "5".parse().ok(),
            daily_reset_mode: "fixed".to_owned(),
            daily_reset_time: "09:30".to_owned(),
            limit_weekly_usd: None,
            limit_monthly_usd: None,
            limit_total_usd: None,
            limit_concurrent_sessions: None,
            cost_reset_at: None,
        },
        allowed_clients: vec![],
        blocked_clients: vec![],
        allowed_models: vec![],
        deleted_at: None,
    }
}

fn key(id: i64, user_id: i64, name: &str) -> KeyRow {
    KeyRow {
        id,
        user_id,
        name: name.to_owned(),
        hash: Sha256::digest(id.to_be_bytes()).to_vec(),
        enabled: true,
        expires_at: None,
        groups: vec![],
        limits: KeyLimits {
            limit_5h_usd: "1.25".parse().ok(),
            limit_5h_reset_mode: "fixed".to_owned(),
            limit_daily_usd: None,
            daily_reset_mode: "rolling".to_owned(),
            daily_reset_time: "00:00".to_owned(),
            limit_weekly_usd: None,
            limit_monthly_usd: None,
            limit_total_usd: None,
            limit_concurrent_sessions: 2,
            cost_reset_at: DateTime::from_timestamp_millis(77),
        },
        cache_ttl_preference: "1h".to_owned(),
        deleted_at: None,
    }
}

fn provider(id: i64, name: &str, redirects: Option<Value>) -> ProviderRow {
    ProviderRow {
        id,
        owner_id: 1,
        name: name.to_owned(),
        base_url: "https://api.example.com/v1".to_owned(),
        kind: "claude".to_owned(),
        credential: vec![1, 2, 3],
        enabled: true,
        weight: 1,
        priority: 0,
        group_priorities: Some(json!({"b": 2, "a": 1})),
        groups: vec![],
        level: 0,
        cost_multiplier: "1.5".parse().expect("decimal"),
        model_redirects: redirects,
        allowed_models: Some(json!(["m1", {"matchType": "prefix", "pattern": "m"}])),
        limits: ProviderLimits {
            limit_5h_usd: None,
            limit_5h_reset_mode: "rolling".to_owned(),
            limit_daily_usd: None,
            daily_reset_mode: "fixed".to_owned(),
            daily_reset_time: "00:00".to_owned(),
            limit_weekly_usd: "9".parse().ok(),
            limit_monthly_usd: None,
            limit_total_usd: "10".parse().ok(),
            limit_concurrent_sessions: 0,
            total_cost_reset_at: DateTime::from_timestamp_millis(5),
        },
        max_retry_attempts: Some(2),
        breaker_failure_threshold: 5,
        breaker_open_ms: 1_800_000,
        breaker_half_open_successes: 2,
        first_byte_timeout_ms: 0,
        idle_timeout_ms: 0,
        total_timeout_ms: 0,
        active_time_start: None,
        active_time_end: None,
        preserve_client_ip: false,
        disable_session_reuse: false,
        custom_headers: Some(json!({"X-Team": "a"})),
        allowed_clients: vec![],
        blocked_clients: vec!["curl".to_owned()],
        extra: json!({}),
        deleted_at: None,
    }
}

fn health(provider_id: i64, epoch: i64) -> HealthRow {
    HealthRow {
        provider_id,
        state: "open".to_owned(),
        until: None,
        reason: "failures".to_owned(),
        failures: 5,
        epoch,
    }
}

fn rows_of(sections: &Sections) -> Rows {
    let payload: Vec<u8> = sections.values().flat_map(|section| section.payload.clone()).collect();
    Rows::try_from(pb::Rows::decode(payload.as_slice()).expect("decode")).expect("valid")
}

/// One row of any table.
#[derive(Clone, Debug)]
enum Op {
    User(i64, i64, u8, bool),
    Key(i64, u8, bool),
    Provider(i64, u8, bool),
    Health(i64, i64),
    Price(u8, u8, bool),
    Billing(i64, u8),
}

impl Op {
    /// Two operations on the same row do not commute; only the last one counts.
    fn row(&self) -> (u8, i64) {
        match self {
            Self::User(id, ..) => (0, *id),
            Self::Key(id, ..) => (1, *id),
            Self::Provider(id, ..) => (2, *id),
            Self::Health(id, ..) => (3, *id),
            Self::Price(id, ..) => (4, i64::from(*id)),
            Self::Billing(id, ..) => (5, *id),
        }
    }

    fn add_to(&self, changes: &mut Changes) {
        match self.clone() {
            Self::User(id, owner, version, is_gone) => {
                changes
                    .users
                    .push(UserRow { deleted_at: gone(is_gone), ..user(id, owner, &format!("u{version}")) });
            }
            Self::Key(id, version, is_gone) => {
                let long = "k".repeat(usize::from(version) * 40);
                changes.keys.push(KeyRow { deleted_at: gone(is_gone), ..key(id, 1, &long) });
            }
            Self::Provider(id, version, is_gone) => {
                let redirects = [None, Some(json!({"a": "b"})), Some(json!([{"source": 7}]))]
                    [usize::from(version % 3)]
                .clone();
                changes
                    .providers
                    .push(ProviderRow { deleted_at: gone(is_gone), ..provider(id, "p", redirects) });
            }
            Self::Health(id, epoch) => changes.health.push(health(id, epoch)),
            Self::Price(id, version, is_gone) => changes.prices.push(PriceRow {
                id: id.into(),
                model_name: format!("model-{id}"),
                data: format!("{{\"input_cost_per_token\":\"0.00000{version}\"}}"),
                deleted_at: gone(is_gone),
            }),
            Self::Billing(owner_id, version) => {
                let value =
                    [json!("original"), json!("redirected"), json!(3)][usize::from(version % 3)].clone();
                let key = crate::db::rows::BILLING_MODEL.to_owned();
                changes.settings.push(SettingRow { owner_id, key, value, deleted_at: None });
            }
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1i64..40, 1i64..4, any::<u8>(), any::<bool>()).prop_map(|(i, o, v, g)| Op::User(i, o, v, g)),
        6 => (1i64..200, any::<u8>(), prop::bool::weighted(0.3)).prop_map(|(i, v, g)| Op::Key(i, v, g)),
        2 => (1i64..6, any::<u8>(), any::<bool>()).prop_map(|(i, v, g)| Op::Provider(i, v, g)),
        1 => (1i64..6, 1i64..9).prop_map(|(i, e)| Op::Health(i, e)),
        1 => (1u8..6, 1u8..9, any::<bool>()).prop_map(|(i, v, g)| Op::Price(i, v, g)),
        1 => (1i64..4, any::<u8>()).prop_map(|(i, v)| Op::Billing(i, v)),
    ]
}

fn changes(ops: &[Op]) -> Changes {
    let mut changes = Changes::default();
    ops.iter().for_each(|op| op.add_to(&mut changes));
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Steps and order do not matter, and a section that did not change keeps its version.
    #[test]
    fn incremental_equals_full(steps in prop::collection::vec(prop::collection::vec(op(), 0..40), 1..8), seed in any::<u64>()) {
        let mut stepwise = Inputs::new(Tz::UTC, sealer());
        let mut last: BTreeMap<(u8, i64), Op> = BTreeMap::new();
        for step in &steps {
            stepwise.apply(changes(step));
            let sections = stepwise.sections().clone();
            prop_assert_eq!(&sections, &compile(&stepwise).0);
            last.extend(step.iter().map(|op| (op.row(), op.clone())));
        }
        let mut ops: Vec<Op> = last.into_values().collect();
        let turn = usize::try_from(seed % (ops.len().max(1) as u64)).unwrap_or_default();
        ops.rotate_left(turn);
        ops.reverse();
        let mut at_once = Inputs::new(Tz::UTC, sealer());
        at_once.apply(changes(&ops));
        prop_assert_eq!(compile(&at_once).0, stepwise.sections().clone());
        prop_assert_eq!(at_once.problems(), stepwise.problems());
    }
}

#[test]
fn only_touched_sections_change() {
    let mut inputs = Inputs::new(Tz::UTC, sealer());
    let keys: Vec<KeyRow> = (1..=5_000).map(|id| key(id, 1, "name")).collect();
    inputs.apply(Changes { users: vec![user(1, 1, "a")], keys, ..Changes::default() });
    let before = inputs.sections().clone();
    let shards: Vec<_> = before.keys().filter(|name| name.starts_with("keys/")).collect();
    assert!(shards.len() >= 8 && shards.len().is_power_of_two(), "{shards:?}");
    assert!(before.values().all(|section| section.payload.len() < 32 * 1024));
    assert!(before.contains_key("keys/f") && before.contains_key("users/0"), "{shards:?}");

    inputs.apply(Changes {
        keys: vec![KeyRow { deleted_at: gone(true), ..key(17, 1, "name") }],
        ..Changes::default()
    });
    let after = inputs.sections().clone();
    let changed: Vec<_> = after.iter().filter(|(name, section)| before.get(*name) != Some(section)).collect();
    assert_eq!(changed.len(), 1);
    let home = hex::encode(Sha256::digest(17i64.to_be_bytes()));
    assert!(changed[0].0.starts_with("keys/"), "{}", changed[0].0);
    assert_eq!(&changed[0].0[5..6], &home[0..1]);
    assert!(!rows_of(&after).keys.iter().any(|key| key.id.0 == 17));
}

#[test]
fn rows_become_what_a_proxy_needs() {
    let mut inputs = Inputs::new(chrono_tz::Europe::Berlin, sealer());
    inputs.apply(Changes {
        users: vec![user(7, 1, "ann")],
        keys: vec![key(3, 7, "laptop")],
        providers: vec![provider(
            2,
            "p",
            Some(json!([{"matchType": "prefix", "source": "claude", "target": "glm"}])),
        )],
        ..Changes::default()
    });
    let rows = rows_of(inputs.sections());
    let limits: Vec<_> =
        rows.users[0].limits.iter().map(|limit| (limit.measure, limit.window, limit.amount)).collect();
    assert_eq!(
        limits,
        [
            (Measure::Requests, Window::Minute, 60),
            (Measure::Usd, Window::Day { reset_minute: 570 }, 5_000_000_000)
        ]
    );
    let key = &rows.keys[0];
    assert_eq!(key.cache_ttl, Some(contract::table::CacheTtl::Hour1));
    let limits: Vec<_> =
        key.limits.iter().map(|limit| (limit.window, limit.amount, limit.since_ms)).collect();
    assert_eq!(limits, [(Window::FiveHoursFixed, 1_250_000_000, Some(77)), (Window::Concurrent, 2, None)]);
    let mut provider = rows.providers[0].clone();
    assert!(provider.base_url.is_empty() && provider.custom_headers.is_empty(), "they travel sealed");
    contract::private::open(&mut provider, &sealer()).expect("opens");
    assert_eq!(provider.base_url, "https://api.example.com/v1");
    assert_eq!(provider.redirects[0].match_type, MatchType::Prefix);
    assert_eq!(provider.redirects[0].target.as_deref(), Some("glm"));
    assert_eq!(provider.allowed_models.len(), 2);
    assert_eq!(provider.custom_headers.get("x-team").map(String::as_str), Some("a"));
    let since: Vec<_> = provider.limits.iter().map(|limit| (limit.window, limit.since_ms)).collect();
    assert_eq!(since, [(Window::Week, None), (Window::Total, Some(5))]);
    assert_eq!(rows.owners[0].time_zone, chrono_tz::Europe::Berlin);
    assert!(inputs.problems().is_empty());
}

#[test]
fn settings_of_an_owner_lie_over_the_defaults() {
    let mut inputs = Inputs::new(Tz::UTC, sealer()).with_unpriced(Unpriced::Serve);
    let plain = OwnerConfig { unpriced: Unpriced::Serve, ..OwnerConfig::new(UserId(ROOT), Tz::UTC) };
    let set = |owner_id, key: &str, value: Value| SettingRow {
        owner_id,
        key: key.to_owned(),
        value,
        deleted_at: None,
    };
    let mut owner = |settings: Vec<SettingRow>| {
        inputs.apply(Changes { settings, users: vec![user(2, 2, "b")], ..Changes::default() });
        (rows_of(inputs.sections()).owners, inputs.problems())
    };
    let other = OwnerConfig { owner_id: UserId(2), ..plain.clone() };
    assert_eq!(owner(vec![]), (vec![plain.clone(), other.clone()], vec![]));
    let all = vec![
        set(ROOT, "upstreamResources", json!(true)),
        set(ROOT, "billingModelSource", json!("redirected")),
        set(ROOT, "unpriced", json!("refuse")),
        set(ROOT, "wordScope", json!("all")),
    ];
    let every = OwnerConfig {
        bill_redirected: true,
        upstream_resources: true,
        unpriced: Unpriced::Refuse,
        word_scope: WordScope::All,
        ..plain.clone()
    };
    assert_eq!(owner(all).0, [every.clone(), other.clone()]);
    // Two broken settings are two problems; each falls back by itself.
    let broken = vec![set(ROOT, "unpriced", json!("free")), set(ROOT, "upstreamResources", json!("yes"))];
    let (owners, problems) = owner(broken);
    let back = OwnerConfig { upstream_resources: false, unpriced: Unpriced::Serve, ..every.clone() };
    assert_eq!(owners, [back, other.clone()]);
    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["unpriced", "upstreamResources"]);
    let gone = SettingRow { deleted_at: gone(true), ..set(ROOT, "unpriced", json!("free")) };
    let (owners, problems) = owner(vec![gone, set(ROOT, "upstreamResources", json!(true))]);
    assert_eq!(owners, [OwnerConfig { unpriced: Unpriced::Serve, ..every }, other]);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn further_fields_become_options() {
    let text = |text: &str| Some(text.to_owned());
    let models = AdaptiveThinking { effort: "high".to_owned(), models: Some(vec!["claude-opus".to_owned()]) };
    let full = Options {
        proxy_url: text("socks5://127.0.0.1:1080"),
        proxy_fallback_to_direct: true,
        mcp_passthrough: text("glm"),
        mcp_passthrough_url: text("https://mcp.example"),
        swap_cache_ttl_billing: true,
        cache_ttl: Some(CacheTtl::Minutes5),
        context_1m: Some(true),
        codex: Codex {
            reasoning_effort: text("high"),
            reasoning_summary: text("auto"),
            text_verbosity: text("low"),
            parallel_tool_calls: Some(false),
            service_tier: text("flex"),
            image_generation: Some(false),
            instructions: text("auto"),
        },
        anthropic: Anthropic {
            max_tokens: Some(4000),
            thinking_budget: Some(2000),
            adaptive_thinking: Some(models),
        },
        gemini_google_search: Some(true),
    };
    let everything = json!({
        "proxyUrl": "socks5://127.0.0.1:1080", "proxyFallbackToDirect": true,
        "mcpPassthroughType": "glm", "mcpPassthroughUrl": "https://mcp.example", "swapCacheTtlBilling": true,
        "cacheTtlPreference": "5m", "context1mPreference": "force_enable",
        "codexReasoningEffortPreference": "high", "codexReasoningSummaryPreference": "auto",
        "codexTextVerbosityPreference": "low", "codexParallelToolCallsPreference": "false",
        "codexServiceTierPreference": "flex", "codexImageGenerationPreference": "disabled",
        "codexInstructionsStrategy": "auto", "anthropicMaxTokensPreference": 4000,
        "anthropicThinkingBudgetPreference": "2000", "geminiGoogleSearchPreference": "enabled",
        "anthropicAdaptiveThinking":
            {"effort": "high", "modelMatchMode": "specific", "models": ["claude-opus"]},
        "websiteUrl": "https://shown.example", "tpm": 7,
    });
    let shown = json!({"websiteUrl": "https://shown.example", "faviconUrl": "https://i", "tpm": 7, "rpm": 7,
        "rpd": 7, "cc": 7, "mcpPassthroughType": "none", "cacheTtlPreference": "inherit",
        "context1mPreference": "inherit", "anthropicMaxTokensPreference": "inherit",
        "proxyFallbackToDirect": false, "codexServiceTierPreference": "inherit"});
    for (extra, options) in [(everything, Some(Box::new(full))), (shown, None), (json!({}), None)] {
        let mut inputs = Inputs::new(Tz::UTC, sealer());
        let row = ProviderRow { extra, ..provider(2, "p", None) };
        inputs.apply(Changes { providers: vec![row], ..Changes::default() });
        let rows = rows_of(inputs.sections());
        assert_eq!(rows.providers[0].options, options);
        assert_eq!(rows.providers[0].blocked_clients, ["curl"]);
    }
}

#[test]
fn a_broken_price_tells_proxies_to_keep_what_they_have() {
    let row =
        |data: &str| PriceRow { id: 4, model_name: "m".to_owned(), data: data.to_owned(), deleted_at: None };
    let (good, broken) = (r#"{"input_cost_per_token":"1"}"#, r#"{"input_cost_per_token":"canary"}"#);
    let mut inputs = Inputs::new(Tz::UTC, sealer());
    let mut apply = |row| {
        inputs.apply(Changes { prices: vec![row], ..Changes::default() });
        let payload = inputs.sections().get("prices").map(|section| section.payload.clone());
        let prices = payload.map(|payload| pb::Rows::decode(payload).expect("decode").prices);
        let problems = inputs.problems();
        let problem = problems.first().map(|problem| (problem.kind, problem.field.clone()));
        (prices.unwrap_or_default(), problem)
    };
    assert_eq!(apply(row(good)).0[0].input.as_deref(), Some("1"));
    // Whether it was good before or not: every replica compiles the same.
    let (prices, problem) = apply(row(broken));
    let unreadable = pb::Price { model: "m".to_owned(), unreadable: true, ..pb::Price::default() };
    assert_eq!(prices, [unreadable]);
    assert_eq!(problem, Some(("price", "data.input_cost_per_token".to_owned())));
    let (prices, problem) = apply(PriceRow { deleted_at: Some(chrono::Utc::now()), ..row(broken) });
    assert_eq!((prices.len(), problem), (0, None));
}

type Spoil = fn(&mut ProviderRow);

#[test]
fn a_broken_row_is_left_out_and_named() {
    let breaks: [(&str, Spoil); 16] = [
        ("kind", |row| row.kind = "gopher".to_owned()),
        ("base_url", |row| row.base_url = "abc".to_owned()),
        ("base_url", |row| row.base_url = "file:///etc/passwd".to_owned()),
        ("weight", |row| row.weight = -1),
        ("model_redirects[0]", |row| row.model_redirects = Some(json!([{"source": "a"}]))),
        ("model_redirects", |row| row.model_redirects = Some(json!("a"))),
        ("allowed_models[0]", |row| {
            row.allowed_models = Some(json!([{"matchType": "regex", "pattern": "("}]))
        }),
        ("custom_headers", |row| row.custom_headers = Some(json!({"Authorization": "x"}))),
        ("custom_headers", |row| row.custom_headers = Some(json!({"a": "b\r\nc"}))),
        ("active_time_start", |row| row.active_time_start = Some("01:00".to_owned())),
        ("daily_reset_time", |row| row.limits.daily_reset_time = "25:00".to_owned()),
        ("proxyUrl", |row| row.extra = json!({"proxyUrl": "ftp://h"})),
        ("proxyUrl", |row| row.extra = json!({"proxyUrl": "http://user:pw@h"})),
        ("context1mPreference", |row| row.extra = json!({"context1mPreference": "maybe"})),
        ("anthropicMaxTokensPreference", |row| row.extra = json!({"anthropicMaxTokensPreference": -1})),
        ("anthropicAdaptiveThinking", |row| row.extra = json!({"anthropicAdaptiveThinking": {}})),
    ];
    for (field, spoil) in breaks {
        let mut broken = provider(2, "canary-name", None);
        spoil(&mut broken);
        let mut inputs = Inputs::new(Tz::UTC, sealer());
        let good = provider(1, "good", None);
        inputs.apply(Changes {
            providers: vec![good, broken],
            health: vec![health(2, 1)],
            ..Changes::default()
        });
        let rows = rows_of(inputs.sections());
        assert_eq!(rows.providers.len(), 1, "{field}");
        assert!(rows.health.is_empty(), "health of a provider that is not there");
        let problems = inputs.problems();
        assert_eq!(problems.len(), 1, "{field}");
        assert_eq!((problems[0].kind, problems[0].id, problems[0].field.as_str()), ("provider", 2, field));
        inputs.apply(Changes { providers: vec![provider(2, "mended", None)], ..Changes::default() });
        assert_eq!(rows_of(inputs.sections()).health.len(), 1, "{field}");
        assert!(inputs.problems().is_empty(), "{field}");
    }
}
