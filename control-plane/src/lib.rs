//! The control plane: owns users, keys, providers, prices and history; compiles the routing table and pushes
//! it to the proxies; takes in what they used. `app` is where the parts meet.

pub mod api;
pub mod app;
pub mod compile;
pub mod config;
pub mod db;
pub mod ingest;
pub mod jobs;
pub mod ops;
pub mod outbound;
pub mod publish;
pub mod rules;
pub mod tasks;
pub mod telemetry;
