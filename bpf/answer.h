/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Answers v2 price requests where the driver receives them.
 *
 *   frame ─► is it a plain v2 request to us? ─► key ─► window ─► tag ─► asset ─► fresh? ─► slot ─► token
 *              │ no                              │       │        │       │        │         │       │
 *              └───────────── XDP_PASS ◄─────────┴───────┴────────┴───────┴────────┴─────────┴───────┘
 *                                                    record ─► answer over the request ─► XDP_TX ◄─┘
 *
 * What it is not sure of goes up to the socket, which answers or refuses it as ever; so nothing here
 * writes to a frame or to the books before everything is known to be right. The record is written
 * before the frame leaves.
 */
#ifndef BEAST_ANSWER_H
#define BEAST_ANSWER_H

#include "kernel.h"
#include "maps.h"
#include "siphash.h"

enum { ANSWER_LEN = 88, ANSWER_WORDS = ANSWER_LEN / 8, UDP_LEN = sizeof(struct udp) + ANSWER_LEN };
enum { UDP = 17, TTL = 64 };
#define KIND_IPV4 NET16(0x0800)
#define KIND_IPV6 NET16(0x86dd)
#define KIND_VLAN NET16(0x8100)
#define KIND_SERVICE_VLAN NET16(0x88a8)
/* Magic, version 2, kind 01, no exchange named, zeros. */
#define REQUEST_HEAD 0x000000000102a5beULL
#define MS 1000000ULL
#define WINDOW_MS 10000ULL
/* A request's time beyond this is absurd; below it a thousand times a million cannot overflow. */
#define TIME_MS_MAX (1ULL << 43)


INLINE u32 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/*
 * The sum of the halves of words. The words' own sum may lose what is carried out of it: their upper
 * halves' sum does not, and tells what the lower ones' is.
 */
struct halves {
	u64 words, upper;
};

INLINE void add(struct halves *sum, u64 word)
{
	sum->words += word;
	sum->upper += word >> 32;
}

INLINE u64 total(const struct halves *sum)
{
	return sum->upper + (sum->words - (sum->upper << 32));
}

INLINE u64 sum_ipv6(const u32 *address)
{
	return (u64)address[0] + address[1] + address[2] + address[3];
}

INLINE int pass(struct lane *lane, enum pass reason)
{
	lane->passed[reason]++;
	return XDP_PASS;
}

INLINE int is_ours_ipv4(const struct served *served, u32 to)
{
#pragma unroll
	for (int i = 0; i < ADDRESSES_MAX; i++) {
		if (!served->ipv4[i])
			return 0;
		if (served->ipv4[i] == to)
			return 1;
	}
	return 0;
}

INLINE int is_ours_ipv6(const struct served *served, u64 high, u64 low)
{
#pragma unroll
	for (int i = 0; i < ADDRESSES_MAX; i++) {
		if (!(served->ipv6[i][0] | served->ipv6[i][1]))
			return 0;
		if (served->ipv6[i][0] == high && served->ipv6[i][1] == low)
			return 1;
	}
	return 0;
}

/* No answer goes to an address that nobody sends from: the stack drops such requests. */
INLINE int is_sender_ipv4(u32 from)
{
	u8 first = from & 0xff;
	return first != 0 && first != 127 && first < 224;
}

INLINE int is_sender_ipv6(const struct ipv6 *ip)
{
	u8 first = ip->from[0] & 0xff;
	u32 start = ip->from[0] | ip->from[1] | ip->from[2];
	/* Multicast; unspecified, loopback, or an IPv4 address in disguise. */
	return first != 0xff && start != 0 && !(ip->from[0] == 0 && ip->from[1] == 0);
}

/*
 * Whether a UDP checksum holds. `pseudo` is the sum of addresses, protocol and length, `sum` that of
 * everything. A sender on this machine may have left the rest of the work to hardware that is not
 * there: then the field holds the sum of the pseudo header.
 */
INLINE int is_checksum_right(u16 field, u64 pseudo, u64 sum)
{
	return fold(sum) == 0xffff || fold(pseudo) == field;
}

INLINE struct price *find_price(const struct settings *set, u64 low, u64 high)
{
	u32 start = ((low ^ ROTATE(high, 29)) * set->symbol_seed) >> (set->symbol_shift & 63);
#pragma unroll
	for (u32 i = 0; i < PROBES_MAX; i++) {
		u32 index = start + i;
		struct price *price = map_lookup(&prices, &index);
		if (!price)
			return 0;
		if (price->symbol[0] == low && price->symbol[1] == high)
			return price;
	}
	return 0;
}

INLINE int answer(struct xdp_md *ctx)
{
	void *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
	const u32 zero = 0;

	/* Ethernet, up to two VLAN tags. */
	struct ethernet *eth = data;
	u64 at = sizeof(*eth);
	if (data + sizeof(*eth) + 2 * sizeof(struct vlan) + sizeof(struct ipv4) > end)
		return XDP_PASS;
	u16 kind = eth->kind;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (kind == KIND_VLAN || kind == KIND_SERVICE_VLAN) {
			struct vlan *vlan = data + at;
			kind = vlan->kind;
			at += sizeof(*vlan);
		}
	}

	/* IP without options or extension headers, whole, from somebody, to us; UDP to our port. */
	struct settings *set;
	struct ipv4 *ip4 = data + at;
	struct ipv6 *ip6 = data + at;
	struct udp *udp;
	u64 addresses;
	if (kind == KIND_IPV4) {
		udp = (void *)(ip4 + 1);
		if ((void *)(udp + 1) + ANSWER_LEN > end)
			return XDP_PASS;
		if (ip4->version_len != 0x45 || ip4->protocol != UDP)
			return XDP_PASS;
		set = map_lookup(&settings, &zero);
		if (!set || udp->to != set->port)
			return XDP_PASS;
		if (ip4->len != NET16(sizeof(*ip4) + UDP_LEN) || (ip4->fragment & NET16(0xbfff)) ||
		    !ip4->ttl || !is_sender_ipv4(ip4->from) || ip4->from == ip4->to ||
		    !is_ours_ipv4(at == sizeof(*eth) ? &set->plain : &set->tagged, ip4->to))
			return XDP_PASS;
		u32 *header = (void *)ip4;
		addresses = (u64)ip4->from + ip4->to;
		if (fold((u64)header[0] + header[1] + header[2] + addresses) != 0xffff)
			return XDP_PASS;
	} else if (kind == KIND_IPV6) {
		udp = (void *)(ip6 + 1);
		if ((void *)(udp + 1) + ANSWER_LEN > end)
			return XDP_PASS;
		if ((ip6->version_flow & 0xf0) != 0x60 || ip6->next != UDP)
			return XDP_PASS;
		set = map_lookup(&settings, &zero);
		if (!set || udp->to != set->port)
			return XDP_PASS;
		u64 from_high = ip6->from[0] | (u64)ip6->from[1] << 32;
		u64 from_low = ip6->from[2] | (u64)ip6->from[3] << 32;
		u64 to_high = ip6->to[0] | (u64)ip6->to[1] << 32;
		u64 to_low = ip6->to[2] | (u64)ip6->to[3] << 32;
		if (ip6->payload_len != NET16(UDP_LEN) || !ip6->hop_limit || !udp->checksum ||
		    !is_sender_ipv6(ip6) || (from_high == to_high && from_low == to_low) ||
		    !is_ours_ipv6(at == sizeof(*eth) ? &set->plain : &set->tagged, to_high, to_low))
			return XDP_PASS;
		addresses = sum_ipv6(ip6->from) + sum_ipv6(ip6->to);
	} else {
		return XDP_PASS;
	}

	u32 cpu = processor();
	struct lane *lane = map_lookup(&lanes, &cpu);
	if (!lane)
		return XDP_PASS;

	/* Nothing behind the request, the lengths agree, the frame was sent to this interface alone. */
	u64 *payload = (void *)(udp + 1);
	u64 *hardware = (void *)eth;
	u64 mine = *(u64 *)set->hardware << 16;
	if ((u64)end - (u64)payload != ANSWER_LEN || udp->len != NET16(UDP_LEN) || !udp->from ||
	    (hardware[0] << 16) != mine || (eth->from[0] & 1))
		return pass(lane, PASS_NOT_SURE);
	u64 w0 = payload[0], w1 = payload[1], w2 = payload[2], w3 = payload[3];
	u64 w4 = payload[4], w5 = payload[5], w6 = payload[6];
	if (w0 != REQUEST_HEAD || (payload[7] | payload[8] | payload[9] | payload[10]))
		return pass(lane, PASS_NOT_SURE);

	/* Addresses, ports and lengths sum up to the same in both directions. */
	u64 pseudo = addresses + NET16(UDP) + udp->len;
	u64 common = pseudo + udp->from + udp->to + udp->len;
	struct halves asked = {0, 0};
	add(&asked, w0);
	add(&asked, w1);
	add(&asked, w2);
	add(&asked, w3);
	add(&asked, w4);
	add(&asked, w5);
	add(&asked, w6);
	if (udp->checksum &&
	    !is_checksum_right(udp->checksum, pseudo, common + udp->checksum + total(&asked)))
		return pass(lane, PASS_NOT_SURE);

	struct key *key = map_lookup(&keys, &w1);
	if (!key)
		return pass(lane, PASS_KEY);

	/* In whole milliseconds the times differ by at most the window; without a division. */
	u64 now = ktime_ns();
	u64 wall = now + READ(set->wall_offset);
	if (w2 < WINDOW_MS || w2 > TIME_MS_MAX || (w2 - WINDOW_MS) * MS > wall ||
	    (w2 + WINDOW_MS + 1) * MS <= wall)
		return pass(lane, PASS_WINDOW);
	if (wall >= key->expires)
		return pass(lane, PASS_KEY);

	struct sip sip;
	sip_begin(&sip, key->request[0], key->request[1]);
	sip_word(&sip, w0);
	sip_word(&sip, w1);
	sip_word(&sip, w2);
	sip_word(&sip, w3);
	sip_word(&sip, w4);
	sip_word(&sip, w5);
	if (sip_end(&sip, 6) != w6)
		return pass(lane, PASS_TAG);

	struct price *price = find_price(set, w4, w5);
	if (!price)
		return pass(lane, PASS_ASSET);
	u64 sequence = READ(price->sequence);
	BARRIER();
	u64 head = price->head, mantissa = price->mantissa, traded = price->traded;
	u64 received = price->received, currency = price->currency;
	u64 fresh_until = price->fresh_until;
	u16 asset = price->asset;
	u8 exchange = price->exchange;
	BARRIER();
	if ((sequence & 1) || READ(price->sequence) != sequence || now >= fresh_until)
		return pass(lane, PASS_STALE);

	/* The books: a slot, a token, the record, and only then the answer. */
	u64 number = lane->head;
	u32 shift = set->lane_shift & 31;
	if (number - READ(lane->tail) >= 1ULL << shift)
		return pass(lane, PASS_FULL);
	u32 slot = (cpu << shift) | ((u32)number & ((1U << shift) - 1));
	struct record *record = map_lookup(&records, &slot);
	if (!record)
		return pass(lane, PASS_FULL);
	if (key->allowance) {
		s64 *allowance = map_lookup(&allowances, &key->allowance);
		if (!allowance)
			return pass(lane, PASS_LIMITED);
		if (__sync_fetch_and_add(allowance, -1) <= 0) {
			__sync_fetch_and_add(allowance, 1);
			return pass(lane, PASS_LIMITED);
		}
	}
	record->time = wall;
	record->key = key->number;
	record->latency_ns = 0;
	record->asset = asset;
	record->assets = 1;
	record->exchange = exchange;
	record->transport = TRANSPORT_UDP_V2;
	record->status = 0;
	record->request_len = 8;
	record->request[0] = w3;
	record->request[1] = 0;
	record->request[2] = 0;
	record->request[3] = 0;
	record->sequence = number;
	BARRIER();
	WRITE(lane->head, number + 1);

	u64 place = lane->place;
	sip_begin(&sip, key->answer[0], key->answer[1]);
	sip_word(&sip, head);
	sip_word(&sip, w3);
	sip_word(&sip, mantissa);
	sip_word(&sip, traded);
	sip_word(&sip, received);
	sip_word(&sip, currency);
	sip_word(&sip, w4);
	sip_word(&sip, w5);
	sip_word(&sip, place);
	sip_word(&sip, number);
	u64 tag = sip_end(&sip, 10);
	payload[0] = head;
	payload[1] = w3;
	payload[2] = mantissa;
	payload[3] = traded;
	payload[4] = received;
	payload[5] = currency;
	payload[6] = w4;
	payload[7] = w5;
	payload[8] = place;
	payload[9] = number;
	payload[10] = tag;

	struct halves answered = {0, 0};
	add(&answered, head);
	add(&answered, w3);
	add(&answered, mantissa);
	add(&answered, traded);
	add(&answered, received);
	add(&answered, currency);
	add(&answered, w4);
	add(&answered, w5);
	add(&answered, place);
	add(&answered, number);
	add(&answered, tag);
	u16 checksum = ~fold(common + total(&answered));
	u16 port = udp->from;
	udp->from = udp->to;
	udp->to = port;
	/* Zero would say that there is none. */
	udp->checksum = checksum ? checksum : 0xffff;

	if (kind == KIND_IPV4) {
		u32 *header = (void *)ip4;
		header[0] = 0x45 | (u32)NET16(sizeof(*ip4) + UDP_LEN) << 16;
		/* No identification, not to be fragmented. */
		header[1] = (u32)NET16(0x4000) << 16;
		header[2] = TTL | UDP << 8;
		header[2] |= (u32)(u16)~fold((u64)header[0] + header[1] + header[2] + addresses) << 16;
		u32 from = ip4->from;
		ip4->from = ip4->to;
		ip4->to = from;
	} else {
		ip6->version_flow = 0x60;
		ip6->hop_limit = TTL;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			u32 from = ip6->from[i];
			ip6->from[i] = ip6->to[i];
			ip6->to[i] = from;
		}
	}
	/* To whom it came from, whole words at a time: six bytes each of to and from. */
	u64 to_from = hardware[0];
	u32 *rest = (void *)(hardware + 1);
	hardware[0] = to_from >> 48 | (u64)*rest << 16 | to_from << 48;
	*rest = to_from >> 16;
	return XDP_TX;
}

#endif
