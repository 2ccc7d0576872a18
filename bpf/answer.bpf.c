/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The program that `serve --xdp` puts on an interface; answer.h has what it does. */
#include "answer.h"

SECTION("xdp") int beast_answer(struct xdp_md *ctx)
{
	return answer(ctx);
}

SECTION("license") const char license_text[] = "MIT OR Apache-2.0";
