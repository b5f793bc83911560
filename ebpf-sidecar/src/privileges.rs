//! What the sidecar keeps of its privileges once the programs are loaded and attached: parsers of whatever is on the wire
//! run in this process.

use std::io;

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

/// Kept, where they are held:
/// - `BPF`, `PERFMON` and `SYS_ADMIN`: reading maps, and probes on libraries that are mapped later. Linux 6.18 answers EACCES
///   to a new uprobe without `SYS_ADMIN`
/// - `SYS_PTRACE`, `CHECKPOINT_RESTORE` and `DAC_READ_SEARCH`: which files other users' processes map, and those files
/// - `DAC_OVERRIDE` and `CHOWN`: the ledger of another user's home directory
///
/// What goes: the network's configuration, modules, other users' identities, raw devices and memory, signals to others.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::CHOWN);

/// Gives up all capabilities (capabilities(7)) but those that are needed from now on, for this thread and those that it
/// starts later, and for every program that it might execute: so it must be called while there is but one thread.
///
/// # Errors
/// When the kernel refuses. What was given up until then is gone.
pub(crate) fn drop_rest() -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    clear_ambient_capability_set()?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if KEPT.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                // Beyond the last one that this kernel knows.
                Err(Errno::INVAL) => break,
                result => result?,
            }
        }
    }
    let kept = held.permitted & KEPT;
    let sets = CapabilitySets {
        effective: held.effective & kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}
