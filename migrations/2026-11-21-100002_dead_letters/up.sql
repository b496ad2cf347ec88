-- Usage records that can never be stored, as they came, with the reason: acknowledged, so that what follows them
-- is stored, and kept, so that a person can look at them. Sent twice, kept once.
CREATE TABLE usage_dead_letters (
    -- SHA-256 of `record`.
    digest      bytea PRIMARY KEY,
    record_id   bytea NOT NULL,
    reason      text NOT NULL,
    -- switchyard.v1.UsageRecord.
    record      bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
