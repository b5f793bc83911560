// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// Copies payload into the ring in pieces. A reservation's size must be known at load time, so there are four
// sizes and the smallest that fits is taken. What cannot be copied is counted, and its place in the stream
// stays empty: user space sees the gap in `offset`.

#define FC_PIECE_MAX 16384
// Pieces of one operation. The largest packet that a device hands over is 512 KiB. Of a longer operation of a TLS
// library the middle is left out and counted: framing sits at both ends.
#define FC_PACKET_PIECES 33
#define FC_CALL_PIECES 16

// The length must not be 0. `READ(destination, length)` copies from wherever the payload is and returns 0, or negative on failure.
#define FC_COPY_SIZED(SIZE, SHAPE, READ, REASON)                                                         \
	({                                                                                               \
		int result = -1;                                                                         \
		struct {                                                                                 \
			struct fc_data_event event;                                                      \
			u8 bytes[SIZE];                                                                  \
		} *slot = bpf_ringbuf_reserve(&fc_events, sizeof(*slot), 0);                             \
		if (!slot) {                                                                             \
			fc_count_loss(FC_LOSS_RING, 1);                                                  \
		} else {                                                                                 \
			u64 bounded = (SHAPE)->len;                                                      \
			__builtin_memcpy(&slot->event, (SHAPE), sizeof(slot->event));                    \
			/* Lengths are 1 to SIZE, a power of two. Written so that verifiers before 6.7 */ \
			/* see both bounds; the barrier keeps clang from using what it knows. */         \
			barrier_var(bounded);                                                            \
			bounded = ((bounded - 1) & (SIZE - 1)) + 1;                                      \
			if (READ(slot->bytes, bounded) == 0) {                                           \
				bpf_ringbuf_submit(slot, 0);                                             \
				result = 0;                                                              \
			} else {                                                                         \
				bpf_ringbuf_discard(slot, BPF_RB_NO_WAKEUP);                             \
				fc_count_loss(REASON, 1);                                                \
			}                                                                                \
		}                                                                                        \
		result;                                                                                  \
	})

#define FC_COPY(SHAPE, READ, REASON)                                                                     \
	((SHAPE)->len <= 256	? FC_COPY_SIZED(256, SHAPE, READ, REASON) :                              \
	 (SHAPE)->len <= 1024	? FC_COPY_SIZED(1024, SHAPE, READ, REASON) :                             \
	 (SHAPE)->len <= 4096	? FC_COPY_SIZED(4096, SHAPE, READ, REASON) :                             \
				  FC_COPY_SIZED(FC_PIECE_MAX, SHAPE, READ, REASON))
