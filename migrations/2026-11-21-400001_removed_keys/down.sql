DROP INDEX keys_hash_removed;
