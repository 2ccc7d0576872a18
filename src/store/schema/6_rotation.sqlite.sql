-- From when on a key may not be used any more; NULL is never.
ALTER TABLE keys ADD COLUMN expires_ms INTEGER;

-- Secrets that a rotation has replaced. Each goes on, under its own public id, until its overlap ends.
CREATE TABLE old_secrets (
    public_id   INTEGER PRIMARY KEY,
    key_id      INTEGER NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    v2_sealed   BLOB NOT NULL CHECK (length(v2_sealed) = 60),
    until_ms    INTEGER NOT NULL
) STRICT;

CREATE INDEX old_secrets_by_key ON old_secrets (key_id);

CREATE TRIGGER old_secret_added AFTER INSERT ON old_secrets BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
CREATE TRIGGER old_secret_changed AFTER UPDATE ON old_secrets BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
CREATE TRIGGER old_secret_removed AFTER DELETE ON old_secrets BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
