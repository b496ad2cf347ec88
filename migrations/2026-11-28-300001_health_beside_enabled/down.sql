UPDATE generation SET value = value + 1;

UPDATE providers SET enabled = false, generation = (SELECT value FROM generation), updated_at = now()
WHERE disabled_reason = 'credential' AND deleted_at IS NULL
  AND id IN (SELECT provider_id FROM provider_health WHERE state = 'disabled');

COMMENT ON COLUMN providers.disabled_reason IS NULL;

NOTIFY switchyard_generation;
