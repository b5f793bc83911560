// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once

#define fc_likely(x) __builtin_expect(!!(x), 1)
#define fc_unlikely(x) __builtin_expect(!!(x), 0)

// Keep this share of the ring for connection and process events: payload stops first.
#define FC_RING_PAYLOAD_SHARE(size) ((size) / 4 * 3)

const volatile u32 fc_ring_size = 16 * 1024 * 1024;
const volatile bool fc_include_loopback = false;
// The identifier of the cgroup in fc_scope, for what is asked about others than the current task.
volatile u64 fc_scope_id = 0;

static __always_inline bool fc_in_scope(void)
{
	return bpf_current_task_under_cgroup(&fc_scope, 0) == 1;
}

#define FC_CGROUP_DEPTH 64

// Whether this is the cgroup of the scope or below it. bpf_task_under_cgroup() would say so, from Linux 6.5 on.
static __always_inline bool fc_is_scope(const struct cgroup *cgroup)
{
	if (BPF_CORE_READ(cgroup, root, hierarchy_id) != 0) // of version 1, where identifiers are others
		return false;
	for (int depth = 0; depth < FC_CGROUP_DEPTH && cgroup; depth++) {
		if (BPF_CORE_READ(cgroup, kn, id) == fc_scope_id)
			return true;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return false;
}

static __always_inline void fc_count_loss(u32 reason, u64 n)
{
	u64 *count = bpf_map_lookup_elem(&fc_losses, &reason);
	if (count)
		*count += n;
}

static __always_inline bool fc_ring_is_tight(void)
{
	return bpf_ringbuf_query(&fc_events, BPF_RB_AVAIL_DATA) > FC_RING_PAYLOAD_SHARE((u64)fc_ring_size);
}

static __always_inline void fc_fill_head(struct fc_head *head, u32 kind, u64 id)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	head->kind = kind;
	head->tgid = pid_tgid >> 32;
	head->tid = (u32)pid_tgid;
	head->cpu = bpf_get_smp_processor_id();
	head->at = bpf_ktime_get_ns();
	head->id = id;
}
