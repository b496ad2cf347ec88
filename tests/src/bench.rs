//! `make bench`: plain nginx and our proxy, governed, side by side on pinned cores.
//!
//! The method, because this kind of machine drifts by a factor of two within minutes: every server stays up,
//! a slice is a second or so of load on one of them, every slice of ours lies between two slices of nginx and
//! is compared with the mean of these two. Only such ratios mean anything; medians and ranges are printed.
//! Nothing here is asserted.

pub mod api;
pub mod bodies;
pub mod instructions;
pub mod latency;
pub mod load;
pub mod machine;
pub mod memory;
pub mod nginx;
pub mod profile;
pub mod report;
pub mod run;
pub mod series;
pub mod subject;
pub mod upstream;

/// The core of the program under measurement.
pub const PROXY_CORE: usize = 1;
/// The core of everything else: load, upstream, Redis, control plane.
pub const LOAD_CORE: usize = 0;
