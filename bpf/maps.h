/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the program shares with the process. src/xdp/layout.rs holds the same layouts, in words of 64
 * bits; a golden test compares both sides. Each place has one writer:
 *
 *   settings, prices, tails of lanes      the process, through a mapping
 *   keys                                  the process, by system calls
 *   heads of lanes, records, counters     the program, on the processor the lane belongs to
 *   allowances                            both, by atomic additions
 *
 * Order between two places is what x86-64 promises: stores are seen in the order they were made, loads
 * made in the order they were written. The loader refuses other processors.
 */
#ifndef BEAST_MAPS_H
#define BEAST_MAPS_H

#include "kernel.h"

enum { ADDRESSES_MAX = 8, PROBES_MAX = 4 };

/* Addresses we answer for; zero ends both lists. */
struct served {
	u32 ipv4[ADDRESSES_MAX];
	u64 ipv6[ADDRESSES_MAX][2];
};

/* What the process tells the program. */
struct settings {
	/* Unix time less monotonic time, in nanoseconds. */
	u64 wall_offset;
	/* Odd multiplier of the price table. */
	u64 symbol_seed;
	/* 64 less the binary logarithm of the price table's length. */
	u32 symbol_shift;
	/* Binary logarithm of the records a lane holds. */
	u32 lane_shift;
	/* The interface's own hardware address. */
	u8 hardware[6];
	/* The port we answer on, in network order. */
	u16 port;
	/*
	 * The interface's own addresses, and those of its VLANs. A driver that takes tags off shows frames
	 * of both kinds alike, and an answer without its tag would be lost: those for a VLAN's address are
	 * answered only where the tag is seen.
	 */
	struct served plain;
	struct served tagged;
};

/* An asset and the answer that is right for it until `fresh_until`. */
struct price {
	/* Odd while the row is being written. */
	u64 sequence;
	u64 symbol[2];
	/* Monotonic, nanoseconds. */
	u64 fresh_until;
	u16 asset;
	u8 exchange;
	u8 unused[5];
	/* The answer's first word: magic, version, kind, status, flags, exchange, exponent. */
	u64 head;
	u64 mantissa;
	u64 traded;
	u64 received;
	u64 currency;
	u64 room[6];
};

struct key {
	/* Persistent number of the key. */
	u32 number;
	/* Its place among the allowances, 0 when it has no limits. */
	u32 allowance;
	/* Unix time from which on it may not be used any more, nanoseconds. */
	u64 expires;
	u64 request[2];
	u64 answer[2];
};

/* Requests for our port that were passed up, by reason. */
enum pass {
	PASS_NOT_SURE,
	PASS_KEY,
	PASS_TAG,
	PASS_WINDOW,
	PASS_ASSET,
	PASS_STALE,
	PASS_LIMITED,
	PASS_FULL,
	PASS_REASONS,
};

/* One processor's place in the books. */
struct lane {
	/* How many records were written: the number of the next one. */
	u64 head;
	/* The lane's epoch and shard as an answer carries them: epoch u32, shard u16, zero u16. */
	u64 place;
	u64 unused[6];
	/* How many records the process has taken out. On a cache line of its own. */
	u64 tail;
	u64 room[7];
	u64 passed[PASS_REASONS];
	u64 end[8];
};

/* The journal's record, with its number where the journal has a checksum. */
struct record {
	/* Unix time, nanoseconds. */
	u64 time;
	u32 key;
	u32 latency_ns;
	u16 asset;
	u16 assets;
	u8 exchange;
	u8 transport;
	u8 status;
	u8 request_len;
	u64 request[4];
	u64 sequence;
};

enum { TRANSPORT_UDP_V2 = 2 };

/* Lengths of the tables are set by the loader. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct settings);
} settings SECTION(".maps");

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct price);
} prices SECTION(".maps");

struct {
	NUMBER(type, MAP_HASH);
	NUMBER(max_entries, 1);
	TYPE(key, u64);
	TYPE(value, struct key);
} keys SECTION(".maps");

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, s64);
} allowances SECTION(".maps");

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct lane);
} lanes SECTION(".maps");

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct record);
} records SECTION(".maps");

#endif
