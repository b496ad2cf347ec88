//! What the compiler reads: the columns that matter to a proxy, of the rows that are newer than a generation,
//! in one read-only snapshot.

use super::generation::{counter_naming, current};
use super::schema::{keys, prices, provider_health, providers, sensitive_words, settings, users};
use super::{Conn, Error};
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use contract::ids::Generation;
use contract::table::CounterNaming;
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::RunQueryDsl;
use serde_json::Value;

/// The account that owns everything that is not a tenant's, and the default price table.
pub const ROOT: i64 = 1;

/// The config key that says by which model's price a redirected request is billed.
pub const BILLING_MODEL: &str = "billingModelSource";
/// The config keys that matter to a proxy.
pub const SETTINGS: [&str; 4] = [BILLING_MODEL, "upstreamResources", "unpriced", "wordScope"];

type Time = Option<DateTime<Utc>>;
type Usd = Option<BigDecimal>;

/// A user.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
pub struct UserRow {
    pub id: i64,
    pub owner_id: i64,
    pub name: String,
    pub enabled: bool,
    pub expires_at: Time,
    pub groups: Vec<String>,
    pub level: i32,
    pub rpm: Option<i32>,
    #[diesel(embed)]
    pub limits: UserLimits,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    pub allowed_models: Vec<String>,
    pub deleted_at: Time,
}

/// A key.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = keys, check_for_backend(Pg))]
pub struct KeyRow {
    pub id: i64,
    pub user_id: i64,
    pub name: String,
    pub hash: Vec<u8>,
    pub enabled: bool,
    pub expires_at: Time,
    pub groups: Vec<String>,
    #[diesel(embed)]
    pub limits: KeyLimits,
    pub cache_ttl_preference: String,
    pub deleted_at: Time,
}

/// A provider.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = providers, check_for_backend(Pg))]
pub struct ProviderRow {
    pub id: i64,
    pub owner_id: i64,
    pub name: String,
    pub base_url: String,
    pub kind: String,
    pub credential: Vec<u8>,
    pub enabled: bool,
    pub weight: i32,
    pub priority: i32,
    pub group_priorities: Option<Value>,
    pub groups: Vec<String>,
    pub level: i32,
    pub cost_multiplier: BigDecimal,
    pub model_redirects: Option<Value>,
    pub allowed_models: Option<Value>,
    #[diesel(embed)]
    pub limits: ProviderLimits,
    pub max_retry_attempts: Option<i32>,
    pub breaker_failure_threshold: i32,
    pub breaker_open_ms: i64,
    pub breaker_half_open_successes: i32,
    pub first_byte_timeout_ms: i32,
    pub idle_timeout_ms: i32,
    pub total_timeout_ms: i32,
    pub active_time_start: Option<String>,
    pub active_time_end: Option<String>,
    pub preserve_client_ip: bool,
    pub disable_session_reuse: bool,
    pub custom_headers: Option<Value>,
    pub allowed_clients: Vec<String>,
    pub blocked_clients: Vec<String>,
    pub extra: Value,
    pub deleted_at: Time,
}

/// The limit columns, which users, keys and providers share but for two of them.
macro_rules! limits {
    ($name:ident, $table:ident, $reset:ident, $sessions:ty) => {
        #[expect(missing_docs, reason = "the migration carries the documentation")]
        #[derive(Clone, Debug, Queryable, Selectable)]
        #[diesel(table_name = $table, check_for_backend(Pg))]
        pub struct $name {
            pub limit_5h_usd: Usd,
            pub limit_5h_reset_mode: String,
            pub limit_daily_usd: Usd,
            pub daily_reset_mode: String,
            pub daily_reset_time: String,
            pub limit_weekly_usd: Usd,
            pub limit_monthly_usd: Usd,
            pub limit_total_usd: Usd,
            pub limit_concurrent_sessions: $sessions,
            pub $reset: Time,
        }
    };
}
limits!(UserLimits, users, cost_reset_at, Option<i32>);
limits!(KeyLimits, keys, cost_reset_at, i32);
limits!(ProviderLimits, providers, total_cost_reset_at, i32);

/// A provider's health.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = provider_health, check_for_backend(Pg))]
pub struct HealthRow {
    pub provider_id: i64,
    pub state: String,
    pub until: Time,
    pub reason: String,
    pub failures: i32,
    pub epoch: i64,
}

/// A setting of an owner.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = settings, check_for_backend(Pg))]
pub struct SettingRow {
    pub owner_id: i64,
    pub key: String,
    pub value: Value,
    pub deleted_at: Time,
}

/// A price; `data` is JSON text, because its numbers must not pass through floating point.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable)]
pub struct PriceRow {
    pub id: i64,
    pub model_name: String,
    pub data: String,
    pub deleted_at: Time,
}

/// A sensitive word.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = sensitive_words, check_for_backend(Pg))]
pub struct WordRow {
    pub id: i64,
    pub owner_id: i64,
    pub word: String,
    pub match_type: String,
    pub enabled: bool,
    pub deleted_at: Time,
}

/// Everything that changed between two generations.
#[expect(missing_docs, reason = "one list per table")]
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub generation: i64,
    pub counter_naming: CounterNaming,
    pub users: Vec<UserRow>,
    pub keys: Vec<KeyRow>,
    pub providers: Vec<ProviderRow>,
    pub health: Vec<HealthRow>,
    pub settings: Vec<SettingRow>,
    pub prices: Vec<PriceRow>,
    pub words: Vec<WordRow>,
}

impl Changes {
    /// Whether something was taken away from a caller: that does not wait for more changes.
    pub fn revokes(&self) -> bool {
        let now = Utc::now();
        let over = |at: Time| at.is_some_and(|at| at <= now);
        self.keys.iter().any(|key| !key.enabled || key.deleted_at.is_some() || over(key.expires_at))
            || self
                .users
                .iter()
                .any(|user| !user.enabled || user.deleted_at.is_some() || over(user.expires_at))
            || self.providers.iter().any(|provider| !provider.enabled || provider.deleted_at.is_some())
    }
}

/// The rows that changed after `last`; with 0 all rows that are not deleted.
pub async fn changed_since(conn: &mut Conn, last: Generation) -> Result<Changes, Error> {
    let mut snapshot = conn.build_transaction().repeatable_read().read_only();
    snapshot.run(async |conn| read_in_tx(conn, last.0).await).await
}

async fn read_in_tx(conn: &mut Conn, last: i64) -> Result<Changes, Error> {
    // The first statement takes the snapshot that all others see.
    let generation = current(conn).await?.0;
    macro_rules! newer {
        ($table:ident, $row:ty) => {
            $table::table
                .filter($table::generation.gt(last))
                .filter(sql::<Bool>(if last == 0 { "deleted_at IS NULL" } else { "TRUE" }))
                .select(<$row>::as_select())
                .load(conn)
                .await?
        };
    }
    Ok(Changes {
        generation,
        counter_naming: counter_naming(conn).await?,
        users: newer!(users, UserRow),
        keys: newer!(keys, KeyRow),
        providers: newer!(providers, ProviderRow),
        health: provider_health::table
            .filter(provider_health::generation.gt(last))
            .select(HealthRow::as_select())
            .load(conn)
            .await?,
        settings: settings::table
            .filter(settings::generation.gt(last))
            .filter(settings::key.eq_any(SETTINGS))
            .select(SettingRow::as_select())
            .load(conn)
            .await?,
        prices: prices::table
            .filter(prices::generation.gt(last))
            .filter(prices::owner_id.eq(ROOT))
            .select((prices::id, prices::model_name, sql::<Text>("data::text"), prices::deleted_at))
            .load(conn)
            .await?,
        words: newer!(sensitive_words, WordRow),
    })
}
