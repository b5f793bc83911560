// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// A thread that is inside SSL_read, SSL_write or a variant: what it was asked to do, and which socket it then used.
struct fc_call {
	u64 ssl;
	u64 buffer;
	u64 count_at; // where the _ex variants store the count, else 0
	u64 begun;
	u64 cookie;
	u32 dir;
	u32 pad;
};

// Calls nest where TLS travels inside TLS, to a proxy: the call for the inner stream makes one for the outer.
struct fc_nested_calls {
	struct fc_call outer, inner;
	u64 depth; // 1 or 2
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64); // tgid << 32 | tid
	__type(value, struct fc_nested_calls);
} fc_calls SEC(".maps");
