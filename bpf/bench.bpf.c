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

/*
 * How the kept request is sent. All of it in one run of the facility: each waits for the kernel to let
 * go of a program before and after, tens of milliseconds, so that a run for a burst would measure that.
 */
struct pace {
	/* Nanoseconds from one frame to the next; 0 is as fast as it goes. */
	u64 interval;
	/* No more is sent. */
	u64 over;
	/* Whose turn it is, and how many were sent: the program's own. */
	u64 next;
	u64 sent;
};

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(map_flags, MAP_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct pace);
} paces SECTION(".maps");

/* Looks at the clock while waiting: longer than the longest interval. */
enum { LOOKS_MAX = 2048 };
/* A sender that was held up makes up for no more than this: a ring would not hold it. */
enum { BEHIND_NS_MAX = 50000 };

/* Sends the kept request out of the interface the frame is said to come from, when it is its turn. */
SECTION("xdp") int bench_send(struct xdp_md *ctx)
{
	const u32 zero = 0;
	struct pace *pace = map_lookup(&paces, &zero);
	if (!pace || READ(pace->over) || restore(ctx) != XDP_PASS)
		return XDP_DROP;
	u64 interval = READ(pace->interval);
	if (interval) {
		u64 now = ktime_ns(), next = pace->next;
		for (int i = 0; i < LOOKS_MAX && now < next; i++)
			now = ktime_ns();
		if (now > next + BEHIND_NS_MAX)
			next = now;
		pace->next = next + interval;
	}
	WRITE(pace->sent, pace->sent + 1);
	return XDP_TX;
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
