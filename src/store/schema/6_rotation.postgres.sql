-- From when on a key may not be used any more; NULL is never.
ALTER TABLE keys ADD COLUMN expires_ms BIGINT;

-- Secrets that a rotation has replaced. Each goes on, under its own public id, until its overlap ends.
CREATE TABLE old_secrets (
    public_id   BIGINT PRIMARY KEY,
    key_id      BIGINT NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
    secret_hash BYTEA NOT NULL CHECK (length(secret_hash) = 32),
    v2_sealed   BYTEA NOT NULL CHECK (length(v2_sealed) = 60),
    until_ms    BIGINT NOT NULL
);

CREATE INDEX old_secrets_by_key ON old_secrets (key_id);

CREATE TRIGGER old_secret_changed AFTER INSERT OR UPDATE OR DELETE ON old_secrets
    FOR EACH ROW EXECUTE FUNCTION count_key_change();
