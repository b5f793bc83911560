// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Connections that were open before we looked, or before their process came into the scope: read from the files of the
// processes named in fc_adoptees.
//
// Each TCP socket is written out as a struct fc_conn with `joined` set: FC_JOINED_LISTENING for a listening socket, whose
// port tells user space which connections came from outside.

SEC("iter/task_file")
int fc_adopt(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct task_struct *task = ctx->task;
	if (!file || !task)
		return 0;
	u32 tgid = task->tgid;
	u64 *cgroup = bpf_map_lookup_elem(&fc_adoptees, &tgid);
	if (!cgroup)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	struct fc_conn conn = {};
	fc_read_addresses(&conn, sk);
	if (conn.family != AF_INET && conn.family != AF_INET6)
		return 0;
	u8 state = sk->__sk_common.skc_state;
	if (state == TCP_CLOSE || state == TCP_SYN_SENT)
		return 0;
	bool is_listening = state == TCP_LISTEN;
	bool is_ours = fc_is_scope(BPF_CORE_READ(sk, sk_cgrp_data.cgroup));
	conn.joined = is_listening ? FC_JOINED_LISTENING : is_ours ? FC_JOINED : FC_JOINED_FOREIGN;
	if (!is_listening) {
		if (!fc_include_loopback && fc_is_loopback(&conn))
			return 0;
		struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
		if (!tp)
			return 0;
		fc_read_counters(&conn, tp);
		conn.cookie = bpf_get_socket_cookie(sk);
	}
	conn.opened = bpf_ktime_get_ns();
	if (!is_listening)
		fc_enlist(&conn, sk, false);
	conn.established = conn.opened;
	conn.started = BPF_CORE_READ(task, group_leader, start_boottime);
	conn.cgroup = *cgroup;
	conn.tgid = tgid;
	conn.parent = BPF_CORE_READ(task, real_parent, tgid);
	conn.uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_STR_INTO(&conn.comm, task, group_leader, comm);
	bpf_seq_write(ctx->meta->seq, &conn, sizeof(conn));
	return 0;
}
