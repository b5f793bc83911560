//! Reading the kernel's map of open connections.

use libbpf_rs::{MapCore, MapFlags};

use crate::wire::record::Socket;

/// All entries of a map in the layout of `fc_conns`.
pub(super) fn all(map: &impl MapCore) -> Result<Vec<Socket>, libbpf_rs::Error> {
    // One batch has room for the whole map, and memory is taken only for what comes. With smaller ones the kernel stops
    // at a bucket's end, which the iterator takes for the end of the map.
    let batch = map.lookup_batch(map.max_entries(), MapFlags::ANY, MapFlags::ANY)?;
    Ok(batch.filter_map(|(_, value)| Socket::decode(&value)).collect())
}

/// The entry of a connection: of this cookie, and opened then.
pub(super) fn one(map: &impl MapCore, key: (u64, u64)) -> Result<Option<Socket>, libbpf_rs::Error> {
    let value = map.lookup(&key.0.to_ne_bytes(), MapFlags::ANY)?;
    Ok(value.and_then(|value| Socket::decode(&value)).filter(|socket| socket.opened == key.1))
}

/// Takes an entry out. One that is gone already is as good as taken out.
pub(super) fn forget(map: &impl MapCore, cookie: u64) {
    let _gone = map.delete(&cookie.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use libbpf_rs::{MapHandle, MapType, libbpf_sys::bpf_map_create_opts};

    use super::*;

    #[test]
    fn every_connection_is_read_however_many_are_open() {
        let options = bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as _, ..Default::default() };
        let value = Socket::SIZE as u32;
        let map = match MapHandle::create(MapType::Hash, Some("fc_test"), 8, value, 65_536, &options) {
            Ok(map) => map,
            Err(error) => {
                println!("SKIPPED (kernel): no map can be made: {error}");
                eprintln!("SKIPPED (kernel): no map can be made: {error}");
                return;
            }
        };
        assert!(all(&map).unwrap().is_empty());
        let mut known = 0u64;
        for open in [1, 255, 256, 257, 5_000, 40_000] {
            for cookie in known + 1..=open {
                let mut bytes = vec![0; Socket::SIZE];
                bytes[..8].copy_from_slice(&cookie.to_ne_bytes());
                map.update(&cookie.to_ne_bytes(), &bytes, MapFlags::NO_EXIST).unwrap();
            }
            known = open;
            let cookies: HashSet<u64> = all(&map).unwrap().iter().map(|socket| socket.cookie).collect();
            assert_eq!(cookies, (1..=open).collect());
        }
    }
}
