-- What each proxy said last of its open requests. Worth nothing after a few seconds, so it need not survive a crash
-- of Postgres.
CREATE UNLOGGED TABLE live (
    proxy_id text PRIMARY KEY,
    seen_at  timestamptz NOT NULL,
    -- An encoded switchyard.v1.Live.
    payload  bytea NOT NULL
);
