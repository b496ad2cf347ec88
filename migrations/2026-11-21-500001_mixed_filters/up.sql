-- Several filters at once: what the first column does not decide is decided in the index, before a row is read.

-- Days of the sums. They have few rows of each kind, and rows that change stay where they are.
DROP INDEX usage_facets_model, usage_facets_upstream, usage_facets_provider, usage_facets_not_ok;
CREATE INDEX usage_facets_model ON usage_facets (owner_id, model, endpoint, status, retry_count, start)
    WHERE span = 1440;
CREATE INDEX usage_facets_upstream ON usage_facets (owner_id, upstream_model, endpoint, status, retry_count, start)
    WHERE span = 1440 AND upstream_model <> '';
CREATE INDEX usage_facets_provider ON usage_facets
    (owner_id, provider_id, model, upstream_model, endpoint, status, retry_count, start) WHERE span = 1440;
CREATE INDEX usage_facets_not_ok ON usage_facets
    (owner_id, status, provider_id, model, upstream_model, endpoint, retry_count, start)
    WHERE span = 1440 AND status <> 200;
CREATE INDEX usage_facets_retried ON usage_facets
    (owner_id, provider_id, model, upstream_model, endpoint, status, retry_count, start)
    WHERE span = 1440 AND retry_count > 0;

-- Pages of the log. What is rare may carry more columns; what all records have, only a number.
DROP INDEX usage_records_model, usage_records_status, usage_records_not_ok, usage_records_retried;
CREATE INDEX usage_records_model ON usage_records (owner_id, model, created_at DESC, id DESC, provider_id);
CREATE INDEX usage_records_status ON usage_records
    (owner_id, status, created_at DESC, id DESC, provider_id, model, upstream_model) WHERE status <> 200;
CREATE INDEX usage_records_not_ok ON usage_records
    (owner_id, created_at DESC, id DESC, provider_id, model, upstream_model, retry_count) WHERE status <> 200;
CREATE INDEX usage_records_retried ON usage_records
    (owner_id, created_at DESC, id DESC, provider_id, model, upstream_model, retry_count, status)
    WHERE retry_count > 0;
