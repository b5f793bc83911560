// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// Open outbound connections by socket cookie. User space also reads it once a second for those still open.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, struct fc_conn);
} fc_conns SEC(".maps");
