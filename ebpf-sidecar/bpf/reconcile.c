// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Connections whose end nobody saw: user space compares fc_conns with the sockets that exist.

// Writes a struct fc_alive for each connection that has not ended. Of a closed socket that the program still holds, it
// reads the last counters: nothing else will.
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
	if (sk->__sk_common.skc_state != TCP_CLOSE) {
		bpf_seq_write(ctx->meta->seq, &alive, sizeof(alive));
		return 0;
	}
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &alive.cookie);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (conn && tp && conn->opened == alive.opened && !conn->closed)
		fc_read_counters(conn, tp);
	return 0;
}
