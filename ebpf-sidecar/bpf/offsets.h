// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
#pragma once
// Which bytes of a packet are new. Pure, and compiled for this machine by tests/offsets.rs.

// No window is larger than 1 GiB, and few come near this: where a gap is, the bytes before it will not come again.
#define FC_GAP_MAX (64 << 20)

// Takes the packet that holds the stream's bytes from `offset` on, where `*next` is what comes after all that was delivered.
// Returns how many of its bytes were delivered before: `len` where it has no others. Early ones (out of order) leave `next`
// where it is, but not for ever: offsets wrap, and from 2 GiB on all would seem to have been delivered.
static __always_inline u32 fc_advance(u32 *next, u32 offset, u32 len)
{
	u32 end = offset + len, from = 0;
	if ((s32)(end - *next) <= 0)
		return len;
	if ((s32)(offset - *next) < 0)
		from = *next - offset;
	if ((s32)(offset - *next) <= 0 || offset - *next > FC_GAP_MAX)
		*next = end;
	return from;
}
