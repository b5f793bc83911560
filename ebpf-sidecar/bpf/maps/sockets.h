// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// The sockets of fc_conns themselves, with the `opened` of their latest connection. The kernel forgets a socket here
// when it frees it, whatever else was missed.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} fc_sockets SEC(".maps");
