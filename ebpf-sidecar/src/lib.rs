//! Farcall's eBPF sidecar: the calls of programs that nobody instrumented, seen from the kernel.
//!
//! [`attach`] loads the programs of `bpf/`, confines them to one cgroup and puts probes on the TLS libraries that
//! its processes map. Their records are decoded by [`wire`], which also holds the protocol parsers: pure functions
//! and state machines without I/O. [`identity`] knows who a process is and which name an address had. [`tap`] joins
//! these into connections and exchanges, and [`coverage`] says of each connection how much of it was understood.
//! [`hub`] keeps what the libraries inside the processes counted from being counted again, and writes the rest.
//!
//! Nothing here alters, delays or blocks traffic.

pub mod attach;
mod clock;
pub mod coverage;
pub mod hub;
pub mod identity;
pub mod tap;
pub mod wire;
