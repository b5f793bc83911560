// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// The one cgroup that we look at, with its descendants. User space stores its descriptor at index 0; until then
// every program sees nothing.
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} fc_scope SEC(".maps");
