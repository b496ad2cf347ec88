//! Client keys. A key is shown in clear once, when it is made; `KEY_REVEAL=admin` lets admins see it again.

pub mod add_key;
pub mod edit_key;
mod form;
pub mod get_key_limit_usage;
pub mod get_keys;
pub mod remove_key;
mod rule;
mod view;

pub use view::{KeyView, revealed};

use crate::api::{Failure, State};
use crate::config::KeyReveal;
use crate::db::users::User;
use crate::db::{Conn, Error, keys};
use crate::rules::{Code, Refusal, key};

/// A key that was just made.
#[derive(Debug)]
pub struct Minted {
    /// Its row, with the defaults.
    pub row: keys::Key,
    /// The key itself, to be shown now or never.
    pub clear: String,
}

/// Makes a key of a user.
pub async fn mint_in_tx(
    conn: &mut Conn,
    state: &State,
    user: &User,
    name: &str,
    generation: i64,
) -> Result<Minted, Failure> {
    let clear = key::mint();
    let id = keys::next_id_in_tx(conn).await?;
    let (first_chars, last_chars) = key::ends(&clear);
    let sealed = match state.settings.key_reveal {
        KeyReveal::Never => None,
        KeyReveal::Admin => Some(state.settings.sealer.seal(clear.as_bytes(), &key::aad(id))?),
    };
    let new = keys::New {
        id,
        owner_id: user.owner_id,
        user_id: user.id,
        name: name.to_owned(),
        hash: key::hash(&clear).to_vec(),
        first_chars,
        last_chars,
        sealed,
        generation,
    };
    let row = keys::insert_in_tx(conn, new).await.map_err(|error| duplicate(error, name))?;
    Ok(Minted { row, clear })
}

/// A broken name index is the caller's affair; every other error is ours.
fn duplicate(error: Error, name: &str) -> Failure {
    match error.broken_constraint() {
        Some(keys::NAME_INDEX) => Refusal::new(Code::DuplicateName).with("name", name).into(),
        _ => error.into(),
    }
}
