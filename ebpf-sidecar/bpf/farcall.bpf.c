// SPDX-License-Identifier: (LGPL-2.1 OR BSD-2-Clause)
// One object; each runtime and concept in its own file.
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "types.h"

#include "maps/adoptees.h"
#include "maps/calls.h"
#include "maps/connections.h"
#include "maps/events.h"
#include "maps/losses.h"
#include "maps/scope.h"
#include "maps/sockets.h"
#include "maps/streams.h"

#include "common.h"
#include "copy.h"

#include "connections.c"
#include "adopt.c"
#include "reconcile.c"
#include "processes.c"
#include "packets.c"
#include "openssl.c"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
