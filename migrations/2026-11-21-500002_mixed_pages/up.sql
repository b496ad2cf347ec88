-- Pages of the log under several filters: what is rare may carry more columns; what all records have, only a number.
CREATE INDEX new_records_model ON usage_records (owner_id, model, created_at DESC, id DESC, provider_id);
CREATE INDEX new_records_status ON usage_records
    (owner_id, status, created_at DESC, id DESC, provider_id, model, upstream_model) WHERE status <> 200;
CREATE INDEX new_records_not_ok ON usage_records
    (owner_id, created_at DESC, id DESC, provider_id, model, upstream_model, retry_count) WHERE status <> 200;
CREATE INDEX new_records_retried ON usage_records
    (owner_id, created_at DESC, id DESC, provider_id, model, upstream_model, retry_count, status)
    WHERE retry_count > 0;

DROP INDEX usage_records_model, usage_records_status, usage_records_not_ok, usage_records_retried;
ALTER INDEX new_records_model RENAME TO usage_records_model;
ALTER INDEX new_records_status RENAME TO usage_records_status;
ALTER INDEX new_records_not_ok RENAME TO usage_records_not_ok;
ALTER INDEX new_records_retried RENAME TO usage_records_retried;
