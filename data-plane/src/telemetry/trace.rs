//! Spans: one per request, one per attempt, by the GenAI semantic conventions; W3C context in and out. Without
//! an endpoint every function here is one check, and a caller's `traceparent` passes on as it came.

use crate::table::Upstream;
use contract::table::ProviderKind;
use contract::usage::{Dialect, Outcome, UsageRecord};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Target of all spans made here; what the exporter's filter lets through.
pub const TARGET: &str = "switchyard_trace";

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

static ENABLED: AtomicBool = AtomicBool::new(false);

pub(super) fn enable(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// The span of one request, a child of the caller's if it named one.
pub fn request_span(head: &Parts, dialect: Dialect, model: &str) -> Span {
    if !enabled() {
        return Span::none();
    }
    let operation = operation(head.uri.path());
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{operation} {model}"),
        otel.kind = "server",
        gen_ai.operation.name = operation,
        gen_ai.provider.name = vendor(dialect),
        gen_ai.system = vendor(dialect),
        gen_ai.request.model = model,
        http.request.method = head.method.as_str(),
        url.path = head.uri.path(),
    );
    let parent = TraceContextPropagator::new().extract(&Headers(&head.headers));
    if parent.span().span_context().is_valid() {
        // Refused only for a span without the exporter's layer; then there is nothing to attach to.
        let _ = span.set_parent(parent);
    }
    span
}

/// The span of one attempt, below its request's.
pub fn attempt_span(request: &Span, up: &Upstream, model: &str) -> Span {
    if request.is_none() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET,
        parent: request,
        "attempt",
        otel.name = format!("attempt {}", up.row.name),
        otel.kind = "client",
        gen_ai.provider.name = vendor(up.row.kind.dialect()),
        gen_ai.request.model = model,
        server.address = up.base.host_str(),
        server.port = up.base.port_or_known_default(),
        switchyard.provider.id = up.row.id.0,
        switchyard.provider.kind = ProviderKind::as_str(up.row.kind),
        http.response.status_code = Empty,
        error.type = Empty,
    )
}

/// Writes how an attempt ended. `detail` names the fault; empty: there was none.
pub fn finish_attempt(span: &Span, status: Option<u16>, detail: &str) {
    if span.is_none() {
        return;
    }
    if let Some(status) = status {
        span.set_attribute("http.response.status_code", i64::from(status));
    }
    if !detail.is_empty() {
        let kind = status.map_or_else(|| "unreachable".to_owned(), |status| status.to_string());
        span.set_attribute("error.type", kind);
        span.set_status(Status::error(detail.to_owned()));
    }
}

/// Writes how a request ended; the span closes when its last holder drops it.
pub fn finish_request(span: &Span, record: &UsageRecord) {
    if span.is_none() {
        return;
    }
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    span.set_attribute("http.response.status_code", i64::from(record.status));
    span.set_attribute("gen_ai.usage.input_tokens", count(record.tokens.prompt()));
    span.set_attribute("gen_ai.usage.output_tokens", count(record.tokens.output));
    span.set_attribute("switchyard.request.id", record.id.to_string());
    span.set_attribute("switchyard.user.id", record.user_id.0);
    span.set_attribute("switchyard.attempts", i64::try_from(record.attempts.len()).unwrap_or(i64::MAX));
    let texts = [
        ("gen_ai.response.model", record.response_model.as_ref()),
        ("gen_ai.conversation.id", record.session_id.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            span.set_attribute(name, text.clone());
        }
    }
    if record.outcome != Outcome::Completed {
        span.set_attribute("error.type", record.outcome.as_str());
        span.set_status(Status::error(record.error.clone().unwrap_or_default()));
    }
}

/// Makes `span` the parent of what the upstream traces. Without tracing the headers stay as they are.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if span.is_none() {
        return;
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return;
    }
    let parent = format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8());
    if let Ok(value) = HeaderValue::try_from(parent) {
        headers.insert(TRACEPARENT, value);
    }
    match HeaderValue::try_from(own.trace_state().header()) {
        Ok(state) if !state.is_empty() => headers.insert(TRACESTATE, state),
        _ => headers.remove(TRACESTATE),
    };
}

/// The W3C trace id of a span that is exported.
pub fn trace_id(span: &Span) -> Option<String> {
    if span.is_none() {
        return None;
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    own.is_valid().then(|| own.trace_id().to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// The operation of the GenAI conventions.
fn operation(path: &str) -> &'static str {
    const ENDS: &[(&str, &str)] = &[
        ("/messages", "chat"),
        ("/chat/completions", "chat"),
        ("/responses", "chat"),
        ("/completions", "text_completion"),
        ("/embeddings", "embeddings"),
        (":embedContent", "embeddings"),
        (":generateContent", "generate_content"),
        (":streamGenerateContent", "generate_content"),
    ];
    ENDS.iter().find(|(end, _)| path.ends_with(end)).map_or("request", |(_, operation)| operation)
}

fn vendor(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "anthropic",
        Dialect::OpenAi | Dialect::Responses => "openai",
        Dialect::Gemini => "gcp.gemini",
    }
}

#[cfg(test)]
mod tests;
