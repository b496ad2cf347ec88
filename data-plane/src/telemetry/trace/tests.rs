use super::*;
use crate::upstream;
use http::Request;
use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::sync::{Arc, Mutex};
use tracing_subscriber::layer::SubscriberExt;

fn head(traceparent: &str) -> Parts {
    Request::post("/v1/messages").header("traceparent", traceparent).body(()).unwrap().into_parts().0
}

const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn without_an_endpoint_the_callers_context_passes_unchanged() {
    let head = head(CALLERS);
    let span = Span::none();
    let mut headers = head.headers.clone();
    inject(&span, &mut headers);
    assert_eq!(headers["traceparent"], CALLERS);
    assert_eq!(trace_id(&span), None);
}

#[test]
fn operations_by_path() {
    for (path, expected) in [
        ("/v1/messages", "chat"),
        ("/v1/chat/completions", "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1beta/models/m:streamGenerateContent", "generate_content"),
        ("/v1/files", "request"),
    ] {
        assert_eq!(operation(path), expected, "{path}");
    }
}

#[derive(Clone, Debug, Default)]
struct Collected(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn value(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|found| found.value.clone())
}

#[test]
fn a_request_and_its_attempts_are_spans_of_the_callers_trace() {
    let collected = Collected::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(collected.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let mut headers = HeaderMap::new();
    tracing::subscriber::with_default(subscriber, || {
        enable(true);
        let request = request_span(&head(CALLERS), Dialect::Anthropic, "claude-x");
        assert_eq!(trace_id(&request).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let up = upstream::tests::upstream(upstream::tests::provider(7));
        let attempt = attempt_span(&request, &up, "claude-y");
        inject(&attempt, &mut headers);
        finish_attempt(&attempt, Some(529), "overloaded");
        drop(attempt);
        let record = crate::telemetry::metrics::tests::record();
        finish_request(&request, &record);
        drop(request);
        enable(false);
    });
    let spans = collected.0.lock().unwrap();
    let [attempt, request] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*request.name, &*attempt.name), ("chat claude-x", "attempt p7"));
    assert_eq!((&request.span_kind, &attempt.span_kind), (&SpanKind::Server, &SpanKind::Client));
    assert_eq!(request.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(attempt.parent_span_id, request.span_context.span_id());
    assert_eq!(
        headers["traceparent"].to_str().unwrap(),
        format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", attempt.span_context.span_id())
    );
    for (span, key, expected) in [
        (request, "gen_ai.operation.name", Value::from("chat")),
        (request, "gen_ai.provider.name", Value::from("anthropic")),
        (request, "gen_ai.request.model", Value::from("claude-x")),
        (request, "gen_ai.usage.input_tokens", Value::from(12)),
        (request, "error.type", Value::from("cut")),
        (attempt, "server.address", Value::from("api.example")),
        (attempt, "gen_ai.request.model", Value::from("claude-y")),
        (attempt, "http.response.status_code", Value::from(529)),
        (attempt, "error.type", Value::from("529")),
    ] {
        assert_eq!(value(span, key), Some(expected), "{key}");
    }
}
