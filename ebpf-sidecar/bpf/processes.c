// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Which programs run in the scope: a curl may be gone before anyone reads /proc.

SEC("tp_btf/sched_process_exec")
int BPF_PROG(fc_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	if (!fc_in_scope())
		return 0;
	struct fc_exec_event *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (!event) {
		fc_count_loss(FC_LOSS_RING, 1);
		return 0;
	}
	fc_fill_head(&event->head, FC_EXEC, 0);
	event->started = BPF_CORE_READ(task, group_leader, start_boottime);
	event->cgroup = bpf_get_current_cgroup_id();
	event->parent = BPF_CORE_READ(task, real_parent, tgid);
	event->uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	const char *path = BPF_CORE_READ(bprm, filename);
	if (bpf_probe_read_kernel_str(event->path, sizeof(event->path), path) < 0)
		event->path[0] = 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

// Runs in whoever moves `task`, once the move is done: once for all threads of a process.
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(fc_moved, struct cgroup *to, const char *path, struct task_struct *task)
{
	if (!fc_is_scope(to))
		return 0;
	struct fc_exec_event *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (!event) {
		fc_count_loss(FC_LOSS_RING, 1);
		return 0;
	}
	event->head.kind = FC_MOVED;
	event->head.tgid = BPF_CORE_READ(task, tgid);
	event->head.tid = BPF_CORE_READ(task, pid);
	event->head.cpu = bpf_get_smp_processor_id();
	event->head.at = bpf_ktime_get_ns();
	event->head.id = 0;
	event->started = BPF_CORE_READ(task, group_leader, start_boottime);
	event->cgroup = BPF_CORE_READ(to, kn, id);
	event->parent = BPF_CORE_READ(task, real_parent, tgid);
	event->uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_STR_INTO(&event->comm, task, group_leader, comm);
	event->path[0] = 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(fc_exit, struct task_struct *task)
{
	if (!fc_in_scope())
		return 0;
	// A thread that dies inside a TLS call never returns from it.
	u64 thread = bpf_get_current_pid_tgid();
	bpf_map_delete_elem(&fc_calls, &thread);
	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	struct fc_head *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (!event) {
		fc_count_loss(FC_LOSS_RING, 1);
		return 0;
	}
	fc_fill_head(event, FC_EXIT, 0);
	bpf_ringbuf_submit(event, 0);
	return 0;
}
