//! The socket that clients connect to.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that only its owner may connect to. Its file is removed when this is dropped, unless it has been replaced.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode of its file.
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Listens at `path`. A socket that is there already is replaced if nobody listens at it; anything else is refused.
    ///
    /// # Errors
    ///
    /// If there is something else, or the host refuses.
    pub fn listen(path: &Path) -> io::Result<(Self, UnixListener)> {
        remove_stale(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Linux makes the file with the mode that the socket has: there is no moment in which others may connect.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        let socket = Self {
            path: path.to_owned(),
            identity: identity(path),
        };
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok((socket, UnixListener::from(fd)))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nothing can be done about a file that stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a process that has ended without doing so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("there is a file already"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other("another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_its_owners_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (socket, listener) = Socket::listen(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = Socket::listen(&path).unwrap_err().to_string();
        assert_eq!(refused, "another process listens there");
        drop((socket, listener));
        assert!(!path.exists());
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, _listener) = Socket::listen(&path).unwrap();
        // Another's in its place is left alone.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(socket);
        assert!(path.exists());
        let refused = Socket::listen(&path).unwrap_err().to_string();
        assert_eq!(refused, "there is a file already");
    }
}
