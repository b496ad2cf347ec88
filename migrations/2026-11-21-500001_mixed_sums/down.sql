DROP INDEX usage_facets_model, usage_facets_upstream, usage_facets_provider, usage_facets_not_ok, usage_facets_retried;
CREATE INDEX usage_facets_model ON usage_facets (owner_id, model, start) WHERE span = 1440;
CREATE INDEX usage_facets_upstream ON usage_facets (owner_id, upstream_model, start)
    WHERE span = 1440 AND upstream_model <> '';
CREATE INDEX usage_facets_provider ON usage_facets (owner_id, provider_id, start) WHERE span = 1440;
CREATE INDEX usage_facets_not_ok ON usage_facets (owner_id, status, start) WHERE span = 1440 AND status <> 200;
