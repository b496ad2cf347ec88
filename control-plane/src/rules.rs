//! What may be said and how it is read: refusals with their texts, request forms, limits, keys, times, prices.
//!
//! Pure: depends on `contract` and serde; the clock and the time zone come in as arguments. Never names an
//! HTTP type, never touches the database.

pub mod amount;
pub mod check;
pub mod form;
pub mod key;
pub mod messages;
pub mod notification;
pub mod period;
pub mod price;
pub mod provider;
pub mod refusal;
pub mod settings;
pub mod time;

pub use amount::{Exact, Usd};
pub use form::{Field, Form, Members, Patch};
pub use refusal::{Code, Language, Refusal};
