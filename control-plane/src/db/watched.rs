//! Users, keys and providers that spent something lately, with their limits.

use super::rows::{KeyLimits, ProviderLimits, UserLimits};
use super::schema::{keys, providers, usage_hourly, users};
use super::{Conn, Error};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

/// Most rows of one kind.
const MOST: i64 = 20_000;

macro_rules! watched {
    ($row:ident, $read:ident, $table:ident, $limits:ty, $column:ident, $doc:literal) => {
        #[doc = $doc]
        #[expect(missing_docs, reason = "the migration carries the documentation")]
        #[derive(Clone, Debug, Queryable, Selectable)]
        #[diesel(table_name = $table, check_for_backend(Pg))]
        pub struct $row {
            pub id: i64,
            pub name: String,
            #[diesel(embed)]
            pub limits: $limits,
        }

        #[doc = $doc]
        pub async fn $read(conn: &mut Conn, owner: i64, since: DateTime<Utc>) -> Result<Vec<$row>, Error> {
            // The hour that holds `since` counts as a whole.
            let hour = since - TimeDelta::hours(1);
            let active = usage_hourly::table
                .filter(usage_hourly::owner_id.eq(owner).and(usage_hourly::hour.gt(hour)))
                .select(usage_hourly::$column)
                .distinct();
            let rows = $table::table
                .filter($table::owner_id.eq(owner).and($table::deleted_at.is_null()).and($table::enabled))
                .filter($table::id.eq_any(active))
                .order($table::id)
                .limit(MOST)
                .select($row::as_select());
            Ok(rows.load(conn).await?)
        }
    };
}

watched!(User, users, users, UserLimits, user_id, "Users with usage.");
watched!(Key, keys, keys, KeyLimits, key_id, "Keys with usage.");
watched!(Provider, providers, providers, ProviderLimits, provider_id, "Providers with usage.");
