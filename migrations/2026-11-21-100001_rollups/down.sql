DROP INDEX usage_records_endpoint, usage_records_retried, usage_records_not_ok, usage_records_status,
    usage_records_upstream, usage_records_model, usage_records_provider;
CREATE INDEX usage_records_provider ON usage_records (provider_id, created_at DESC) WHERE provider_id IS NOT NULL;
DROP TABLE usage_user_slots, usage_key_days, usage_facets, rollup_zone;
