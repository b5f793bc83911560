// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Level 0: every outbound TCP connection of the scope, with exact payload counters.
//
// connect() moves a socket to SYN_SENT in the caller's context, which is where the owner is known; later
// transitions run wherever the packet arrived and find the connection by its cookie.

static __always_inline bool fc_is_loopback(const struct fc_conn *conn)
{
	if (conn->family == AF_INET)
		return conn->remote[0] == 127;
	bool mapped = true, one = true;
	for (int i = 0; i < 10; i++)
		mapped = mapped && conn->remote[i] == 0;
	one = mapped;
	for (int i = 10; i < 15; i++)
		one = one && conn->remote[i] == 0;
	if (one && conn->remote[15] == 1)
		return true;
	return mapped && conn->remote[10] == 0xff && conn->remote[11] == 0xff && conn->remote[12] == 127;
}

static __always_inline void fc_read_addresses(struct fc_conn *conn, const struct sock *sk)
{
	conn->family = sk->__sk_common.skc_family;
	conn->local_port = sk->__sk_common.skc_num;
	conn->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (conn->family == AF_INET) {
		u32 remote = sk->__sk_common.skc_daddr, local = sk->__sk_common.skc_rcv_saddr;
		__builtin_memcpy(conn->remote, &remote, 4);
		__builtin_memcpy(conn->local, &local, 4);
	} else {
		BPF_CORE_READ_INTO(&conn->remote, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&conn->local, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
	}
}

// Payload only, each byte once. bytes_sent leaves SYN and FIN out but counts retransmissions; bytes_received
// counts a received FIN as one byte, and SOCK_DONE says whether there was one.
static __always_inline void fc_read_counters(struct fc_conn *conn, const struct tcp_sock *tp)
{
	u64 sk_flags = tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags;
	u64 sent = tp->bytes_sent, again = tp->bytes_retrans, got = tp->bytes_received;
	conn->bytes_out = sent > again ? sent - again : 0;
	if (got && (sk_flags & (1ul << SOCK_DONE_BIT)))
		got -= 1;
	conn->bytes_in = got;
	conn->srtt_us = tp->srtt_us >> 3;
	conn->retransmits = tp->total_retrans;
}

static __always_inline bool fc_report_conn(const struct fc_conn *conn, u32 kind, u64 at)
{
	struct fc_conn_event *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (!event) {
		fc_count_loss(FC_LOSS_RING, 1);
		return false;
	}
	fc_fill_head(&event->head, kind, conn->cookie);
	event->head.at = at;
	__builtin_memcpy(&event->conn, conn, sizeof(*conn));
	bpf_ringbuf_submit(event, 0);
	return true;
}

static __always_inline void fc_connect(struct sock *sk, u64 cookie)
{
	if (!fc_in_scope())
		return;
	struct fc_conn conn = {};
	fc_read_addresses(&conn, sk);
	if (conn.family != AF_INET && conn.family != AF_INET6)
		return;
	if (!fc_include_loopback && fc_is_loopback(&conn))
		return;
	struct task_struct *task = bpf_get_current_task_btf();
	conn.cookie = cookie;
	conn.opened = bpf_ktime_get_ns();
	conn.started = BPF_CORE_READ(task, group_leader, start_boottime);
	conn.cgroup = bpf_get_current_cgroup_id();
	conn.tgid = bpf_get_current_pid_tgid() >> 32;
	conn.parent = BPF_CORE_READ(task, real_parent, tgid);
	conn.uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(conn.comm, sizeof(conn.comm));
	if (bpf_map_update_elem(&fc_conns, &cookie, &conn, BPF_ANY)) {
		fc_count_loss(FC_LOSS_CONN_MAP, 1);
		return;
	}
	fc_report_conn(&conn, FC_OPEN, conn.opened);
}

// The kernel guards each program of a raw tracepoint on each CPU and skips a call that nests in another. connect()
// and close() run us with softirqs enabled, and a softirq may move another socket meanwhile. So the same body is
// attached twice, each with a guard of its own: softirqs do not nest, and one of the two always runs. Where both do,
// the second finds everything done, because the state of one socket changes under its lock.
static __always_inline int fc_change_state(struct sock *sk, int after, bool again)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (after != TCP_SYN_SENT && after != TCP_ESTABLISHED && after != TCP_CLOSE)
		return 0;
	u64 cookie = bpf_get_socket_cookie(sk);
	if (after == TCP_SYN_SENT) {
		// Only a thread connects, and a thread nests in nothing.
		if (!again)
			fc_connect(sk, cookie);
		return 0;
	}
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &cookie);
	if (!conn || conn->closed)
		return 0;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (after == TCP_ESTABLISHED) {
		if (conn->established)
			return 0;
		fc_read_addresses(conn, sk);
		conn->established = now;
		conn->out_base = tp->snd_una;
		conn->in_base = tp->rcv_nxt;
		fc_report_conn(conn, FC_UP, now);
		return 0;
	}
	fc_read_counters(conn, tp);
	conn->closed = now;
	// Where the report finds no room, the entry stays and user space collects it on its next round.
	if (fc_report_conn(conn, FC_CLOSE, now))
		bpf_map_delete_elem(&fc_conns, &cookie);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(fc_tcp_state, struct sock *sk, int before, int after)
{
	return fc_change_state(sk, after, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(fc_tcp_state_again, struct sock *sk, int before, int after)
{
	return fc_change_state(sk, after, true);
}
