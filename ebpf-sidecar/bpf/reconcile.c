// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Connections whose end nobody saw: user space compares fc_conns with the sockets that exist.

// Writes a struct fc_alive for each connection that has not ended. It reads the counters where nothing else may: of a closed
// socket that the program still holds, and of one that was adopted, whose packets show themselves to the programs of the
// cgroup that it was made in, which may be another.
SEC("iter/bpf_sk_storage_map")
int fc_list(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	u64 *opened = ctx->value;
	if (!sk || !opened)
		return 0;
	struct fc_alive alive = {};
	alive.cookie = bpf_get_socket_cookie(sk);
	alive.opened = *opened;
	bool is_closed = sk->__sk_common.skc_state == TCP_CLOSE;
	if (!is_closed)
		bpf_seq_write(ctx->meta->seq, &alive, sizeof(alive));
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &alive.cookie);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (conn && tp && conn->opened == alive.opened && !conn->closed && (is_closed || conn->joined))
		fc_read_counters(conn, tp);
	return 0;
}
