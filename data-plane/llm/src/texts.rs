//! The texts of a request that a person, a tool's result or (where wanted) a vendor put in, in all dialects. One pass over
//! the bytes: no tree, no copy, a few hundred bytes of state whatever the body is.
//!
//! What is not known is looked at. Left out are the model's own turns, names of roles and types, ids, and files in
//! base64; a member counts as left out only where every reading of its name and role agrees: names are compared as
//! Go's JSON does, without case, and of a name given twice each value is seen.
//!
//! The whole body must be JSON, also where nothing is looked for: a text in a form that only a generous reader takes
//! would be seen by nobody here.

mod base64;
mod name;
mod turn;
mod walk;
mod window;

pub(crate) use name::folded;
pub use walk::{Found, Texts, Unreadable};
pub use window::{OVERLAP, WINDOW, Window, Windows};

#[cfg(test)]
mod tests;
