-- $1..$17: one array per column, in the order of the columns below. What describes the conversation now
-- (key, provider, model, status) is taken from the newer side, because batches may arrive out of order.
INSERT INTO sessions AS old (
    owner_id, user_id, session_id, key_id, provider_id, model, dialect, first_seen_at, last_seen_at,
    requests, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost, duration_ms, last_status
)
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (user_id, session_id) DO UPDATE SET
    key_id = CASE WHEN excluded.last_seen_at >= old.last_seen_at THEN excluded.key_id ELSE old.key_id END,
    provider_id = CASE WHEN excluded.last_seen_at >= old.last_seen_at
        THEN coalesce(excluded.provider_id, old.provider_id) ELSE old.provider_id END,
    model = CASE WHEN excluded.last_seen_at >= old.last_seen_at THEN excluded.model ELSE old.model END,
    dialect = CASE WHEN excluded.last_seen_at >= old.last_seen_at THEN excluded.dialect ELSE old.dialect END,
    last_status = CASE WHEN excluded.last_seen_at >= old.last_seen_at
        THEN excluded.last_status ELSE old.last_status END,
    first_seen_at = least(old.first_seen_at, excluded.first_seen_at),
    last_seen_at = greatest(old.last_seen_at, excluded.last_seen_at),
    requests = old.requests + excluded.requests,
    input_tokens = old.input_tokens + excluded.input_tokens,
    output_tokens = old.output_tokens + excluded.output_tokens,
    cache_read_tokens = old.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = old.cache_write_tokens + excluded.cache_write_tokens,
    cost = old.cost + excluded.cost,
    duration_ms = old.duration_ms + excluded.duration_ms
