-- Usage, rolled up by the drain of the journal. Rows and the position they bring the drain to are
-- written in one transaction, so that every record is counted exactly once. A row that is there
-- already is added to.
--
-- asset, exchange, transport and status are the numbers of the usage record: 0 is the status of a
-- price. A request for several assets counts once, under its first asset; prices counts them all.
-- h00 to h31 count latencies in the buckets of store::Histogram.

-- second: seconds since the Unix epoch, by the time of the record.
CREATE TABLE usage_seconds (
    second         BIGINT NOT NULL,
    key_id         BIGINT NOT NULL,
    asset          BIGINT NOT NULL,
    exchange       BIGINT NOT NULL,
    transport      BIGINT NOT NULL,
    status         BIGINT NOT NULL,
    requests       BIGINT NOT NULL,
    prices         BIGINT NOT NULL,
    latency_ns_sum BIGINT NOT NULL,
    latency_ns_max BIGINT NOT NULL,
    h00 BIGINT NOT NULL, h01 BIGINT NOT NULL, h02 BIGINT NOT NULL, h03 BIGINT NOT NULL,
    h04 BIGINT NOT NULL, h05 BIGINT NOT NULL, h06 BIGINT NOT NULL, h07 BIGINT NOT NULL,
    h08 BIGINT NOT NULL, h09 BIGINT NOT NULL, h10 BIGINT NOT NULL, h11 BIGINT NOT NULL,
    h12 BIGINT NOT NULL, h13 BIGINT NOT NULL, h14 BIGINT NOT NULL, h15 BIGINT NOT NULL,
    h16 BIGINT NOT NULL, h17 BIGINT NOT NULL, h18 BIGINT NOT NULL, h19 BIGINT NOT NULL,
    h20 BIGINT NOT NULL, h21 BIGINT NOT NULL, h22 BIGINT NOT NULL, h23 BIGINT NOT NULL,
    h24 BIGINT NOT NULL, h25 BIGINT NOT NULL, h26 BIGINT NOT NULL, h27 BIGINT NOT NULL,
    h28 BIGINT NOT NULL, h29 BIGINT NOT NULL, h30 BIGINT NOT NULL, h31 BIGINT NOT NULL,
    PRIMARY KEY (second, key_id, asset, exchange, transport, status)
);

CREATE INDEX usage_seconds_by_key ON usage_seconds (key_id, second);

-- The same, added up by hour: hours since the Unix epoch. Kept longer than the seconds.
CREATE TABLE usage_hours (
    hour           BIGINT NOT NULL,
    key_id         BIGINT NOT NULL,
    asset          BIGINT NOT NULL,
    exchange       BIGINT NOT NULL,
    transport      BIGINT NOT NULL,
    status         BIGINT NOT NULL,
    requests       BIGINT NOT NULL,
    prices         BIGINT NOT NULL,
    latency_ns_sum BIGINT NOT NULL,
    latency_ns_max BIGINT NOT NULL,
    h00 BIGINT NOT NULL, h01 BIGINT NOT NULL, h02 BIGINT NOT NULL, h03 BIGINT NOT NULL,
    h04 BIGINT NOT NULL, h05 BIGINT NOT NULL, h06 BIGINT NOT NULL, h07 BIGINT NOT NULL,
    h08 BIGINT NOT NULL, h09 BIGINT NOT NULL, h10 BIGINT NOT NULL, h11 BIGINT NOT NULL,
    h12 BIGINT NOT NULL, h13 BIGINT NOT NULL, h14 BIGINT NOT NULL, h15 BIGINT NOT NULL,
    h16 BIGINT NOT NULL, h17 BIGINT NOT NULL, h18 BIGINT NOT NULL, h19 BIGINT NOT NULL,
    h20 BIGINT NOT NULL, h21 BIGINT NOT NULL, h22 BIGINT NOT NULL, h23 BIGINT NOT NULL,
    h24 BIGINT NOT NULL, h25 BIGINT NOT NULL, h26 BIGINT NOT NULL, h27 BIGINT NOT NULL,
    h28 BIGINT NOT NULL, h29 BIGINT NOT NULL, h30 BIGINT NOT NULL, h31 BIGINT NOT NULL,
    PRIMARY KEY (hour, key_id, asset, exchange, transport, status)
);

CREATE INDEX usage_hours_by_key ON usage_hours (key_id, hour);

-- What each key has used in a calendar month of UTC. month: year times 100 plus month, 202601 for
-- January 2026. Never deleted by age: monthly caps are reckoned from it.
CREATE TABLE usage_months (
    key_id   BIGINT NOT NULL,
    month    BIGINT NOT NULL,
    status   BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    prices   BIGINT NOT NULL,
    PRIMARY KEY (key_id, month, status)
);

-- Records drained of every chain, by day (days since the Unix epoch) and key: one side of the
-- closed-books check.
CREATE TABLE drained_records (
    day     BIGINT NOT NULL,
    epoch   BIGINT NOT NULL,
    shard   BIGINT NOT NULL,
    key_id  BIGINT NOT NULL,
    records BIGINT NOT NULL,
    PRIMARY KEY (day, epoch, shard, key_id)
);

-- How far each chain of the journal is drained: next_sequence is the first record that is not.
CREATE TABLE drained_chains (
    epoch         BIGINT NOT NULL,
    shard         BIGINT NOT NULL,
    next_sequence BIGINT NOT NULL,
    updated_ms    BIGINT NOT NULL,
    PRIMARY KEY (epoch, shard)
);

-- Records themselves, where `store.raw_records` asks for them. Times are Unix nanoseconds.
CREATE TABLE usage_records (
    epoch      BIGINT NOT NULL,
    shard      BIGINT NOT NULL,
    sequence   BIGINT NOT NULL,
    time_ns    BIGINT NOT NULL,
    key_id     BIGINT NOT NULL,
    asset      BIGINT NOT NULL,
    prices     BIGINT NOT NULL,
    exchange   BIGINT NOT NULL,
    transport  BIGINT NOT NULL,
    status     BIGINT NOT NULL,
    latency_ns BIGINT NOT NULL,
    -- The request's own id, raw; empty when it had none.
    request    BYTEA NOT NULL,
    PRIMARY KEY (epoch, shard, sequence)
);
CREATE INDEX usage_records_by_time ON usage_records (time_ns);
