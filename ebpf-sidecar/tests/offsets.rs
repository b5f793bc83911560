//! What the packets' program takes for new (`bpf/offsets.h`), compiled for this machine and fed gigabytes of offsets.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

/// Feeds packets (offset, length) to a stream whose bytes until `next` were delivered. How many bytes of each were delivered
/// before, and what is next then.
fn advance(next: u32, packets: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    let mut text = format!(
        "#include <stdint.h>\n#include <stdio.h>\ntypedef uint32_t u32; typedef int32_t s32;\n\
         #undef __always_inline\n#define __always_inline inline\n#include \"offsets.h\"\nint main(void) {{ u32 next = {next}u;\n"
    );
    for (offset, len) in packets {
        text += &format!(
            "{{ u32 from = fc_advance(&next, {offset}u, {len}u); printf(\"%u %u\\n\", from, next); }}\n"
        );
    }
    text += "}\n";
    fs::write(&source, text).unwrap();
    // The build needs clang, so it is here.
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let made = Command::new("clang")
        .args(["-O2", "-Wall", "-Werror", "-fsanitize-trap=undefined", "-fsanitize=undefined", "-I"])
        .arg(bpf)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = Command::new(program).output().unwrap();
    assert!(said.status.success());
    let lines = String::from_utf8(said.stdout).unwrap();
    let pair = |line: &str| line.split_once(' ').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    lines.lines().map(|line| pair(line).unwrap()).collect()
}

const GAP_MAX: u32 = 64 << 20;

#[test]
fn bytes_are_new_once_however_often_and_in_whichever_order_they_come() {
    let packets = [(0, 100), (0, 100), (50, 100), (200, 10), (150, 50), (140, 20)];
    let expected = [(0, 100), (100, 100), (50, 150), (0, 150), (0, 200), (20, 200)];
    assert_eq!(advance(0, &packets), expected);
}

#[test]
fn a_packet_behind_a_gap_is_waited_for_no_longer_than_64_mebibytes() {
    // The first two are early; the third shows that what is missing will not come again.
    let packets = [(1_000, 10), (GAP_MAX, 10), (GAP_MAX + 1, 10), (GAP_MAX + 11, 5), (0, 10)];
    let expected = [(0, 0), (0, 0), (0, GAP_MAX + 11), (0, GAP_MAX + 16), (10, GAP_MAX + 16)];
    assert_eq!(advance(0, &packets), expected);
}

#[test]
fn after_a_gap_a_stream_is_delivered_for_as_many_gigabytes_as_it_lives() {
    // One packet is lost at the start; then 9 GiB in steps of 16 MiB, around the end of the offsets more than once.
    let step = 16 << 20;
    let packets: Vec<(u32, u32)> = (1..=576u32).map(|n| (n.wrapping_mul(step), step)).collect();
    assert!(advance(0, &packets).iter().all(|(from, _)| *from == 0), "every byte of each packet is new");
}
