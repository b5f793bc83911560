//! Compiles the BPF programs with clang and writes a typed skeleton for them.

use std::{env, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("farcall.skel.rs");
    println!("cargo::rerun-if-changed=bpf");
    SkeletonBuilder::new()
        .source("bpf/farcall.bpf.c")
        .clang_args(["-Ibpf", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers"])
        .build_and_generate(&out)
        .map_err(|error| format!("{error:#}\n(building the sidecar needs clang and libelf headers: apt-get install clang libelf-dev zlib1g-dev)"))?;
    Ok(())
}
