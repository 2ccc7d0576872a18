-- Records of the chain, before next_sequence, that the journal could not give to the drain.
ALTER TABLE drained_chains ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
