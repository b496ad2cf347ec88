//! Starts log lines and, where an endpoint is configured, the export of spans over OTLP gRPC.

use super::ACCESS_TARGET;
use super::lines::{Lines, Writing};
use super::trace;
use crate::config::LogFormat;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tonic::transport::ClientTlsConfig;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// What to tell, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level, or a list of target=level.
    pub level: String,
    /// Whether requests leave an access event.
    pub access: bool,
    /// Where spans go.
    pub otlp: Option<String>,
    /// Name of the service in traces.
    pub service: String,
    /// Name of this process in traces.
    pub instance: String,
}

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level does not parse.
    #[error("LOG_LEVEL is wrong: expected a level such as info, or a list such as info,data_plane=debug")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// The thread that writes lines.
    #[error("the log cannot be started")]
    Thread(#[source] std::io::Error),
    /// The exporter does not take the endpoint.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is wrong: the exporter could not be built")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Keeps the export of spans and lines alive. Dropped, it writes the last lines; [`Guard::flush`] also sends the
/// last spans.
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    _lines: Writing,
}

/// Starts both. Must be called within a multi-thread runtime: the exporter's connection lives there. A second
/// call in one process (tests) leaves the first one's subscriber in place.
pub fn start(settings: &Settings) -> Result<Guard, Error> {
    let (out, writing) = Lines::to(std::io::stdout()).map_err(Error::Thread)?;
    let lines = lines(settings, out)?;
    let provider = settings.otlp.as_deref().map(|endpoint| provider(settings, endpoint)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let tracer = provider.tracer("switchyard-data-plane");
        // Only the spans that `trace` makes: those of the gRPC client that exports them would feed themselves.
        let ours = FilterFn::new(|metadata| metadata.is_span() && metadata.target() == trace::TARGET);
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours)
    });
    let started = tracing_subscriber::registry().with(lines).with(spans).try_init().is_ok();
    trace::enable(started && provider.is_some());
    Ok(Guard { provider, _lines: writing })
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

fn lines<S>(settings: &Settings, out: Lines) -> Result<BoxedLayer<S>, Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Spans are for traces; in lines they would repeat what the access event says.
    let mut rules = format!("{},{}=off", settings.level, trace::TARGET);
    if !settings.access {
        rules = format!("{rules},{ACCESS_TARGET}=off");
    }
    let filter = EnvFilter::try_new(rules).map_err(Error::Level)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(out);
    Ok(match settings.format {
        LogFormat::Text => layer.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    })
}

fn provider(settings: &Settings, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if endpoint.starts_with("https:") {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        exporter = exporter.with_tls_config(ClientTlsConfig::new().trust_anchors(roots));
    }
    let exporter = exporter.build().map_err(Error::Exporter)?;
    let resource = Resource::builder()
        .with_service_name(settings.service.clone())
        .with_attribute(KeyValue::new("service.instance.id", settings.instance.clone()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Guard {
    /// Sends what is left and ends the export; gives up after `within`.
    pub async fn flush(mut self, within: Duration) {
        let Some(provider) = self.provider.take() else { return };
        trace::enable(false);
        // It blocks until its own thread has answered, so it must not hold a thread of the runtime.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown());
        match tokio::time::timeout(within, flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last spans were not exported in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_leave_over_grpc_and_a_silent_collector_holds_up_nobody() {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let settings = Settings {
            format: LogFormat::Json,
            level: "off".into(),
            access: true,
            otlp: Some(endpoint),
            service: "test".into(),
            instance: "p1".into(),
        };
        let guard = start(&settings).unwrap();
        let head = http::Request::post("/v1/messages").body(()).unwrap().into_parts().0;
        let span = trace::request_span(&head, contract::usage::Dialect::Anthropic, "m");
        assert!(trace::trace_id(&span).is_some());
        drop(span);
        let received = std::thread::spawn(move || {
            let mut preface = [0; 16];
            collector.accept().unwrap().0.read_exact(&mut preface).map(|()| preface)
        });
        guard.flush(Duration::from_millis(300)).await;
        assert_eq!(&received.join().unwrap().unwrap(), b"PRI * HTTP/2.0\r\n");
    }

    #[test]
    fn a_wrong_level_names_its_variable() {
        let settings = Settings {
            format: LogFormat::Text,
            level: "a=b=c".into(),
            access: false,
            otlp: None,
            service: "test".into(),
            instance: "p1".into(),
        };
        assert!(start(&settings).unwrap_err().to_string().starts_with("LOG_LEVEL is wrong"));
    }
}
