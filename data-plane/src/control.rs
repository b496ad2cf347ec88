//! The wire to the control plane: [`Watch`] keeps the routing table up to date and says how providers are,
//! `report` delivers usage records, [`Link::ledger`] asks what was spent.
//!
//! Floor 3: over `table`, `health`, `spool`. Everything runs on the side runtime; a traffic thread only ever
//! sees the swapped pointer. A control plane that is away is never an error to callers.

mod backoff;
mod disk;
mod holder;
mod ledger;
mod link;
pub mod report;
mod stream;
pub mod watch;

pub use holder::{Source, Status};
pub use link::{Error, Link};
pub use report::Report;
pub use watch::{Ready, Timing, Watch, Watching};

#[cfg(test)]
mod tests;
