//! Logs to standard output; traces to a collector when one is configured.

use crate::config::Observe;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::io::IsTerminal;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What export itself logs must not be exported, or it feeds itself.
const NEVER_EXPORTED: [&str; 7] =
    ["h2", "hyper", "hyper_util", "opentelemetry", "opentelemetry_sdk", "tonic", "tower"];

/// Why logs and traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `LOG_LEVEL` is no filter.
    #[error("LOG_LEVEL must be a level such as info, or directives such as info,control_plane=debug.")]
    Level,
    /// The collector's address is no address.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT must be a URL such as http://localhost:4317.")]
    Endpoint(#[source] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber was there before.
    #[error("logs were set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Holds the exporter; traces that are still under way are sent by [`Observer::finish`].
#[derive(Debug)]
pub struct Observer {
    provider: Option<SdkTracerProvider>,
    limit: Duration,
}

/// Sets up logs and traces for the process. Must run on the main runtime.
pub fn init(settings: &Observe) -> Result<Observer, Error> {
    let level = EnvFilter::try_new(&settings.level).map_err(|_| Error::Level)?;
    let logs = match settings.json {
        true => tracing_subscriber::fmt::layer().json().flatten_event(true).with_filter(level).boxed(),
        false => tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stdout().is_terminal())
            .with_filter(level)
            .boxed(),
    };
    let provider =
        settings.otlp_endpoint.as_deref().map(|url| exporter(url, settings.otlp_timeout)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let quiet = NEVER_EXPORTED.map(|target| (target, LevelFilter::OFF));
        let filter = Targets::new().with_default(LevelFilter::INFO).with_targets(quiet);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("control-plane")).with_filter(filter)
    });
    tracing_subscriber::registry().with(logs).with(traces).try_init().map_err(Error::Twice)?;
    Ok(Observer { provider, limit: settings.otlp_timeout })
}

fn exporter(url: &str, limit: Duration) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(url)
        .with_timeout(limit)
        .build()
        .map_err(Error::Endpoint)?;
    let resource = Resource::builder().with_service_name("switchyard-control-plane").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Observer {
    /// Sends what is left, within the export's time limit. Blocks a thread of its own, not a worker.
    pub async fn finish(self) {
        let Some(provider) = self.provider else { return };
        let sent = tokio::task::spawn_blocking(move || provider.shutdown());
        let _ = tokio::time::timeout(self.limit, sent).await;
    }
}
