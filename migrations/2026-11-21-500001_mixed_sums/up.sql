-- Several filters at once: what the first column does not decide is decided in the index, before a row is read.
-- New indexes first, so that reading goes on while they are built; one table per migration, so that nobody waits for
-- us who holds what we wait for.
CREATE INDEX new_facets_model ON usage_facets (owner_id, model, endpoint, status, retry_count, start)
    WHERE span = 1440;
CREATE INDEX new_facets_upstream ON usage_facets (owner_id, upstream_model, endpoint, status, retry_count, start)
    WHERE span = 1440 AND upstream_model <> '';
CREATE INDEX new_facets_provider ON usage_facets
    (owner_id, provider_id, model, upstream_model, endpoint, status, retry_count, start) WHERE span = 1440;
CREATE INDEX new_facets_not_ok ON usage_facets
    (owner_id, status, provider_id, model, upstream_model, endpoint, retry_count, start)
    WHERE span = 1440 AND status <> 200;
CREATE INDEX usage_facets_retried ON usage_facets
    (owner_id, provider_id, model, upstream_model, endpoint, status, retry_count, start)
    WHERE span = 1440 AND retry_count > 0;

DROP INDEX usage_facets_model, usage_facets_upstream, usage_facets_provider, usage_facets_not_ok;
ALTER INDEX new_facets_model RENAME TO usage_facets_model;
ALTER INDEX new_facets_upstream RENAME TO usage_facets_upstream;
ALTER INDEX new_facets_provider RENAME TO usage_facets_provider;
ALTER INDEX new_facets_not_ok RENAME TO usage_facets_not_ok;
