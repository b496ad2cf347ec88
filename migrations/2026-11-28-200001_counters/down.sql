ALTER TABLE proxies DROP COLUMN reported_ms;
ALTER TABLE proxies DROP COLUMN counter_naming;
ALTER TABLE generation DROP COLUMN counter_naming;
