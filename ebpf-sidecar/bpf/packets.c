// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// Packets of the scope's own sockets: DNS answers, the first bytes of each connection, plaintext HTTP, and
// the counters of connections still open. Attached to the scope's cgroup, so other sockets never get here.
// Every path returns FC_PASS: we watch, we never decide.

#include "offsets.h"

#define FC_PASS 1
#define FC_HELLO_MAX 16384 // a ClientHello is at most one record
#define FC_GREETING_MAX 16384

struct fc_packet {
	u32 payload; // offset in the packet
	u32 len;
	u32 seq;
	u16 source_port;
	u8 protocol;
	u8 tcp_flags;
};

static __always_inline bool fc_parse_packet(struct __sk_buff *skb, struct fc_packet *packet)
{
	u8 ip[20], l4[14];
	u32 at;
	if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)))
		return false;
	if (ip[0] >> 4 == 4) {
		if ((ip[6] & 0x1f) | ip[7]) // a later fragment has no transport header
			return false;
		packet->protocol = ip[9];
		at = (ip[0] & 15) * 4;
	} else if (ip[0] >> 4 == 6) {
		packet->protocol = ip[6];
		at = 40;
	} else {
		return false;
	}
	if (packet->protocol == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, at, l4, 8))
			return false;
		at += 8;
	} else if (packet->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, at, l4, 14))
			return false;
		packet->seq = (u32)l4[4] << 24 | (u32)l4[5] << 16 | (u32)l4[6] << 8 | l4[7];
		packet->tcp_flags = l4[13];
		at += (l4[12] >> 4) * 4;
	} else {
		return false;
	}
	packet->source_port = (u16)l4[0] << 8 | l4[1];
	packet->payload = at;
	packet->len = skb->len > at ? skb->len - at : 0;
	return true;
}

#define FC_WORD(a, b, c, d) ((u32)(a) << 24 | (u32)(b) << 16 | (u32)(c) << 8 | (u32)(d))

// A TLS handshake record, a request line's method, the HTTP/2 preface, or none of these.
static __always_inline u8 fc_sniff(struct __sk_buff *skb, const struct fc_packet *packet)
{
	u8 b[4];
	if (packet->len < sizeof(b) || bpf_skb_load_bytes(skb, packet->payload, b, sizeof(b)))
		return FC_PROTO_OTHER;
	if (b[0] == 0x16 && b[1] == 3)
		return FC_PROTO_TLS;
	switch (FC_WORD(b[0], b[1], b[2], b[3])) {
	// The methods of the specification, of the registry that it refers to, and of caches: each by its first four octets.
	case FC_WORD('G', 'E', 'T', ' '):
	case FC_WORD('P', 'O', 'S', 'T'):
	case FC_WORD('P', 'U', 'T', ' '):
	case FC_WORD('H', 'E', 'A', 'D'):
	case FC_WORD('D', 'E', 'L', 'E'):
	case FC_WORD('O', 'P', 'T', 'I'):
	case FC_WORD('P', 'A', 'T', 'C'):
	case FC_WORD('C', 'O', 'N', 'N'):
	case FC_WORD('T', 'R', 'A', 'C'):
	case FC_WORD('A', 'C', 'L', ' '):
	case FC_WORD('B', 'A', 'S', 'E'):
	case FC_WORD('B', 'I', 'N', 'D'):
	case FC_WORD('C', 'H', 'E', 'C'):
	case FC_WORD('C', 'O', 'P', 'Y'):
	case FC_WORD('L', 'A', 'B', 'E'):
	case FC_WORD('L', 'I', 'N', 'K'):
	case FC_WORD('L', 'O', 'C', 'K'):
	case FC_WORD('M', 'E', 'R', 'G'):
	case FC_WORD('M', 'K', 'A', 'C'):
	case FC_WORD('M', 'K', 'C', 'O'):
	case FC_WORD('M', 'K', 'W', 'O'):
	case FC_WORD('M', 'O', 'V', 'E'):
	case FC_WORD('M', '-', 'S', 'E'):
	case FC_WORD('N', 'O', 'T', 'I'):
	case FC_WORD('O', 'R', 'D', 'E'):
	case FC_WORD('P', 'R', 'O', 'P'):
	case FC_WORD('P', 'U', 'R', 'G'):
	case FC_WORD('Q', 'U', 'E', 'R'):
	case FC_WORD('R', 'E', 'B', 'I'):
	case FC_WORD('R', 'E', 'P', 'O'):
	case FC_WORD('S', 'E', 'A', 'R'):
	case FC_WORD('S', 'U', 'B', 'S'):
	case FC_WORD('U', 'N', 'B', 'I'):
	case FC_WORD('U', 'N', 'L', 'I'):
	case FC_WORD('U', 'N', 'L', 'O'):
	case FC_WORD('U', 'N', 'S', 'U'):
	case FC_WORD('U', 'P', 'D', 'A'):
	case FC_WORD('V', 'E', 'R', 'S'):
		return FC_PROTO_HTTP1;
	case FC_WORD('P', 'R', 'I', ' '):
		return FC_PROTO_HTTP2;
	default:
		return FC_PROTO_OTHER;
	}
}

static __always_inline bool fc_is_http(const struct fc_conn *conn)
{
	return conn->proto == FC_PROTO_HTTP1 || conn->proto == FC_PROTO_HTTP2;
}

// Whether this is of a server of HTTP/2 that greets before its client has sent anything: SETTINGS of stream 0, which
// acknowledge nothing (RFC 9113, section 3.4), and a little of what follows.
static __always_inline bool fc_greets(struct __sk_buff *skb, const struct fc_packet *packet, const struct fc_conn *conn)
{
	u32 offset = packet->seq - conn->in_base;
	u8 b[9];
	if (conn->proto != FC_PROTO_UNSEEN || conn->joined)
		return false;
	if (offset > 0)
		return conn->in_next > 0 && offset < FC_GREETING_MAX;
	if (packet->len < sizeof(b) || bpf_skb_load_bytes(skb, packet->payload, b, sizeof(b)))
		return false;
	return b[0] == 0 && b[3] == 4 && (b[4] | b[5] | b[6] | b[7] | b[8]) == 0;
}

#define FC_READ_SKB(to, n) bpf_skb_load_bytes(skb, at, to, n)

// Delivers packet bytes [from, packet->len) as the stream's bytes from `offset` on.
static __always_inline void fc_copy_packet(struct __sk_buff *skb, const struct fc_packet *packet, u32 from,
					   u32 offset, u32 kind, u8 dir, struct fc_conn *conn)
{
	u32 at = packet->payload + from, left = packet->len - from;
	struct fc_data_event shape = {};
	shape.head.kind = kind;
	shape.head.cpu = bpf_get_smp_processor_id();
	shape.head.at = bpf_ktime_get_ns();
	shape.head.id = conn->cookie;
	shape.head.tgid = conn->tgid;
	shape.cookie = conn->cookie;
	shape.begun = shape.head.at;
	shape.total = left;
	shape.dir = dir;
	shape.joined = conn->joined;
	if (fc_ring_is_tight()) {
		fc_count_loss(FC_LOSS_PRESSURE, 1);
		conn->lost += 1;
		return;
	}
	for (int i = 0; i < FC_PACKET_PIECES && left > 0; i++) {
		u32 n = left > FC_PIECE_MAX ? FC_PIECE_MAX : left;
		shape.offset = offset;
		shape.len = n;
		shape.first = i == 0;
		shape.last = n == left;
		shape.lost = conn->lost;
		if (FC_COPY(&shape, FC_READ_SKB, FC_LOSS_PACKET))
			conn->lost += 1;
		at += n;
		offset += n;
		left -= n;
	}
	if (left > 0) {
		fc_count_loss(FC_LOSS_CUT_BYTES, left);
		conn->lost += 1;
	}
}

static __always_inline void fc_plain(struct __sk_buff *skb, const struct fc_packet *packet, struct fc_conn *conn,
				     u8 dir, u32 kind)
{
	u32 offset = packet->seq - (dir == FC_OUT ? conn->out_base : conn->in_base);
	u32 from = fc_advance(dir == FC_OUT ? &conn->out_next : &conn->in_next, offset, packet->len);
	if (from >= packet->len)
		return;
	fc_copy_packet(skb, packet, from, offset + from, kind, dir, conn);
}

SEC("cgroup_skb/egress")
int fc_egress(struct __sk_buff *skb)
{
	struct fc_packet packet = {};
	if (!fc_parse_packet(skb, &packet) || packet.protocol != IPPROTO_TCP)
		return FC_PASS;
	u64 cookie = bpf_get_socket_cookie(skb);
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &cookie);
	if (!conn)
		return FC_PASS;
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	if (tp)
		fc_read_counters(conn, tp);
	if (packet.len == 0 || conn->established == 0)
		return FC_PASS;
	if (conn->proto == FC_PROTO_UNSEEN && !conn->joined && packet.seq == conn->out_base) {
		conn->proto = fc_sniff(skb, &packet);
	} else if (conn->proto == FC_PROTO_UNSEEN && conn->joined && tp && fc_sniff(skb, &packet) == FC_PROTO_HTTP1) {
		// It was open before we looked; from this request on it can be followed.
		conn->out_base = packet.seq;
		conn->in_base = tp->rcv_nxt;
		conn->proto = FC_PROTO_HTTP1;
	}
	if (fc_is_http(conn))
		fc_plain(skb, &packet, conn, FC_OUT, FC_PLAIN);
	else if (conn->proto == FC_PROTO_TLS && packet.seq - conn->out_base < FC_HELLO_MAX && conn->out_next < FC_HELLO_MAX)
		fc_plain(skb, &packet, conn, FC_OUT, FC_HELLO);
	return FC_PASS;
}

#define FC_DNS_MAX 4096

SEC("cgroup_skb/ingress")
int fc_ingress(struct __sk_buff *skb)
{
	struct fc_packet packet = {};
	if (!fc_parse_packet(skb, &packet) || packet.len == 0)
		return FC_PASS;
	if (packet.protocol == IPPROTO_UDP) {
		if (packet.source_port != 53)
			return FC_PASS;
		struct fc_data_event shape = {};
		u32 at = packet.payload;
		shape.head.kind = FC_DNS;
		shape.head.at = bpf_ktime_get_ns();
		shape.cookie = bpf_get_socket_cookie(skb);
		shape.library = bpf_skb_cgroup_id(skb);
		shape.dir = FC_IN;
		shape.total = packet.len;
		shape.len = packet.len > FC_DNS_MAX ? FC_DNS_MAX : packet.len;
		FC_COPY(&shape, FC_READ_SKB, FC_LOSS_PACKET);
		return FC_PASS;
	}
	u64 cookie = bpf_get_socket_cookie(skb);
	struct fc_conn *conn = bpf_map_lookup_elem(&fc_conns, &cookie);
	if (!conn || conn->established == 0)
		return FC_PASS;
	if (!fc_is_http(conn) && !fc_greets(skb, &packet, conn))
		return FC_PASS;
	fc_plain(skb, &packet, conn, FC_IN, FC_PLAIN);
	return FC_PASS;
}
