-- Hours added up further, for summaries that ask for less: without assets and exchanges, and without
-- keys. Written and forgotten together with usage_hours, whose columns these are.

CREATE TABLE usage_key_hours (
    hour           BIGINT NOT NULL,
    key_id         BIGINT NOT NULL,
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
    PRIMARY KEY (hour, key_id, transport, status)
);

CREATE TABLE usage_asset_hours (
    hour           BIGINT NOT NULL,
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
    PRIMARY KEY (hour, asset, exchange, transport, status)
);

INSERT INTO usage_key_hours (
    hour, key_id, transport, status, requests, prices, latency_ns_sum, latency_ns_max,
    h00, h01, h02, h03, h04, h05, h06, h07, h08, h09, h10, h11, h12, h13, h14, h15,
    h16, h17, h18, h19, h20, h21, h22, h23, h24, h25, h26, h27, h28, h29, h30, h31
) SELECT
    hour, key_id, transport, status, sum(requests), sum(prices), sum(latency_ns_sum), max(latency_ns_max),
    sum(h00), sum(h01), sum(h02), sum(h03), sum(h04), sum(h05), sum(h06), sum(h07),
    sum(h08), sum(h09), sum(h10), sum(h11), sum(h12), sum(h13), sum(h14), sum(h15),
    sum(h16), sum(h17), sum(h18), sum(h19), sum(h20), sum(h21), sum(h22), sum(h23),
    sum(h24), sum(h25), sum(h26), sum(h27), sum(h28), sum(h29), sum(h30), sum(h31)
FROM usage_hours GROUP BY hour, key_id, transport, status;

INSERT INTO usage_asset_hours (
    hour, asset, exchange, transport, status, requests, prices, latency_ns_sum, latency_ns_max,
    h00, h01, h02, h03, h04, h05, h06, h07, h08, h09, h10, h11, h12, h13, h14, h15,
    h16, h17, h18, h19, h20, h21, h22, h23, h24, h25, h26, h27, h28, h29, h30, h31
) SELECT
    hour, asset, exchange, transport, status, sum(requests), sum(prices), sum(latency_ns_sum), max(latency_ns_max),
    sum(h00), sum(h01), sum(h02), sum(h03), sum(h04), sum(h05), sum(h06), sum(h07),
    sum(h08), sum(h09), sum(h10), sum(h11), sum(h12), sum(h13), sum(h14), sum(h15),
    sum(h16), sum(h17), sum(h18), sum(h19), sum(h20), sum(h21), sum(h22), sum(h23),
    sum(h24), sum(h25), sum(h26), sum(h27), sum(h28), sum(h29), sum(h30), sum(h31)
FROM usage_hours GROUP BY hour, asset, exchange, transport, status;
