-- Sums by one dimension at a time, so that a question with one filter, or none, reads as many rows as there are
-- days, however many kinds of requests a day has had.

-- facet: 'all' (value ''), 'provider' (id), 'model' (asked for, and sent upstream where it differs), 'endpoint',
-- 'status', 'retries' (more than 0). span and start as in usage_facets.
CREATE TABLE usage_margins (
    owner_id           bigint NOT NULL,
    facet              text NOT NULL,
    value              text NOT NULL,
    span               smallint NOT NULL CHECK (span IN (15, 1440)),
    start              timestamptz NOT NULL,
    is_quiet           boolean NOT NULL,
    is_blocked         boolean NOT NULL,
    requests           bigint NOT NULL,
    failed             bigint NOT NULL,
    input_tokens       bigint NOT NULL,
    output_tokens      bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_5m_tokens bigint NOT NULL,
    cache_write_1h_tokens bigint NOT NULL,
    cost               numeric(30, 15) NOT NULL,
    duration_ms        bigint NOT NULL,
    PRIMARY KEY (owner_id, facet, value, span, start, is_quiet, is_blocked)
) WITH (fillfactor = 70);
-- What a provider's limits count, whoever used it.
CREATE INDEX usage_margins_provider ON usage_margins (value, span, start) WHERE facet = 'provider';

-- Several filters at once: the rarest of them leads to the rows of its days.
CREATE INDEX usage_facets_model ON usage_facets (owner_id, model, start) WHERE span = 1440;
CREATE INDEX usage_facets_upstream ON usage_facets (owner_id, upstream_model, start)
    WHERE span = 1440 AND upstream_model <> '';
CREATE INDEX usage_facets_provider ON usage_facets (owner_id, provider_id, start) WHERE span = 1440;
CREATE INDEX usage_facets_not_ok ON usage_facets (owner_id, status, start) WHERE span = 1440 AND status <> 200;

-- The series of a chart, once it is known whose they are.
CREATE INDEX usage_user_slots_user ON usage_user_slots (user_id, span, start);

-- Rows of sums are changed again and again: room for the next version on the same page keeps indexes out of it.
ALTER TABLE usage_facets SET (fillfactor = 70);
ALTER TABLE usage_key_days SET (fillfactor = 70);
ALTER TABLE usage_user_slots SET (fillfactor = 70);
ALTER TABLE usage_hourly SET (fillfactor = 70);

-- What was counted so far, also of records that RETENTION_DAYS has removed since: every margin is a sum of facets.
INSERT INTO usage_margins
SELECT owner_id, facets.facet, facets.value, span, start,
    endpoint LIKE '%/count\_tokens' OR endpoint LIKE '%/responses/compact', is_blocked, sum(requests),
    coalesce(sum(requests) FILTER (WHERE status >= 400), 0), sum(input_tokens), sum(output_tokens),
    sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(cost), sum(duration_ms)
FROM usage_facets CROSS JOIN LATERAL (VALUES
    ('all', ''),
    ('provider', CASE WHEN provider_id <> 0 THEN provider_id::text END),
    ('model', model),
    ('model', CASE WHEN upstream_model <> model AND upstream_model <> '' THEN upstream_model END),
    ('endpoint', endpoint),
    ('status', status::text),
    ('retries', CASE WHEN retry_count > 0 THEN retry_count::text END)) AS facets (facet, value)
WHERE facets.value IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- A replica of before, which does not write margins, finds its table gone: its batches stay with the proxies until a
-- new one takes them.
ALTER TABLE rollup_zone RENAME TO usage_zone;
