//! A table laid over what is stored: what is new, what changed, what a person wrote and stays.

use crate::api::Failure;
use crate::api::audit::{Closed, Write};
use crate::api::auth::Caller;
use crate::db::{Conn, prices};
use crate::rules::price::{Failed, Table};
use serde::Serialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// What became of each entry.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// New models.
    added: Vec<String>,
    /// Models whose prices changed.
    updated: Vec<String>,
    /// Models whose prices are the same.
    unchanged: Vec<String>,
    /// Entries that cannot be used.
    failed: Vec<String>,
    /// Why, by model.
    failures: HashMap<String, String>,
    /// All entries.
    total: usize,
    /// Models with manual prices, which stay.
    skipped_conflicts: Vec<String>,
    /// Among the unchanged, those that came from elsewhere so far.
    #[serde(skip)]
    pinned: Vec<String>,
}

impl Uploaded {
    /// New models, and models with other prices than before.
    pub(super) fn changed(&self) -> (usize, usize) {
        (self.added.len(), self.updated.len())
    }
}

/// Which rows a table may write.
#[derive(Debug)]
pub(super) struct Rule {
    /// Where the written rows come from.
    pub(super) source: &'static str,
    /// Models whose manual prices may be overwritten.
    pub(super) overwrite: HashSet<String>,
    /// Only rows from here are changed, besides those that do not exist; `None`: all but manual ones.
    pub(super) only: Option<&'static [&'static str]>,
    /// Whether rows with the same prices already count as written too: whoever uploads today's prices wants them to
    /// stay.
    pub(super) pins: bool,
}

/// Whether a table would change anything.
pub(super) async fn differs(
    conn: &mut Conn,
    owner: i64,
    table: &Table,
    rule: &Rule,
) -> Result<bool, Failure> {
    Ok(compared(conn, owner, table, rule).await?.changed() != (0, 0))
}

/// Writes what differs, with its audit entry.
pub(super) async fn merge_in_tx(
    conn: &mut Conn,
    caller: &Caller,
    table: &Table,
    rule: &Rule,
) -> Result<(Uploaded, Closed), Failure> {
    let write = Write::begin_in_tx(conn).await?;
    let uploaded = compared(conn, caller.owner, table, rule).await?;
    let row = |model: &'_ String| table.entries.get_key_value(model);
    let changed = uploaded.added.iter().chain(&uploaded.updated).chain(&uploaded.pinned).filter_map(row);
    let rows: Vec<prices::New<'_>> = changed
        .map(|(model, data)| prices::New {
            owner_id: caller.owner,
            model_name: model,
            data,
            source: rule.source,
            generation: write.generation,
        })
        .collect();
    prices::upsert_in_tx(conn, &rows).await?;
    let (added, updated) = uploaded.changed();
    let details = json!({"added": added, "updated": updated, "source": rule.source});
    let closed = write.close_in_tx(conn, caller, ("price", None), details).await?;
    Ok((uploaded, closed))
}

async fn compared(conn: &mut Conn, owner: i64, table: &Table, rule: &Rule) -> Result<Uploaded, Failure> {
    let models: Vec<&str> = table.entries.keys().map(String::as_str).collect();
    Ok(compare(table, &prices::of_models(conn, owner, &models).await?, rule))
}

fn compare(table: &Table, known: &HashMap<String, prices::Price>, rule: &Rule) -> Uploaded {
    let mut uploaded = Uploaded { total: table.entries.len() + table.failed.len(), ..Uploaded::default() };
    for (model, data) in &table.entries {
        let list = match known.get(model) {
            None => &mut uploaded.added,
            Some(row) if row.source == "manual" && !rule.overwrite.contains(model) => {
                &mut uploaded.skipped_conflicts
            }
            Some(row) if rule.only.is_some_and(|only| !only.contains(&row.source.as_str())) => {
                &mut uploaded.unchanged
            }
            Some(row) if row.data == *data => {
                if rule.pins && row.source != rule.source {
                    uploaded.pinned.push(model.clone());
                }
                &mut uploaded.unchanged
            }
            Some(_) => &mut uploaded.updated,
        };
        list.push(model.clone());
    }
    for Failed { model, why } in &table.failed {
        uploaded.failed.push(model.clone());
        uploaded.failures.insert(model.clone(), why.clone());
    }
    uploaded
}
