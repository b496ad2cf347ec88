-- A credential that belonged to a deleted key is no guess: its scripts must not lock their address out.
CREATE INDEX keys_hash_removed ON keys (hash) WHERE deleted_at IS NOT NULL;
