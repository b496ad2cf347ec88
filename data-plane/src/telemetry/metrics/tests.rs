use super::*;
use std::collections::BTreeSet;

pub(in crate::telemetry) fn record() -> UsageRecord {
    use contract::ids::{Generation, KeyId, RequestId, UserId};
    use contract::usage::{TokenCounts, UsageSource};
    use rust_decimal::Decimal;
    UsageRecord {
        id: RequestId::new(0, [0; 10]),
        proxy_id: "p".into(),
        started_at_ms: 0,
        owner_id: UserId(1),
        user_id: UserId(2),
        key_id: KeyId(3),
        provider_id: None,
        session_id: None,
        dialect: Dialect::Responses,
        endpoint: "/v1/responses".into(),
        model: "m".into(),
        upstream_model: None,
        response_model: None,
        billed_model: None,
        streamed: true,
        outcome: Outcome::Cut,
        status: 502,
        error: None,
        blocked_by: None,
        blocked_reason: None,
        tokens: TokenCounts { input: 7, cache_write_1h: 5, ..TokenCounts::default() },
        usage_source: UsageSource::Reported,
        cost: Some(Decimal::new(15, 9)),
        unpriced: None,
        held_cost: None,
        cost_parts: Default::default(),
        cost_multiplier: Decimal::ONE,
        generation: Generation(1),
        duration_ms: 30,
        ttft_ms: Some(20),
        attempts: Vec::new(),
        user_agent: None,
        client_ip: None,
        trace_id: None,
        request_bytes: 1,
        response_bytes: 1,
        messages_count: 0,
        skipped: Vec::new(),
    }
}

#[test]
fn a_finished_request_shows_on_the_page() {
    let recorder = recorder();
    let page = Page(recorder.handle());
    let metrics = Arc::new(Metrics::on(&recorder));
    metrics.finished(&record());
    metrics.refused("usd_weekly");
    metrics.refused("a reason of the future");
    metrics.attempted(ProviderKind::Codex, AttemptResult::NotFound);
    metrics.upstream_connection(false);
    let running = metrics.running();
    let text = page.render();
    for line in [
        r#"switchyard_proxy_requests_total{dialect="responses",outcome="cut"} 1"#,
        r#"switchyard_proxy_requests_total{dialect="anthropic",outcome="cut"} 0"#,
        r#"switchyard_proxy_tokens_total{class="input"} 7"#,
        r#"switchyard_proxy_tokens_total{class="cache_write_1h"} 5"#,
        "switchyard_proxy_cost_nano_usd_total 15",
        r#"switchyard_proxy_attempts_total{kind="codex",result="resource_not_found"} 1"#,
        r#"switchyard_proxy_refusals_total{reason="usd_weekly"} 1"#,
        r#"switchyard_proxy_refusals_total{reason="other"} 1"#,
        r#"switchyard_proxy_upstream_connections_total{from="new"} 1"#,
        r#"switchyard_proxy_request_seconds_bucket{dialect="responses",le="0.05"} 1"#,
        "switchyard_proxy_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    drop(running);
    assert!(page.render().contains("switchyard_proxy_requests_in_flight 0"));
}

#[test]
fn the_page_and_the_list_are_the_same() {
    let recorder = recorder();
    let page = Page(recorder.handle());
    let metrics = Metrics::on(&recorder);
    // A histogram shows once it holds something.
    metrics.finished(&record());
    let text = page.render();
    let shown: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<_> = LIST.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, declared);
    assert_eq!(declared.len(), LIST.len(), "a name is declared twice");
}
