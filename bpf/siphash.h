/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SipHash-2-4 (Aumasson and Bernstein, 2012) of whole little-endian words. */
#ifndef BEAST_SIPHASH_H
#define BEAST_SIPHASH_H

#include "kernel.h"

struct sip {
	u64 v0, v1, v2, v3;
};

#define ROTATE(value, bits) (((value) << (bits)) | ((value) >> (64 - (bits))))

INLINE void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = ROTATE(s->v1, 13) ^ s->v0;
	s->v3 = ROTATE(s->v3, 16) ^ s->v2;
	s->v0 = ROTATE(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = ROTATE(s->v1, 17) ^ s->v2;
	s->v3 = ROTATE(s->v3, 21) ^ s->v0;
	s->v2 = ROTATE(s->v2, 32);
}

INLINE void sip_begin(struct sip *s, u64 key0, u64 key1)
{
	s->v0 = key0 ^ 0x736f6d6570736575ULL;
	s->v1 = key1 ^ 0x646f72616e646f6dULL;
	s->v2 = key0 ^ 0x6c7967656e657261ULL;
	s->v3 = key1 ^ 0x7465646279746573ULL;
}

INLINE void sip_word(struct sip *s, u64 word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

/* `words` is how many were taken in. */
INLINE u64 sip_end(struct sip *s, u64 words)
{
	sip_word(s, (words * 8) << 56);
	s->v2 ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

#endif
