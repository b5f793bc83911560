//! The BPF object as libbpf-cargo made it of `bpf/`.
#![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
// SAFETY (all blocks of the generated file): libbpf-cargo keeps maps and programs alive as long as the object.
include!(concat!(env!("OUT_DIR"), "/farcall.skel.rs"));
