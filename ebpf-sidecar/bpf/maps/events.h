// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// Everything that user space learns, in the order in which it happened. One ring keeps that order.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} fc_events SEC(".maps");
