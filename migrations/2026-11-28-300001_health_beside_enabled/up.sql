-- A refused credential is a state of health beside `enabled`, which only people set. Providers that the old rule
-- switched off are on again and stay out of use by their health, until the proxies find the credential accepted.
-- Two small tables; no row of the ledger is touched.
UPDATE generation SET value = value + 1;

INSERT INTO provider_health (provider_id, owner_id, state, reason, failures, epoch, generation)
SELECT id, owner_id, 'disabled', 'credential', 3, 1, (SELECT value FROM generation)
FROM providers
WHERE disabled_reason = 'credential' AND NOT enabled AND deleted_at IS NULL
ON CONFLICT (provider_id) DO UPDATE
SET state = 'disabled', until = NULL, reason = 'credential', epoch = provider_health.epoch + 1,
    generation = excluded.generation
WHERE provider_health.state <> 'disabled';

UPDATE providers SET enabled = true, generation = (SELECT value FROM generation), updated_at = now()
WHERE disabled_reason = 'credential' AND NOT enabled AND deleted_at IS NULL;

COMMENT ON COLUMN providers.disabled_reason IS
    'Why the health of the provider keeps it out of use, beside enabled; empty again when it comes back.';

NOTIFY switchyard_generation;
