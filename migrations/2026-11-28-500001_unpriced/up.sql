-- Requests whose model has no price: why there is no cost, and what counts towards money limits in its place.
ALTER TABLE usage_records ADD COLUMN unpriced text;
ALTER TABLE usage_records ADD COLUMN held_cost numeric(30, 15);

-- Sums per hour of what is held; only where something is. provider_id 0: no provider was reached.
CREATE TABLE usage_held (
    hour        timestamptz NOT NULL,
    owner_id    bigint NOT NULL,
    user_id     bigint NOT NULL,
    key_id      bigint NOT NULL,
    provider_id bigint NOT NULL,
    held_cost   numeric(30, 15) NOT NULL,
    PRIMARY KEY (user_id, hour, key_id, provider_id, owner_id)
);
CREATE INDEX usage_held_key ON usage_held (key_id, hour);
CREATE INDEX usage_held_provider ON usage_held (provider_id, hour);
