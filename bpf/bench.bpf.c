/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The program under a bench. A run that answers turns the request into something else, so each run
 * first puts the request back; what that costs alone is measured apart and taken off.
 */
#include "answer.h"

enum { FRAME_LEN = 130 };

struct frame {
	u8 bytes[FRAME_LEN];
	u8 unused[6];
};

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct frame);
} frames SECTION(".maps");

/* Writes the kept request over the frame. */
INLINE int restore(struct xdp_md *ctx)
{
	void *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
	const u32 zero = 0;
	struct frame *frame = map_lookup(&frames, &zero);
	if (!frame || data + FRAME_LEN > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, frame->bytes, FRAME_LEN);
	BARRIER();
	return XDP_PASS;
}

SECTION("xdp") int bench_restore(struct xdp_md *ctx)
{
	return restore(ctx);
}

/* The program as it is, for requests that are passed up: they stay what they are. */
SECTION("xdp") int bench_plain(struct xdp_md *ctx)
{
	return answer(ctx);
}

SECTION("xdp") int bench_answer(struct xdp_md *ctx)
{
	restore(ctx);
	return answer(ctx);
}

/* Sends the kept request out of the interface the frame is said to come from. */
SECTION("xdp") int bench_send(struct xdp_md *ctx)
{
	return restore(ctx) == XDP_PASS ? XDP_TX : XDP_ABORTED;
}

struct counts {
	u64 answers;
};

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct counts);
} counted SECTION(".maps");

/* Counts frames with an answer of v2 over IPv4 and drops them; everything else goes up. */
SECTION("xdp") int bench_count(struct xdp_md *ctx)
{
	void *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
	const u32 zero = 0;
	u8 *frame = data;
	if (data + FRAME_LEN > end)
		return XDP_PASS;
	if (*(u32 *)(frame + 42) != 0x8102a5be)
		return XDP_PASS;
	struct counts *counts = map_lookup(&counted, &zero);
	if (!counts)
		return XDP_PASS;
	__sync_fetch_and_add(&counts->answers, 1);
	return XDP_DROP;
}

SECTION("license") const char license_text[] = "MIT OR Apache-2.0";
