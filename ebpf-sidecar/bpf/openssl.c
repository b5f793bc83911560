// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// OpenSSL 1.1 and 3, dynamically linked: the plaintext that crosses SSL_read, SSL_write and the _ex variants.
//
// A function's arguments are kept from its entry to its return, because only the return tells how many bytes
// moved. The socket under an SSL* is the one that the same thread uses meanwhile, or the one of SSL_set_fd;
// with memory BIOs there is none, and `cookie` stays 0.

extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

// Kernels from 6.13 run uprobe programs preemptibly with private per-CPU stacks: two programs on one CPU would
// share a stack. Older kernels lack these kfuncs and the problem.
#define FC_UNPREEMPTED(body)                              \
	do {                                              \
		if (bpf_ksym_exists(bpf_preempt_disable)) \
			bpf_preempt_disable();            \
		body;                                     \
		if (bpf_ksym_exists(bpf_preempt_enable))  \
			bpf_preempt_enable();             \
	} while (0)

#define FC_READ_USER(to, n) bpf_probe_read_user(to, n, from)

static __always_inline void fc_tls_enter(u64 ssl, u64 buffer, u64 count_at, u32 dir)
{
	if (!fc_in_scope())
		return;
	u64 thread = bpf_get_current_pid_tgid();
	struct fc_call call = {};
	call.ssl = ssl;
	call.buffer = buffer;
	call.count_at = count_at;
	call.begun = bpf_ktime_get_ns();
	call.dir = dir;
	struct fc_nested_calls *known = bpf_map_lookup_elem(&fc_calls, &thread);
	if (known && known->outer.ssl != ssl) {
		// A third would replace the second: one of them never returned, as after longjmp().
		known->inner = call;
		known->depth = 2;
		return;
	}
	struct fc_nested_calls fresh = { .outer = call, .depth = 1 };
	if (bpf_map_update_elem(&fc_calls, &thread, &fresh, BPF_ANY))
		fc_count_loss(FC_LOSS_CALL_MAP, 1);
}

// Of the current process.
static __always_inline struct fc_stream_key fc_tls_key(u64 ssl)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fc_stream_key key = {};
	key.ssl = ssl;
	key.tgid = bpf_get_current_pid_tgid() >> 32;
	key.execution = BPF_CORE_READ(task, self_exec_id);
	return key;
}

// Unique on this machine until it is restarted: the time, then the CPU.
static __always_inline u64 fc_tls_id(void)
{
	return bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
}

static __always_inline struct fc_stream *fc_tls_stream(u64 ssl)
{
	struct fc_stream_key key = fc_tls_key(ssl);
	struct fc_stream *stream = bpf_map_lookup_elem(&fc_streams, &key);
	if (stream)
		return stream;
	struct fc_stream fresh = {};
	fresh.id = fc_tls_id();
	bpf_map_update_elem(&fc_streams, &key, &fresh, BPF_NOEXIST);
	stream = bpf_map_lookup_elem(&fc_streams, &key);
	if (!stream)
		fc_count_loss(FC_LOSS_STREAM_MAP, 1);
	return stream;
}

static __always_inline void fc_tls_lost(struct fc_stream *stream)
{
	stream->lost += 1;
	u64 cookie = stream->cookie;
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &cookie);
	if (conn)
		conn->lost += 1;
}

static __noinline int fc_tls_copy(struct fc_call *call, struct fc_stream *stream, u64 moved)
{
	if (!call || !stream)
		return 0;
	const u8 *from = (const u8 *)call->buffer;
	u64 offset = call->dir == FC_OUT ? stream->out_offset : stream->in_offset;
	if (call->dir == FC_OUT)
		stream->out_offset = offset + moved;
	else
		stream->in_offset = offset + moved;
	if (fc_ring_is_tight()) {
		fc_count_loss(FC_LOSS_PRESSURE, 1);
		fc_tls_lost(stream);
		return 0;
	}
	struct fc_data_event shape = {};
	fc_fill_head(&shape.head, FC_TLS, stream->id);
	shape.cookie = stream->cookie;
	shape.begun = call->begun;
	shape.library = call->ssl;
	shape.total = moved;
	shape.dir = call->dir;
	u64 left = moved;
	for (int i = 0; i < FC_CALL_PIECES && left > 0; i++) {
		if (i == FC_CALL_PIECES - 1 && left > FC_PIECE_MAX) {
			u64 middle = left - FC_PIECE_MAX;
			fc_count_loss(FC_LOSS_CUT_BYTES, middle);
			from += middle;
			offset += middle;
			left = FC_PIECE_MAX;
		}
		u32 n = left > FC_PIECE_MAX ? FC_PIECE_MAX : left;
		shape.offset = offset;
		shape.len = n;
		shape.first = i == 0;
		shape.last = n == left;
		shape.lost = stream->lost;
		if (FC_COPY(&shape, FC_READ_USER, FC_LOSS_FAULT))
			fc_tls_lost(stream);
		from += n;
		offset += n;
		left -= n;
	}
	return 0;
}

static __always_inline void fc_tls_return(long result)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct fc_nested_calls *found = bpf_map_lookup_elem(&fc_calls, &thread);
	if (!found)
		return;
	struct fc_call call;
	if (found->depth == 2) {
		call = found->inner;
		found->depth = 1;
		if (call.cookie)
			found->outer.cookie = call.cookie;
	} else {
		call = found->outer;
		bpf_map_delete_elem(&fc_calls, &thread);
	}
	u64 moved = 0;
	if (call.count_at) {
		if ((int)result == 1 && bpf_probe_read_user(&moved, sizeof(moved), (void *)call.count_at)) {
			fc_count_loss(FC_LOSS_FAULT, 1);
			moved = 0;
		}
	} else if ((int)result > 0) {
		moved = (u32)result;
	}
	if (moved == 0)
		return;
	struct fc_stream *stream = fc_tls_stream(call.ssl);
	if (!stream)
		return;
	if (call.cookie)
		stream->cookie = call.cookie;
	fc_tls_copy(&call, stream, moved);
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_read, u64 ssl, u64 buffer)
{
	FC_UNPREEMPTED(fc_tls_enter(ssl, buffer, 0, FC_IN));
	return 0;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_write, u64 ssl, u64 buffer)
{
	FC_UNPREEMPTED(fc_tls_enter(ssl, buffer, 0, FC_OUT));
	return 0;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_read_ex, u64 ssl, u64 buffer, u64 len, u64 count_at)
{
	FC_UNPREEMPTED(fc_tls_enter(ssl, buffer, count_at, FC_IN));
	return 0;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_write_ex, u64 ssl, u64 buffer, u64 len, u64 count_at)
{
	FC_UNPREEMPTED(fc_tls_enter(ssl, buffer, count_at, FC_OUT));
	return 0;
}

SEC("uretprobe")
int BPF_URETPROBE(fc_ssl_return, long result)
{
	FC_UNPREEMPTED(fc_tls_return(result));
	return 0;
}

static __always_inline struct sock *fc_sock_of_fd(u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	struct file **files = BPF_CORE_READ(table, fd), *file = NULL;
	if (bpf_probe_read_kernel(&file, sizeof(file), &files[fd]) || !file)
		return NULL;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	struct socket *socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

static __always_inline void fc_tls_set_fd(u64 ssl, u32 fd)
{
	if (!fc_in_scope())
		return;
	struct sock *sk = fc_sock_of_fd(fd);
	u64 cookie = sk ? BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) : 0;
	struct fc_stream *stream = fc_tls_stream(ssl);
	if (stream && cookie)
		stream->cookie = cookie;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_set_fd, u64 ssl, u32 fd)
{
	FC_UNPREEMPTED(fc_tls_set_fd(ssl, fd));
	return 0;
}

static __always_inline void fc_tls_ended(const struct fc_stream *stream)
{
	struct fc_head *event = bpf_ringbuf_reserve(&fc_events, sizeof(*event), 0);
	if (event) {
		fc_fill_head(event, FC_TLS_END, stream->id);
		bpf_ringbuf_submit(event, 0);
	} else {
		fc_count_loss(FC_LOSS_RING, 1);
	}
}

static __always_inline void fc_tls_free(u64 ssl)
{
	if (!fc_in_scope())
		return;
	struct fc_stream_key key = fc_tls_key(ssl);
	struct fc_stream *stream = bpf_map_lookup_elem(&fc_streams, &key);
	if (!stream)
		return;
	fc_tls_ended(stream);
	bpf_map_delete_elem(&fc_streams, &key);
}

// The object is used for another connection. The library also calls this before each handshake: then nothing has moved yet,
// and the socket that the program named stays.
static __always_inline void fc_tls_clear(u64 ssl)
{
	if (!fc_in_scope())
		return;
	struct fc_stream_key key = fc_tls_key(ssl);
	struct fc_stream *stream = bpf_map_lookup_elem(&fc_streams, &key);
	if (!stream || stream->out_offset + stream->in_offset == 0)
		return;
	fc_tls_ended(stream);
	stream->id = fc_tls_id();
	stream->out_offset = 0;
	stream->in_offset = 0;
	stream->lost = 0;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_clear, u64 ssl)
{
	FC_UNPREEMPTED(fc_tls_clear(ssl));
	return 0;
}

SEC("uprobe")
int BPF_UPROBE(fc_ssl_free, u64 ssl)
{
	FC_UNPREEMPTED(fc_tls_free(ssl));
	return 0;
}

// In the context of the thread that sends or receives (kernel 6.3 and later).
static __always_inline int fc_pair(struct sock *sk)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct fc_nested_calls *known = bpf_map_lookup_elem(&fc_calls, &thread);
	if (known && sk->sk_protocol == IPPROTO_TCP) {
		struct fc_call *call = known->depth == 2 ? &known->inner : &known->outer;
		call->cookie = bpf_get_socket_cookie(sk);
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(fc_sock_send, struct sock *sk, int result, int flags)
{
	return fc_pair(sk);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(fc_sock_recv, struct sock *sk, int result, int flags)
{
	return fc_pair(sk);
}

// Kernels before 6.3 tell only of reads, which is late for the first write of a stream but before its first answer.
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(fc_tcp_recv, struct sock *sk)
{
	return fc_pair(sk);
}
