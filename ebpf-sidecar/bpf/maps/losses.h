// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// How often something could not be delivered, by enum fc_loss.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FC_LOSS_REASONS);
	__type(key, u32);
	__type(value, u64);
} fc_losses SEC(".maps");
