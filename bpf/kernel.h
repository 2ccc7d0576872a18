/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The few definitions of the kernel's interface that the programs here need, so that building them
 * takes a compiler and nothing else. Numbers and layouts are those of linux/bpf.h, linux/in.h and
 * RFC 791, 768, 8200 and IEEE 802.1Q.
 */
#ifndef BEAST_KERNEL_H
#define BEAST_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

/* How maps are declared: a struct whose members' types carry the numbers. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, value) value *name
#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

enum { MAP_HASH = 1, MAP_ARRAY = 2 };
enum { MAP_MMAPABLE = 1 << 10 };

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*const ktime_ns)(void) = (void *)5;
static u32 (*const processor)(void) = (void *)8;

/* Keeps the compiler from moving memory accesses across. */
#define BARRIER() asm volatile("" ::: "memory")
/* Keeps the compiler from knowing where a value came from. */
#define OPAQUE(value) asm volatile("" : "+r"(value))
#define READ(place) (*(const volatile __typeof__(place) *)&(place))
#define WRITE(place, value) (*(volatile __typeof__(place) *)&(place) = (value))

/* The target is little-endian; the network is not. */
#define NET16(value) ((u16)__builtin_bswap16(value))

struct ethernet {
	u8 to[6];
	u8 from[6];
	u16 kind;
} __attribute__((packed));

struct vlan {
	u16 tag;
	u16 kind;
} __attribute__((packed));

struct ipv4 {
	u8 version_len;
	u8 service;
	u16 len;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 from;
	u32 to;
} __attribute__((packed));

struct ipv6 {
	u32 version_flow;
	u16 payload_len;
	u8 next;
	u8 hop_limit;
	u32 from[4];
	u32 to[4];
} __attribute__((packed));

struct udp {
	u16 from;
	u16 to;
	u16 len;
	u16 checksum;
} __attribute__((packed));

#endif
