// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// One TLS connection of a library: how far we are in each direction. Least recently used go first, because a
// process that dies frees nothing.
struct fc_stream_key {
	u64 ssl;
	u32 tgid;
	u32 execution; // how many programs it has executed: another may have an object at the same address
};

struct fc_stream {
	u64 id;
	u64 cookie;
	u64 out_offset;
	u64 in_offset;
	u32 lost;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct fc_stream_key);
	__type(value, struct fc_stream);
} fc_streams SEC(".maps");
