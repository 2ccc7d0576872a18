-- Usage, rolled up by the drain of the journal. Rows and the position they bring the drain to are
-- written in one transaction, so that every record is counted exactly once. A row that is there
-- already is added to.
--
-- asset, exchange, transport and status are the numbers of the usage record: 0 is the status of a
-- price. A request for several assets counts once, under its first asset; prices counts them all.
-- h00 to h31 count latencies in the buckets of store::Histogram.

-- second: seconds since the Unix epoch, by the time of the record.
CREATE TABLE usage_seconds (
    second         INTEGER NOT NULL,
    key_id         INTEGER NOT NULL,
    asset          INTEGER NOT NULL,
    exchange       INTEGER NOT NULL,
    transport      INTEGER NOT NULL,
    status         INTEGER NOT NULL,
    requests       INTEGER NOT NULL,
    prices         INTEGER NOT NULL,
    latency_ns_sum INTEGER NOT NULL,
    latency_ns_max INTEGER NOT NULL,
    h00 INTEGER NOT NULL, h01 INTEGER NOT NULL, h02 INTEGER NOT NULL, h03 INTEGER NOT NULL,
    h04 INTEGER NOT NULL, h05 INTEGER NOT NULL, h06 INTEGER NOT NULL, h07 INTEGER NOT NULL,
    h08 INTEGER NOT NULL, h09 INTEGER NOT NULL, h10 INTEGER NOT NULL, h11 INTEGER NOT NULL,
    h12 INTEGER NOT NULL, h13 INTEGER NOT NULL, h14 INTEGER NOT NULL, h15 INTEGER NOT NULL,
    h16 INTEGER NOT NULL, h17 INTEGER NOT NULL, h18 INTEGER NOT NULL, h19 INTEGER NOT NULL,
    h20 INTEGER NOT NULL, h21 INTEGER NOT NULL, h22 INTEGER NOT NULL, h23 INTEGER NOT NULL,
    h24 INTEGER NOT NULL, h25 INTEGER NOT NULL, h26 INTEGER NOT NULL, h27 INTEGER NOT NULL,
    h28 INTEGER NOT NULL, h29 INTEGER NOT NULL, h30 INTEGER NOT NULL, h31 INTEGER NOT NULL,
    PRIMARY KEY (second, key_id, asset, exchange, transport, status)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_seconds_by_key ON usage_seconds (key_id, second);

-- The same, added up by hour: hours since the Unix epoch. Kept longer than the seconds.
CREATE TABLE usage_hours (
    hour           INTEGER NOT NULL,
    key_id         INTEGER NOT NULL,
    asset          INTEGER NOT NULL,
    exchange       INTEGER NOT NULL,
    transport      INTEGER NOT NULL,
    status         INTEGER NOT NULL,
    requests       INTEGER NOT NULL,
    prices         INTEGER NOT NULL,
    latency_ns_sum INTEGER NOT NULL,
    latency_ns_max INTEGER NOT NULL,
    h00 INTEGER NOT NULL, h01 INTEGER NOT NULL, h02 INTEGER NOT NULL, h03 INTEGER NOT NULL,
    h04 INTEGER NOT NULL, h05 INTEGER NOT NULL, h06 INTEGER NOT NULL, h07 INTEGER NOT NULL,
    h08 INTEGER NOT NULL, h09 INTEGER NOT NULL, h10 INTEGER NOT NULL, h11 INTEGER NOT NULL,
    h12 INTEGER NOT NULL, h13 INTEGER NOT NULL, h14 INTEGER NOT NULL, h15 INTEGER NOT NULL,
    h16 INTEGER NOT NULL, h17 INTEGER NOT NULL, h18 INTEGER NOT NULL, h19 INTEGER NOT NULL,
    h20 INTEGER NOT NULL, h21 INTEGER NOT NULL, h22 INTEGER NOT NULL, h23 INTEGER NOT NULL,
    h24 INTEGER NOT NULL, h25 INTEGER NOT NULL, h26 INTEGER NOT NULL, h27 INTEGER NOT NULL,
    h28 INTEGER NOT NULL, h29 INTEGER NOT NULL, h30 INTEGER NOT NULL, h31 INTEGER NOT NULL,
    PRIMARY KEY (hour, key_id, asset, exchange, transport, status)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_hours_by_key ON usage_hours (key_id, hour);

-- What each key has used in a calendar month of UTC. month: year times 100 plus month, 202601 for
-- January 2026. Never deleted by age: monthly caps are reckoned from it.
CREATE TABLE usage_months (
    key_id   INTEGER NOT NULL,
    month    INTEGER NOT NULL,
    status   INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    prices   INTEGER NOT NULL,
    PRIMARY KEY (key_id, month, status)
) STRICT, WITHOUT ROWID;

-- Records drained of every chain, by day (days since the Unix epoch) and key: one side of the
-- closed-books check.
CREATE TABLE drained_records (
    day     INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    shard   INTEGER NOT NULL,
    key_id  INTEGER NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (day, epoch, shard, key_id)
) STRICT, WITHOUT ROWID;

-- How far each chain of the journal is drained: next_sequence is the first record that is not.
CREATE TABLE drained_chains (
    epoch         INTEGER NOT NULL,
    shard         INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL,
    PRIMARY KEY (epoch, shard)
) STRICT, WITHOUT ROWID;

-- Records themselves, where `store.raw_records` asks for them. Times are Unix nanoseconds.
CREATE TABLE usage_records (
    epoch      INTEGER NOT NULL,
    shard      INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    time_ns    INTEGER NOT NULL,
    key_id     INTEGER NOT NULL,
    asset      INTEGER NOT NULL,
    prices     INTEGER NOT NULL,
    exchange   INTEGER NOT NULL,
    transport  INTEGER NOT NULL,
    status     INTEGER NOT NULL,
    latency_ns INTEGER NOT NULL,
    -- The request's own id, raw; empty when it had none.
    request    BLOB NOT NULL,
    PRIMARY KEY (epoch, shard, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_records_by_time ON usage_records (time_ns);
