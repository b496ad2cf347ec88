//! What tests, benchmarks and the demo share.

pub mod upstream;
