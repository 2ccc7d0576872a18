/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Passes everything up. The other end of a veth pair takes what a program sends back only while it has a
 * program itself; tests and benches give it this one.
 */
#include "kernel.h"

SECTION("xdp") int beast_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SECTION("license") const char license_text[] = "MIT OR Apache-2.0";
