//! A tap whose frames have no header of virtio.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use libc::c_int;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::open::{name_bytes, open_queue};
use super::{TapConfig, TapError, ioctl};

/// Frames, and nothing before them.
const TAP: c_int = libc::IFF_TAP | libc::IFF_NO_PI;

/// A tap with one queue whose frames are plain: whole, with sums, and no longer than the MTU allows.
#[derive(Debug)]
pub struct PlainTap {
    file: File,
    mtu: u16,
}

impl PlainTap {
    /// Opens a tap. If there is none of that name, it is made, which needs a privilege, for as long as it is open.
    ///
    /// # Errors
    ///
    /// [`TapError`], which says what to do where something can be done.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let Some(bytes) = name_bytes(name) else {
            return Err(TapError::Name(name.into()));
        };
        let file = open_queue(&TapConfig::new(name), bytes, TAP)?;
        let kind = SockFlag::SOCK_CLOEXEC;
        let mtu = socket(AddressFamily::Unix, SockType::Datagram, kind, None)
            .map_err(io::Error::from)
            .and_then(|socket| ioctl::interface_mtu(&socket, bytes));
        let mtu = mtu.map_err(|source| TapError::SetUp {
            name: name.into(),
            what: "get the MTU",
            source,
        })?;
        Ok(Self { file, mtu })
    }

    /// The interface's MTU when it was opened, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// What `write` gives: `WouldBlock` if there is no room now.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(|_| ())
    }

    /// Receives a frame, cut off where `buffer` ends, and returns its length.
    ///
    /// # Errors
    ///
    /// What `read` gives: `WouldBlock` if there is none now.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }
}

/// Readable when there is a frame.
impl AsFd for PlainTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has_are_refused() {
        for name in ["", "a/b", "tap%d", "sixteen-letters-"] {
            let error = PlainTap::open(name).unwrap_err();
            assert!(matches!(error, TapError::Name(_)), "{name}: {error}");
        }
    }
}
