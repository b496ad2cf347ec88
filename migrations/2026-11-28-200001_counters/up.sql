-- How the counters of limits are called in Redis: 1 by user and by provider, 2 by owner. Raised once every proxy that
-- was seen lately knows it; proxies that use different names count apart.
ALTER TABLE generation ADD COLUMN counter_naming SMALLINT NOT NULL DEFAULT 1;
-- The highest that a proxy knows.
ALTER TABLE proxies ADD COLUMN counter_naming SMALLINT NOT NULL DEFAULT 1;
-- All records of its requests that ended before this instant (Unix ms) are in the ledger; NULL: it did not say.
ALTER TABLE proxies ADD COLUMN reported_ms BIGINT;
