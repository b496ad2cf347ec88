-- What was said last in a conversation, where STORE_SESSION_MESSAGES keeps it for some minutes. Need not survive a
-- crash of Postgres.
CREATE UNLOGGED TABLE session_messages (
    owner_id   bigint NOT NULL,
    user_id    bigint NOT NULL,
    session_id text NOT NULL,
    seen_at    timestamptz NOT NULL,
    -- A JSON array, sealed under SECRETS_KEY with the identity 'messages:<owner>:<user>:<session>'.
    sealed     bytea NOT NULL,
    PRIMARY KEY (user_id, session_id)
);
CREATE INDEX session_messages_seen ON session_messages (seen_at);
