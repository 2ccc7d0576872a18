-- Numbers of accounts and keys stand in usage records for ever: AUTOINCREMENT never gives one twice.
-- Times are Unix milliseconds.

CREATE TABLE instance (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- epoch: starts so far. keys_version: changes so far to what a key may do.
INSERT INTO instance VALUES ('epoch', 0), ('keys_version', 0);

CREATE TABLE accounts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE tiers (
    name        TEXT PRIMARY KEY,
    unlimited   INTEGER NOT NULL CHECK (unlimited IN (0, 1)),
    qps         INTEGER NOT NULL CHECK (qps BETWEEN 0 AND 4294967295),
    burst       INTEGER NOT NULL CHECK (burst BETWEEN 0 AND 4294967295),
    monthly_cap INTEGER CHECK (monthly_cap >= 0)
) STRICT;

INSERT INTO tiers (name, unlimited, qps, burst, monthly_cap) VALUES
    ('free',     0,     10,     20,    100000),
    ('basic',    0,    100,    200,  10000000),
    ('pro',      0,   1000,   2000, 100000000),
    ('lifetime', 0,   1000,   2000, 100000000),
    ('partner',  1,      0,      0,      NULL),
    ('stress',   0, 100000, 100000,      NULL);

CREATE TABLE keys (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id  INTEGER NOT NULL REFERENCES accounts (id),
    -- The 64 bits of the public id, read as a signed number.
    public_id   INTEGER NOT NULL UNIQUE,
    -- SHA-256 of the secret.
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    -- AES-256-GCM under instance.key: nonce (12), request key and answer key (32), tag (16).
    v2_sealed   BLOB NOT NULL CHECK (length(v2_sealed) = 60),
    tier        TEXT NOT NULL REFERENCES tiers (name) ON UPDATE CASCADE,
    -- Prefixes with spaces between.
    networks    TEXT NOT NULL,
    note        TEXT NOT NULL,
    created_ms  INTEGER NOT NULL,
    revoked_ms  INTEGER
) STRICT;

CREATE TRIGGER key_added AFTER INSERT ON keys BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
CREATE TRIGGER key_changed AFTER UPDATE ON keys BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
CREATE TRIGGER key_removed AFTER DELETE ON keys BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
CREATE TRIGGER tier_changed AFTER UPDATE ON tiers BEGIN
    UPDATE instance SET value = value + 1 WHERE name = 'keys_version';
END;
