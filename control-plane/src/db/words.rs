//! Sensitive words. All statements are scoped by the owner.

use super::schema::sensitive_words::{self, dsl};
use super::{Conn, Error};
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use std::collections::HashMap;

/// A row.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = sensitive_words, check_for_backend(Pg))]
pub struct Word {
    pub id: i64,
    pub word: String,
    pub match_type: String,
    pub description: Option<String>,
    pub enabled: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A row to write.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = sensitive_words)]
pub struct New {
    pub owner_id: i64,
    pub word: String,
    pub match_type: &'static str,
    pub description: Option<String>,
    pub generation: i64,
}

/// `None` leaves a column as it is.
#[expect(missing_docs, reason = "the migration carries the documentation")]
#[derive(Clone, Debug, Default, AsChangeset)]
#[diesel(table_name = sensitive_words)]
pub struct Change {
    pub word: Option<String>,
    pub match_type: Option<&'static str>,
    pub description: Option<Option<String>>,
    pub enabled: Option<bool>,
    /// Stamped by whoever writes; always set.
    pub generation: Option<i64>,
}

/// What an owner's enabled words come to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Enabled words by match type.
    pub counts: HashMap<String, i64>,
    /// The generation of the last change.
    pub generation: i64,
    /// When it was made; `None` if there never was a word.
    pub changed_at: Option<DateTime<Utc>>,
}

/// All of an owner, newest first.
pub async fn list(conn: &mut Conn, owner: i64) -> Result<Vec<Word>, Error> {
    let query = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()))
        .order((dsl::created_at.desc(), dsl::id.desc()));
    Ok(query.select(Word::as_select()).load(conn).await?)
}

/// How many an owner has.
pub async fn count(conn: &mut Conn, owner: i64) -> Result<i64, Error> {
    let query = dsl::sensitive_words.filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()));
    Ok(query.count().get_result(conn).await?)
}

/// One word that is not deleted.
pub async fn find(conn: &mut Conn, owner: i64, id: i64) -> Result<Option<Word>, Error> {
    let query = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    Ok(query.select(Word::as_select()).first(conn).await.optional()?)
}

/// A new row.
pub async fn insert_in_tx(conn: &mut Conn, new: New) -> Result<Word, Error> {
    let insert = diesel::insert_into(sensitive_words::table).values(new);
    Ok(insert.returning(Word::as_returning()).get_result(conn).await?)
}

/// Changes a row; `None` if there is none.
pub async fn update_in_tx(
    conn: &mut Conn,
    owner: i64,
    id: i64,
    change: &Change,
) -> Result<Option<Word>, Error> {
    let target = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let update = diesel::update(target).set((change, dsl::updated_at.eq(now)));
    Ok(update.returning(Word::as_returning()).get_result(conn).await.optional()?)
}

/// Deletes softly.
pub async fn remove_in_tx(conn: &mut Conn, owner: i64, id: i64, generation: i64) -> Result<usize, Error> {
    let target = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner).and(dsl::id.eq(id)).and(dsl::deleted_at.is_null()));
    let change = (dsl::deleted_at.eq(now), dsl::updated_at.eq(now), dsl::generation.eq(generation));
    Ok(diesel::update(target).set(change).execute(conn).await?)
}

/// How many words of each kind hold, and since when.
pub async fn summary(conn: &mut Conn, owner: i64) -> Result<Summary, Error> {
    let live = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner).and(dsl::deleted_at.is_null()).and(dsl::enabled))
        .group_by(dsl::match_type)
        .select((dsl::match_type, diesel::dsl::count_star()));
    let counts = live.load::<(String, i64)>(conn).await?.into_iter().collect();
    let newest = dsl::sensitive_words
        .filter(dsl::owner_id.eq(owner))
        .select((diesel::dsl::max(dsl::generation), diesel::dsl::max(dsl::updated_at)));
    let (generation, changed_at) = newest.first::<(Option<i64>, Option<DateTime<Utc>>)>(conn).await?;
    Ok(Summary { counts, generation: generation.unwrap_or_default(), changed_at })
}
