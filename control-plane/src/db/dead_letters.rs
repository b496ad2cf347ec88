//! Usage records that can never be stored, kept aside for people.

use super::schema::usage_dead_letters::{self, dsl};
use super::{Conn, Error};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

/// One of them.
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = usage_dead_letters)]
pub struct Letter<'a> {
    /// SHA-256 of `record`: sent twice, it is kept once.
    pub digest: Vec<u8>,
    /// As it came.
    pub record_id: Vec<u8>,
    /// What is wrong, without values.
    pub reason: &'a str,
    /// As it came.
    pub record: Vec<u8>,
}

/// Keeps what is not there yet.
pub async fn keep(conn: &mut Conn, letters: &[Letter<'_>]) -> Result<(), Error> {
    // A letter has four parameters, a batch a few thousand records: within what one statement takes.
    if !letters.is_empty() {
        diesel::insert_into(dsl::usage_dead_letters)
            .values(letters)
            .on_conflict_do_nothing()
            .execute(conn)
            .await?;
    }
    Ok(())
}
