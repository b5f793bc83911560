//! Descriptors that stay open for long. Programs close what they find open (daemons do, before they begin), and what they
//! open next gets the numbers: nothing may be read from those, written to them, or closed.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

/// One of ours, for as long as its number is.
#[derive(Debug)]
pub(crate) struct Kept<T: AsFd> {
    descriptor: Option<T>,
    /// What the number stood for at first; `None` where the system does not tell.
    first: Option<PathBuf>,
}

impl<T: AsFd> Kept<T> {
    pub(crate) fn new(descriptor: T) -> Self {
        let first = stands_for(&descriptor);
        Self { descriptor: Some(descriptor), first }
    }

    /// `None` where somebody closed it.
    pub(crate) fn get(&self) -> Option<&T> {
        let descriptor = self.descriptor.as_ref()?;
        (self.first.is_none() || stands_for(descriptor) == self.first).then_some(descriptor)
    }
}

impl<T: AsFd> Drop for Kept<T> {
    fn drop(&mut self) {
        if self.get().is_none() {
            // To close its number would close somebody else's.
            std::mem::forget(self.descriptor.take());
        }
    }
}

/// `socket:[4711]`, `anon_inode:inotify`.
fn stands_for(descriptor: &impl AsFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    #[test]
    #[allow(unsafe_code)]
    fn a_number_that_is_somebody_elses_is_not_touched() {
        let (ours, mut other) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        let kept = Kept::new(ours);
        kept.get().unwrap().write_all(b"a").unwrap();
        // As the program does it: its own socket takes the number.
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // SAFETY: the number is taken over at once; whoever had it does not close it any more.
        let mut taken = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::dup2(&here, &mut taken).unwrap();
        let number = taken.into_raw_fd();
        assert!(kept.get().is_none());
        drop(kept);
        // SAFETY: as before.
        let mut taken = unsafe { UnixStream::from_raw_fd(number) };
        taken.write_all(b"b").unwrap();
        here.write_all(b"c").unwrap();
        let mut said = [0; 2];
        there.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"bc");
        let mut rest = Vec::new();
        other.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"a");
    }
}
