DROP INDEX usage_records_model, usage_records_status, usage_records_not_ok, usage_records_retried;
CREATE INDEX usage_records_model ON usage_records (owner_id, model, created_at DESC, id DESC);
CREATE INDEX usage_records_status ON usage_records (owner_id, status, created_at DESC, id DESC)
    WHERE status <> 200;
CREATE INDEX usage_records_not_ok ON usage_records (owner_id, created_at DESC, id DESC) WHERE status <> 200;
CREATE INDEX usage_records_retried ON usage_records (owner_id, created_at DESC, id DESC) WHERE retry_count > 0;
