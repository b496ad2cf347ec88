DROP INDEX usage_records_model, usage_records_status, usage_records_not_ok, usage_records_retried;
CREATE INDEX usage_records_model ON usage_records (owner_id, model, created_at DESC, id DESC);
CREATE INDEX usage_records_status ON usage_records (owner_id, status, created_at DESC, id DESC)
    WHERE status <> 200;
CREATE INDEX usage_records_not_ok ON usage_records (owner_id, created_at DESC, id DESC) WHERE status <> 200;
CREATE INDEX usage_records_retried ON usage_records (owner_id, created_at DESC, id DESC) WHERE retry_count > 0;

DROP INDEX usage_facets_model, usage_facets_upstream, usage_facets_provider, usage_facets_not_ok, usage_facets_retried;
CREATE INDEX usage_facets_model ON usage_facets (owner_id, model, start) WHERE span = 1440;
CREATE INDEX usage_facets_upstream ON usage_facets (owner_id, upstream_model, start)
    WHERE span = 1440 AND upstream_model <> '';
CREATE INDEX usage_facets_provider ON usage_facets (owner_id, provider_id, start) WHERE span = 1440;
CREATE INDEX usage_facets_not_ok ON usage_facets (owner_id, status, start) WHERE span = 1440 AND status <> 200;
