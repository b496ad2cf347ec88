//! All users with their keys and what these used today.

use super::view::UserView;
use crate::api::actions::keys::{KeyView, revealed};
use crate::api::answer::{Envelope, Failures, Reply};
use crate::api::auth::Admin;
use crate::api::{Answer, Ask, Failure, State};
use crate::db::{Conn, keys, usage, users};
use crate::rules::form::form;
use crate::rules::time::{self, iso};
use crate::rules::{Exact, Refusal};
use actix_web::post;
use actix_web::web::Data;
use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::HashMap;

/// Most rows of a page.
const PAGE_MAX: i64 = 200;
/// Rows of a page when only its number is given.
const PAGE: i64 = 50;

form! {
    /// Without any field: all users.
    #[schema(example = json!({}))]
    pub struct GetUsers {
        /// Part of the name, the note or a tag. Also accepted as `query` and `keyword`.
        search_term: Option<String> = ["searchTerm", "query", "keyword"] {max_length = 200},
        /// The last id that was seen.
        cursor: Option<i64> = ["cursor"],
        /// Rows of a page, at most 200.
        limit: Option<i64> = ["limit", "pageSize"] {minimum = 1},
        /// Number of the page, from 1 on.
        page: Option<i64> = ["page"] {minimum = 0},
        /// Rows to skip.
        offset: Option<i64> = ["offset"] {minimum = 0},
    }
}

impl GetUsers {
    fn check(&self) -> Result<users::Page, Refusal> {
        let asked = self.limit.int(1..=i64::MAX)?.flatten();
        let number = self.page.int(0..=1_000_000_000)?.flatten();
        let after = self.cursor.int(0..=i64::MAX)?.flatten();
        let offset = self.offset.int(0..=1_000_000_000)?.flatten();
        let is_paged = number.is_some() || after.is_some() || offset.is_some();
        let limit = asked.or(is_paged.then_some(PAGE)).map(|limit| limit.min(PAGE_MAX));
        let skipped = number.unwrap_or(0).saturating_sub(1).max(0).saturating_mul(limit.unwrap_or(0));
        let search = self.search_term.text(200)?.flatten().filter(|text| !text.is_empty());
        Ok(users::Page { search, after, offset: offset.unwrap_or(skipped), limit })
    }
}

/// A user with its keys.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UserWithKeys {
    #[serde(flatten)]
    user: UserView,
    keys: Vec<UsedKey>,
}

/// A key with what it used today.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct UsedKey {
    #[serde(flatten)]
    pub key: KeyView,
    pub created_at_formatted: String,
    /// USD.
    #[schema(value_type = f64)]
    pub today_usage: Exact,
    pub today_call_count: i64,
    pub today_tokens: i64,
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    pub last_provider_name: Option<String>,
    pub model_stats: Vec<ModelStats>,
}

/// What a key used of a model today.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct ModelStats {
    pub model: String,
    pub call_count: i64,
    /// USD.
    #[schema(value_type = f64)]
    pub total_cost: Exact,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_creation_tokens: i64,
    pub cache_read_tokens: i64,
}

/// List users (admin)
#[utoipa::path(tag = "users", operation_id = "getUsers", request_body = GetUsers, responses(
    (status = 200, description = "The users", body = Envelope<Vec<UserWithKeys>>), Failures))]
#[post("/actions/users/getUsers")]
pub async fn get_users(admin: Admin, state: Data<State>, ask: Ask<GetUsers>) -> Reply<Vec<UserWithKeys>> {
    let page = ask.form.check()?;
    let owner = admin.0.owner;
    let mut conn = state.pool.read().await?;
    let users = users::list(&mut conn, owner, &page).await?;
    let ids: Vec<i64> = users.iter().map(|user| user.id).collect();
    let keys = keys::of_users(&mut conn, owner, &ids).await?;
    let key_ids: Vec<i64> = keys.iter().map(|key| key.id).collect();
    let mut used = Used::load(&mut conn, owner, &key_ids, state.settings.time_zone).await?;
    drop(conn);
    let mut by_user: HashMap<i64, Vec<UsedKey>> = HashMap::new();
    for key in keys {
        let user = key.user_id;
        let clear = revealed(&state, &key);
        by_user.entry(user).or_default().push(used.of(KeyView::new(key, clear), &state));
    }
    let with_keys = |user: users::User| {
        let keys = by_user.remove(&user.id).unwrap_or_default();
        UserWithKeys { user: user.into(), keys }
    };
    Ok(Answer::read(users.into_iter().map(with_keys).collect()))
}

/// What keys used.
struct Used {
    today: HashMap<i64, Vec<usage::KeyModel>>,
    last: HashMap<i64, usage::Last>,
    providers: HashMap<i64, String>,
}

impl Used {
    async fn load(conn: &mut Conn, owner: i64, keys: &[i64], zone: chrono_tz::Tz) -> Result<Self, Failure> {
        let since: DateTime<Utc> = time::today(Utc::now(), zone);
        let mut today: HashMap<i64, Vec<usage::KeyModel>> = HashMap::new();
        for row in usage::of_keys_since(conn, owner, keys, since).await? {
            today.entry(row.key_id).or_default().push(row);
        }
        let last = usage::last_of_keys(conn, keys).await?;
        let last: HashMap<i64, usage::Last> = last.into_iter().map(|last| (last.id, last)).collect();
        let mut ids: Vec<i64> = last.values().filter_map(|last| last.provider_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let providers = usage::provider_names(conn, owner, &ids).await?;
        Ok(Self { today, last, providers })
    }

    fn of(&mut self, key: KeyView, state: &State) -> UsedKey {
        let today = self.today.remove(&key.id).unwrap_or_default();
        let last = self.last.get(&key.id);
        let tokens = |row: &usage::KeyModel| {
            row.input_tokens + row.output_tokens + row.cache_write_tokens + row.cache_read_tokens
        };
        let cost: BigDecimal = today.iter().map(|row| &row.cost).sum();
        let created = key.made_at.with_timezone(&state.settings.time_zone);
        UsedKey {
            created_at_formatted: created.format("%Y-%m-%d %H:%M:%S").to_string(),
            today_usage: Exact::of(&cost),
            today_call_count: today.iter().map(|row| row.requests).sum(),
            today_tokens: today.iter().map(tokens).sum(),
            last_used_at: last.map(|last| iso(last.created_at)),
            last_provider_name: last.and_then(|last| self.providers.get(&last.provider_id?).cloned()),
            model_stats: today.into_iter().map(ModelStats::from).collect(),
            key,
        }
    }
}

impl From<usage::KeyModel> for ModelStats {
    fn from(row: usage::KeyModel) -> Self {
        Self {
            model: row.model,
            call_count: row.requests,
            total_cost: Exact::of(&row.cost),
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cache_creation_tokens: row.cache_write_tokens,
            cache_read_tokens: row.cache_read_tokens,
        }
    }
}
