-- Sums for dashboards and logs, written in the transaction that writes the records.

-- The zone whose days are counted below; '' until the days were counted. Ingest reads it under a shared lock,
-- a change of TIME_ZONE counts the days again under the exclusive one.
CREATE TABLE rollup_zone (
    id   boolean PRIMARY KEY DEFAULT true CHECK (id),
    zone text NOT NULL
);
INSERT INTO rollup_zone (zone)
SELECT CASE WHEN EXISTS (SELECT FROM usage_records) THEN '' ELSE 'UTC' END;

-- Everything of an owner, without users and keys: as many rows as there are kinds of requests, not callers.
-- span: minutes, 15 (from the epoch on) or 1440 (a day of the zone). provider_id 0, upstream_model '': none.
CREATE TABLE usage_facets (
    owner_id           bigint NOT NULL,
    span               smallint NOT NULL CHECK (span IN (15, 1440)),
    start              timestamptz NOT NULL,
    provider_id        bigint NOT NULL,
    model              text NOT NULL,
    upstream_model     text NOT NULL,
    endpoint           text NOT NULL,
    status             smallint NOT NULL,
    retry_count        smallint NOT NULL,
    is_blocked         boolean NOT NULL,
    requests           bigint NOT NULL,
    input_tokens       bigint NOT NULL,
    output_tokens      bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_5m_tokens bigint NOT NULL,
    cache_write_1h_tokens bigint NOT NULL,
    cost               numeric(30, 15) NOT NULL,
    duration_ms        bigint NOT NULL,
    PRIMARY KEY (owner_id, span, start, provider_id, model, upstream_model, endpoint, status, retry_count, is_blocked)
);

-- The same per key, by days of the zone only: what is finer is read from the ledger by its index of the key.
CREATE TABLE usage_key_days (
    owner_id           bigint NOT NULL,
    start              timestamptz NOT NULL,
    user_id            bigint NOT NULL,
    key_id             bigint NOT NULL,
    provider_id        bigint NOT NULL,
    model              text NOT NULL,
    upstream_model     text NOT NULL,
    endpoint           text NOT NULL,
    status             smallint NOT NULL,
    retry_count        smallint NOT NULL,
    is_blocked         boolean NOT NULL,
    requests           bigint NOT NULL,
    input_tokens       bigint NOT NULL,
    output_tokens      bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_5m_tokens bigint NOT NULL,
    cache_write_1h_tokens bigint NOT NULL,
    cost               numeric(30, 15) NOT NULL,
    duration_ms        bigint NOT NULL,
    PRIMARY KEY (user_id, start, key_id, provider_id, model, upstream_model, endpoint, status, retry_count, is_blocked)
);
CREATE INDEX usage_key_days_key ON usage_key_days (key_id, start);

-- What the charts show: per user, without what was blocked and without calls that do no work of their own.
CREATE TABLE usage_user_slots (
    owner_id bigint NOT NULL,
    span     smallint NOT NULL CHECK (span IN (15, 1440)),
    start    timestamptz NOT NULL,
    user_id  bigint NOT NULL,
    requests bigint NOT NULL,
    cost     numeric(30, 15) NOT NULL,
    PRIMARY KEY (owner_id, span, start, user_id)
);

-- Pages of the log under a filter that few records pass. What most records pass needs no index of its own.
DROP INDEX usage_records_provider;
CREATE INDEX usage_records_provider ON usage_records (provider_id, created_at DESC, id DESC)
    WHERE provider_id IS NOT NULL;
CREATE INDEX usage_records_model ON usage_records (owner_id, model, created_at DESC, id DESC);
CREATE INDEX usage_records_upstream ON usage_records (owner_id, upstream_model, created_at DESC, id DESC)
    WHERE upstream_model <> model;
CREATE INDEX usage_records_status ON usage_records (owner_id, status, created_at DESC, id DESC)
    WHERE status <> 200;
CREATE INDEX usage_records_not_ok ON usage_records (owner_id, created_at DESC, id DESC) WHERE status <> 200;
CREATE INDEX usage_records_retried ON usage_records (owner_id, created_at DESC, id DESC) WHERE retry_count > 0;
CREATE INDEX usage_records_endpoint ON usage_records (owner_id, endpoint, created_at DESC, id DESC);
