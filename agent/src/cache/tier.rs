//! Where sealed answers lie that are further away than memory.

use super::changes::Changes;
use farcall::Timestamp;
use farcall::cache::Key;
use std::fmt;
use std::io;
use std::time::Duration;

/// Where sealed answers lie.
pub(super) trait Tier: fmt::Debug + Send {
    /// What lies under a key.
    fn read(&mut self, key: Key) -> io::Result<Option<Vec<u8>>>;

    /// Puts it there, where it is of use for so long.
    fn write(&mut self, key: Key, sealed: &[u8], useful_for: Duration) -> io::Result<()>;

    /// Forgets it.
    fn remove(&mut self, key: Key) -> io::Result<()>;

    /// Shows all there is, and removes what is wanted; how many those were.
    fn walk(&mut self, wants: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64>;

    /// Tells other hosts what was changed here, and learns what was changed there; as of `now`. Called about once a
    /// second, and when there is something to tell.
    fn exchange(&mut self, _changes: &Changes, _now: Timestamp) -> io::Result<()> {
        Ok(())
    }

    /// Called about once a second.
    fn tick(&mut self) {}
}
