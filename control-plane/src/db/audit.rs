//! Who did what: one row per change, in the transaction of the change.

use super::schema::audit_log;
use super::{Conn, Error};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

/// A row to write. `details` never holds a secret.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = audit_log)]
pub struct New<'a> {
    pub owner_id: i64,
    pub operator_id: Option<i64>,
    pub action: &'a str,
    pub target_kind: &'a str,
    pub target_id: Option<i64>,
    pub details: Value,
    pub client_ip: Option<&'a str>,
    pub generation: Option<i64>,
}

/// Adds an entry.
pub async fn insert_in_tx(conn: &mut Conn, new: New<'_>) -> Result<(), Error> {
    diesel::insert_into(audit_log::table).values(new).execute(conn).await?;
    Ok(())
}
