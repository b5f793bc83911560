// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// Processes of the scope that ran before we looked, by process identifier, with the identifier of their cgroup. User
// space fills it, then reads the iterator of adopt.c.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u64);
} fc_adoptees SEC(".maps");
