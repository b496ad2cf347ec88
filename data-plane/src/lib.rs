//! The stateless proxy. A request is one visible function over one immutable table; one guard ends it.
//!
//! Floors: `memo`, `table`, `limit`, `bill`, `health`, `live` (pure) < `store`, `upstream`, `control`, `spool`, `telemetry` (I/O)
//! < `proxy` (the walk) < `server`, `admin`, `config`, `app`.

pub mod admin;
pub mod app;
pub mod bill;
pub mod clock;
pub mod config;
pub mod control;
pub mod health;
pub mod limit;
pub mod live;
pub mod map;
pub mod memo;
pub mod probe;
pub mod proxy;
pub mod server;
pub mod spool;
pub mod store;
pub mod table;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
