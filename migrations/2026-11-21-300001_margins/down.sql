ALTER TABLE usage_zone RENAME TO rollup_zone;
ALTER TABLE usage_hourly RESET (fillfactor);
ALTER TABLE usage_user_slots RESET (fillfactor);
ALTER TABLE usage_key_days RESET (fillfactor);
ALTER TABLE usage_facets RESET (fillfactor);
DROP INDEX usage_user_slots_user, usage_facets_not_ok, usage_facets_provider, usage_facets_upstream, usage_facets_model;
DROP TABLE usage_margins;
