-- Whether a key's reports show every key's usage and not only its own.
ALTER TABLE keys ADD COLUMN admin BIGINT NOT NULL DEFAULT 0 CHECK (admin IN (0, 1));
