WITH cells AS (
    SELECT owner_id, date_bin('15 minutes', created_at, 'epoch') AS quarter,
        ($1::timestamptz[])[width_bucket(created_at, $1::timestamptz[])] AS day,
        provider_id, model, upstream_model, endpoint, status, retry_count, blocked_by IS NOT NULL AS is_blocked,
        count(*) AS requests, sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
        sum(cache_read_tokens)::bigint AS cache_read_tokens, sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
        sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, coalesce(sum(cost), 0) AS cost,
        sum(duration_ms)::bigint AS duration_ms
    FROM usage_records
    WHERE {which}
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
quarters AS (
    SELECT owner_id, facets.facet, facets.value, quarter, day,
        endpoint LIKE '%/count\_tokens' OR endpoint LIKE '%/responses/compact' AS is_quiet, is_blocked,
        sum(requests)::bigint AS requests, coalesce(sum(requests) FILTER (WHERE status >= 400), 0)::bigint AS failed,
        sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
        sum(cache_read_tokens)::bigint AS cache_read_tokens, sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens,
        sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, sum(cost) AS cost,
        sum(duration_ms)::bigint AS duration_ms
    FROM cells CROSS JOIN LATERAL (VALUES
        ('all', ''),
        ('provider', provider_id::text),
        ('model', model),
        ('model', CASE WHEN upstream_model <> model AND upstream_model <> '' THEN upstream_model END),
        ('endpoint', endpoint),
        ('status', status::text),
        ('retries', CASE WHEN retry_count > 0 THEN retry_count::text END)) AS facets (facet, value)
    WHERE facets.value IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5, 6, 7)
INSERT INTO usage_margins AS old
SELECT owner_id, facet, value, spans.span, spans.start, is_quiet, is_blocked, sum(requests), sum(failed),
    sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens),
    sum(cache_write_1h_tokens), sum(cost), sum(duration_ms)
FROM quarters CROSS JOIN LATERAL (VALUES (15::smallint, quarter), (1440::smallint, day)) AS spans (span, start)
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT (owner_id, facet, value, span, start, is_quiet, is_blocked)
DO UPDATE SET requests = old.requests + excluded.requests,
    failed = old.failed + excluded.failed,
    input_tokens = old.input_tokens + excluded.input_tokens,
    output_tokens = old.output_tokens + excluded.output_tokens,
    cache_read_tokens = old.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_5m_tokens = old.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
    cache_write_1h_tokens = old.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
    cost = old.cost + excluded.cost,
    duration_ms = old.duration_ms + excluded.duration_ms
