//! Which records: the conditions that the ledger and the sums beside it have in common, as SQL with its values.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{BigInt, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

/// Which records. Every filter that is set must hold.
#[expect(missing_docs, reason = "named like the columns")]
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub owner: i64,
    pub user: Option<i64>,
    pub key: Option<i64>,
    pub provider: Option<i64>,
    /// Asked for or sent upstream.
    pub model: Option<String>,
    pub endpoint: Option<String>,
    pub status: Option<i16>,
    pub exclude_200: bool,
    pub min_retries: Option<i16>,
    pub session: Option<String>,
    /// Also calls that do no work of their own, such as token counting.
    pub with_quiet: bool,
    /// Without what a content rule refused.
    pub exclude_blocked: bool,
    pub from: Option<DateTime<Utc>>,
    /// Excluded.
    pub until: Option<DateTime<Utc>>,
}

/// Requests that do no work of their own; shown when they are asked for by their endpoint.
pub(super) const NOT_QUIET: &str =
    r"endpoint NOT LIKE '%/count\_tokens' AND endpoint NOT LIKE '%/responses/compact'";

/// A statement that grows, with the values of its parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Id(i64),
    Small(i16),
    Text(String),
    Time(DateTime<Utc>),
    Uuid(Uuid),
}

/// Which of a record's two models a condition is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    /// Either.
    Any,
    /// The one that was asked for.
    Asked,
    /// Only the one that was sent upstream.
    Upstream,
}

impl Sql {
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// ` AND <left> <the parameter>`.
    pub(super) fn and(&mut self, left: &str, value: Value) {
        let place = self.place(value);
        self.push(&format!(" AND {left} {place}"));
    }

    /// The name of a parameter with this value.
    pub(super) fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    pub(super) fn query(self) -> BoxedSqlQuery<'static, Pg, SqlQuery> {
        self.values.into_iter().fold(diesel::sql_query(self.text).into_boxed::<Pg>(), |query, value| {
            match value {
                Value::Id(id) => query.bind::<BigInt, _>(id),
                Value::Small(number) => query.bind::<SmallInt, _>(number),
                Value::Text(text) => query.bind::<Text, _>(text),
                Value::Time(at) => query.bind::<Timestamptz, _>(at),
                Value::Uuid(id) => query.bind::<SqlUuid, _>(id),
            }
        })
    }
}

impl Filter {
    /// Everything but the time, as ` owner_id = .. AND ..`. Columns that the sums do not have are asked for only
    /// where the filter names them.
    pub(super) fn conditions(&self, sql: &mut Sql, named: Named, blocked: &str) {
        let owner = sql.place(Value::Id(self.owner));
        sql.push(&format!(" owner_id = {owner}"));
        for (column, id) in
            [("user_id =", self.user), ("key_id =", self.key), ("provider_id =", self.provider)]
        {
            if let Some(id) = id {
                sql.and(column, Value::Id(id));
            }
        }
        if let Some(model) = &self.model {
            let place = sql.place(Value::Text(model.clone()));
            sql.push(&match named {
                Named::Any => format!(" AND (model = {place} OR upstream_model = {place})"),
                Named::Asked => format!(" AND model = {place}"),
                Named::Upstream => format!(" AND upstream_model = {place} AND upstream_model <> model"),
            });
        }
        match &self.endpoint {
            Some(endpoint) => sql.and("endpoint =", Value::Text(endpoint.clone())),
            None if self.with_quiet => {}
            None => sql.push(&format!(" AND {NOT_QUIET}")),
        }
        if let Some(status) = self.status {
            sql.and("status =", Value::Small(status));
        }
        // In these words the partial indexes know it.
        if self.exclude_200 || self.status.is_some_and(|status| status != 200) {
            sql.push(" AND status <> 200");
        }
        if let Some(retries) = self.min_retries.filter(|retries| *retries > 0) {
            sql.push(" AND retry_count > 0");
            sql.and("retry_count >=", Value::Small(retries));
        }
        if let Some(session) = &self.session {
            sql.and("session_id =", Value::Text(session.clone()));
        }
        if self.exclude_blocked {
            sql.push(&format!(" AND {blocked}"));
        }
    }

    /// Conditions on the ledger, the time included.
    pub(super) fn on_ledger(&self, sql: &mut Sql, named: Named) {
        self.conditions(sql, named, "blocked_by IS NULL");
        self.time(sql, "created_at");
    }

    fn time(&self, sql: &mut Sql, column: &str) {
        if let Some(from) = self.from {
            sql.and(&format!("{column} >="), Value::Time(from));
        }
        if let Some(until) = self.until {
            sql.and(&format!("{column} <"), Value::Time(until));
        }
    }

    /// Whether no single index of the ledger leads to its records in order.
    pub(super) fn is_mixed(&self) -> bool {
        let has_more = match self.facet() {
            None => true,
            Some(facet) => self.is_of_caller() && facet != "all",
        };
        has_more && self.session.is_none()
    }

    /// The one dimension besides callers that the filter is about, as the margins name it; `all` if there is none,
    /// `None` if there are several.
    pub(super) fn facet(&self) -> Option<&'static str> {
        let named = [
            ("provider", self.provider.is_some()),
            ("model", self.model.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("status", self.status.is_some() || self.exclude_200),
            ("retries", self.min_retries.is_some_and(|retries| retries > 0)),
        ];
        let mut named = named.into_iter().filter_map(|(name, is_set)| is_set.then_some(name));
        match (named.next(), named.next()) {
            (facet, None) => Some(facet.unwrap_or("all")),
            _ => None,
        }
    }

    /// Conditions on the margins of a [`Filter::facet`], the time included.
    pub(super) fn on_margins(&self, sql: &mut Sql, facet: &str) {
        let owner = sql.place(Value::Id(self.owner));
        sql.push(&format!(" owner_id = {owner} AND facet = '{facet}'"));
        let value = match facet {
            "provider" => self.provider.map(|id| id.to_string()),
            "model" => self.model.clone(),
            "endpoint" => self.endpoint.clone(),
            "status" => self.status.map(|status| status.to_string()),
            _ => None,
        };
        if let Some(value) = value {
            sql.and("value =", Value::Text(value));
        }
        if self.exclude_200 {
            sql.push(" AND value <> '200'");
        }
        if let Some(retries) = self.min_retries.filter(|retries| *retries > 0) {
            sql.and("value::smallint >=", Value::Small(retries));
        }
        if self.endpoint.is_none() && !self.with_quiet {
            sql.push(" AND NOT is_quiet");
        }
        if self.exclude_blocked {
            sql.push(" AND NOT is_blocked");
        }
        self.time(sql, "start");
    }

    /// Conditions on a table of sums, the time included.
    pub(super) fn on_sums(&self, sql: &mut Sql) {
        self.conditions(sql, Named::Any, "NOT is_blocked");
        self.time(sql, "start");
    }
}
