//! Logs, traces and metrics: set up once by `main`, described in one list each. Never decides anything.

pub mod metric;
mod trace;

pub use trace::{Observer, init};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds; from a compile that touches one shard to a query at its limit.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// Installs the recorder of this process and describes every metric. The handle renders them.
pub fn install_metrics() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    metric::describe();
    Ok(handle)
}
