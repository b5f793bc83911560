//! The socket that libraries connect to. Who empties the home directory takes it away; it is made again.

use std::{
    fs, io,
    io::ErrorKind,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::HubError;

/// How often to look whether the path still leads to us: as often as libraries try to connect.
const LOOK: Duration = Duration::from_secs(1);

/// A listening socket and its path.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of its file, which no other file has for as long as it is bound.
    file: (u64, u64),
    looked: Instant,
}

impl Socket {
    pub(super) fn listen(path: &Path) -> Result<Self, HubError> {
        let failed = |source| HubError::Listen { path: path.display().to_string(), source };
        if UnixStream::connect(path).is_ok() {
            return Err(HubError::Taken(path.display().to_string()));
        }
        // A socket that nobody answers is what a killed sidecar left.
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // Any user's process may tell; it can only ever speak for itself.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        let file = file_at(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_path_buf(), file, looked: Instant::now() })
    }

    /// A process that connected, if there is one.
    pub(super) fn accept(&self) -> Option<UnixStream> {
        self.listener.accept().ok().map(|(stream, _)| stream)
    }

    /// Looks once a second whether the path still leads here, and listens anew where it does not. Returns whether it did.
    pub(super) fn renew(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        if self.is_at_its_path() {
            return false;
        }
        // In vain while the directory is gone, which comes back with the ledger, or where another sidecar took the path.
        let Ok(anew) = Self::listen(&self.path) else { return false };
        *self = anew;
        true
    }

    fn is_at_its_path(&self) -> bool {
        file_at(&self.path).is_ok_and(|file| file == self.file)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_at_its_path() {
            let _left_behind = fs::remove_file(&self.path);
        }
    }
}

fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_killed_hub_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Socket::listen(&path).is_ok());
    }

    fn until_renewed(socket: &mut Socket) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.renew() {
            assert!(Instant::now() < deadline, "it does not listen anew");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_socket_that_was_removed_is_made_again_but_not_in_anothers_place() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        let path = home.join("sidecar.sock");
        fs::create_dir(&home).unwrap();
        let mut socket = Socket::listen(&path).unwrap();
        fs::remove_dir_all(&home).unwrap();
        socket.looked -= LOOK;
        assert!(!socket.renew(), "there is no directory");
        fs::create_dir(&home).unwrap();
        until_renewed(&mut socket);
        let _stream = UnixStream::connect(&path).unwrap();
        assert!(socket.accept().is_some());

        fs::remove_file(&path).unwrap();
        let other = Socket::listen(&path).unwrap();
        socket.looked -= LOOK;
        assert!(!socket.renew());
        drop(socket);
        assert!(path.exists(), "it is the other's");
        drop(other);
        assert!(!path.exists());
    }
}
