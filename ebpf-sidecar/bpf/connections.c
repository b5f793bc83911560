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

// Lists the socket of a connection. Where it is listed already and the connection is not a new one, that is the
// connection that we mean.
static __always_inline void fc_enlist(struct fc_conn *conn, struct sock *sk, bool anew)
{
	u64 *opened = bpf_sk_storage_get(&fc_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!opened)
		return; // No memory: the end of this one is taken from events alone.
	if (anew || *opened == 0)
		*opened = conn->opened;
	conn->opened = *opened;
	conn->listed = 1;
}

static __always_inline bool fc_report_conn(const struct fc_conn *conn, u32 kind, u64 at)
{
	struct fc_conn_event *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (!event) {
		fc_count_loss(FC_LOSS_RING, 1);
		return false;
	}
	// Not whoever runs: programs of a cgroup may not ask before Linux 6.10, and in a softirq it is a stranger.
	event->head.kind = kind;
	event->head.tgid = conn->tgid;
	event->head.tid = 0;
	event->head.cpu = bpf_get_smp_processor_id();
	event->head.at = at;
	event->head.id = conn->cookie;
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
	fc_enlist(&conn, sk, true);
	if (bpf_map_update_elem(&fc_conns, &cookie, &conn, BPF_ANY)) {
		fc_count_loss(FC_LOSS_CONN_MAP, 1);
		return;
	}
	fc_report_conn(&conn, FC_OPEN, conn.opened);
}

// Who ended a connection first, as its change of state tells.
static __always_inline u32 fc_end_of(const struct fc_conn *conn, const struct tcp_sock *tp, int before, int after)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	u64 flags = sk->__sk_common.skc_flags;
	bool has_fin = flags & (1ul << SOCK_DONE_BIT);
	if (after == TCP_CLOSE_WAIT)
		return FC_END_PEER;
	if (after == TCP_FIN_WAIT1) // Who closes but the sending half reads on.
		return sk->sk_shutdown & RCV_SHUTDOWN ? FC_END_OWN : 0;
	// Closed. Where both FINs crossed, the peer had not heard of ours when it sent its own.
	if (before == TCP_CLOSE_WAIT || before == TCP_LAST_ACK || before == TCP_CLOSING) {
		s32 unread = tp->rcv_nxt - tp->copied_seq - (has_fin ? 1 : 0);
		return before == TCP_CLOSE_WAIT && unread > 0 ? FC_END_UNREAD : FC_END_PEER;
	}
	if (conn->ended)
		return conn->ended;
	if (flags & (1ul << SOCK_DEAD_BIT))
		return FC_END_OWN;
	// The program's own reset, of data that it did not read, leaves no error behind.
	if (sk->sk_err)
		return FC_END_BROKEN;
	return has_fin ? FC_END_PEER : FC_END_OWN;
}

// What a change of state means for a connection that is followed. Whoever calls twice for one change finds everything
// done, because the state of one socket changes under its lock.
static __always_inline void fc_change_state(u64 cookie, const struct tcp_sock *tp, int before, int after)
{
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &cookie);
	if (!conn || conn->closed)
		return;
	u64 now = bpf_ktime_get_ns();
	if (after == TCP_ESTABLISHED) {
		if (conn->established)
			return;
		fc_read_addresses(conn, &tp->inet_conn.icsk_inet.sk);
		conn->established = now;
		conn->out_base = tp->snd_una;
		conn->in_base = tp->rcv_nxt;
		fc_report_conn(conn, FC_UP, now);
		return;
	}
	conn->ended = fc_end_of(conn, tp, before, after);
	if (after != TCP_CLOSE)
		return;
	fc_read_counters(conn, tp);
	conn->closed = now;
	// Where the report finds no room, the entry stays and user space collects it on its next round.
	if (fc_report_conn(conn, FC_CLOSE, now))
		bpf_map_delete_elem(&fc_conns, &cookie);
}

static __always_inline bool fc_is_telling(int after)
{
	return after == TCP_ESTABLISHED || after == TCP_FIN_WAIT1 || after == TCP_CLOSE_WAIT || after == TCP_CLOSE;
}

// Sees connect() in its thread, where the owner is known. Later changes come in softirqs, in the context of whatever they
// interrupt, and there the kernel may skip a tracing program: where it would nest in itself on a CPU (close() runs it with
// softirqs enabled), or where the interrupted process is one that it shows to no tracing program. So this one is not relied
// upon for them, but for connections that were open before us.
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(fc_tcp_state, struct sock *sk, int before, int after)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (after != TCP_SYN_SENT && !fc_is_telling(after))
		return 0;
	u64 cookie = bpf_get_socket_cookie(sk);
	if (after == TCP_SYN_SENT) {
		fc_connect(sk, cookie);
		return 0;
	}
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		fc_change_state(cookie, tp, before, after);
	return 0;
}

// Programs of a cgroup are never skipped. The kernel calls this one when a socket of the scope connects, after the one above
// has seen that, and, once asked for it, at each change of that socket's state. `reply` stays as it is: it is for
// programs that tune connections.
SEC("sockops")
int fc_tcp_of_scope(struct bpf_sock_ops *ops)
{
	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ops->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	u64 cookie = bpf_get_socket_cookie(ops);
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		if (bpf_map_lookup_elem(&fc_conns, &cookie))
			bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	}
	u32 before = ops->args[0], after = ops->args[1];
	struct bpf_sock *sk = ops->sk;
	if (!sk || !fc_is_telling(after))
		return 1;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		fc_change_state(cookie, tp, before, after);
	return 1;
}
