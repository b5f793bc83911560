// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// What crosses between the programs and user space. No padding anywhere: the Rust side reads these bytes
// by offset (src/wire/record.rs), and a test compares both sides. Times are CLOCK_MONOTONIC nanoseconds.
#pragma once

enum fc_kind {
	FC_OPEN = 1,   // struct fc_conn_event: connect() was called
	FC_UP = 2,     // struct fc_conn_event: the handshake is complete
	FC_CLOSE = 3,  // struct fc_conn_event: final counters
	FC_EXEC = 4,   // struct fc_exec_event
	FC_EXIT = 5,   // struct fc_head alone
	FC_DNS = 6,    // struct fc_data_event, one UDP payload
	FC_PLAIN = 7,  // struct fc_data_event, TCP payload as it travels: plain HTTP
	FC_HELLO = 8,  // struct fc_data_event, first TCP payload of a TLS connection
	FC_TLS = 9,    // struct fc_data_event, plaintext of one TLS library call
	FC_TLS_END = 10, // struct fc_head alone: the library freed the stream `id`, or uses its object anew
	FC_MOVED = 11, // struct fc_exec_event without a path: a process was put into a cgroup of the scope, by whomever
};

enum fc_dir { FC_OUT = 0, FC_IN = 1 };

// What the first bytes that the client sent say about the connection.
enum fc_proto {
	FC_PROTO_UNSEEN = 0,
	FC_PROTO_TLS = 1,
	FC_PROTO_HTTP1 = 2,
	FC_PROTO_HTTP2 = 3,
	FC_PROTO_OTHER = 4,
};

// Why something was not delivered; index into fc_losses.
enum fc_loss {
	FC_LOSS_RING = 0,       // the ring buffer was full
	FC_LOSS_PRESSURE = 1,   // payload withheld so that the ring keeps room for connection events
	FC_LOSS_FAULT = 2,      // the application's buffer could not be read
	FC_LOSS_CONN_MAP = 3,   // more connections at once than the map holds
	FC_LOSS_CALL_MAP = 4,   // more threads inside a TLS call than the map holds
	FC_LOSS_STREAM_MAP = 5, // more TLS streams than the map holds
	FC_LOSS_CUT_BYTES = 6,  // bytes in the middle of a long operation, left out
	FC_LOSS_PACKET = 7,     // a packet whose payload could not be read
	FC_LOSS_REASONS = 8,
};

// Who ended a connection first, as far as is known: 0 for nobody yet, or nobody saw.
enum fc_end {
	FC_END_PEER = 1,   // its FIN came
	FC_END_OWN = 2,    // the program closed it
	FC_END_UNREAD = 3, // the peer's FIN came, and the program closed it without reading all that had come
	FC_END_BROKEN = 4, // the peer's reset came, or nothing for too long
};

// Whether a socket was open before it was followed, and which kind it is.
enum fc_joined {
	FC_JOINED = 1, // a connection
	FC_JOINED_LISTENING = 2,
	FC_JOINED_FOREIGN = 3, // a connection whose socket was made in a cgroup outside of the scope, as it stays for good
};

struct fc_head {
	__u32 kind;
	__u32 tgid;
	__u32 tid;
	__u32 cpu;
	__u64 at;
	__u64 id; // socket cookie, or stream id for FC_TLS*
};

struct fc_conn {
	__u64 cookie;
	__u64 opened;      // connect()
	__u64 established; // 0: never
	__u64 closed;      // 0: open
	__u64 bytes_out;   // payload put on the wire once, retransmissions not counted
	__u64 bytes_in;    // payload received in order
	__u64 started;     // process start, CLOCK_BOOTTIME ns
	__u64 cgroup;
	__u32 tgid;
	__u32 parent;
	__u32 uid;
	__u32 srtt_us;
	__u32 retransmits;
	__u32 out_base; // sequence number of the first payload byte, each way
	__u32 in_base;
	__u32 out_next; // payload bytes already delivered to user space, each way
	__u32 in_next;
	__u32 lost; // events and pieces of this connection that could not be delivered
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family;
	__u8 proto;
	__u8 joined; // enum fc_joined: was open before we looked
	__u8 comm[16];
	__u32 listed; // its socket is in fc_sockets for as long as it exists
	__u32 ended; // enum fc_end
};

// What fc_list says of a connection whose socket exists and is not closed.
struct fc_alive {
	__u64 cookie;
	__u64 opened;
};

struct fc_conn_event {
	struct fc_head head;
	struct fc_conn conn;
};

#define FC_PATH 256
struct fc_exec_event {
	struct fc_head head;
	__u64 started;
	__u64 cgroup;
	__u32 parent;
	__u32 uid;
	__u8 comm[16];
	__u8 path[FC_PATH];
};

struct fc_data_event {
	struct fc_head head;
	__u64 cookie;  // socket, 0 where unknown
	__u64 offset;  // of this piece in its direction of the stream
	__u64 begun;   // when the operation began
	__u64 library; // SSL* of FC_TLS, cgroup id of FC_DNS
	__u32 len;     // bytes in this piece
	__u32 total;   // bytes of the whole operation
	__u32 lost;    // of this stream so far
	__u8 dir;
	__u8 joined; // the stream began before we looked
	__u8 first;  // first piece of this operation
	__u8 last;   // last piece of it
};
