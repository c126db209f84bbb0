//! What is behind a port.

mod file;
mod memory;
mod pty;
mod socket;

pub use file::{FilePort, InputFilter};
pub use memory::MemoryPort;
pub use pty::PtyPort;
pub use socket::SocketPort;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::tcgetwinsize;

/// The host's end of a port. No call waits.
pub trait PortBackend: Send {
    /// Takes output of the guest from the front of `bytes`. Returns how many bytes it took.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if it can take none now: the guest's output waits. After any other,
    /// these bytes are dropped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Gives input for the guest. Returns how many bytes of `bytes`, which is not empty, it has set; 0 if there will
    /// never be any more.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none now. Any other is taken for the end of input.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// Looks at what has happened on the host's side, such as somebody coming or going.
    fn poll(&mut self) {}

    /// Whether somebody is at the other end. If not, output is dropped.
    fn is_open(&self) -> bool {
        true
    }

    /// What becomes readable when there is input. Waited for only while the guest has room for it.
    fn read_fd(&self) -> Option<RawFd> {
        None
    }

    /// What becomes writable when output can be taken. Waited for only while there is some.
    fn write_fd(&self) -> Option<RawFd> {
        None
    }

    /// What becomes readable when [`poll`](Self::poll) is to be called. Waited for in any case.
    fn poll_fd(&self) -> Option<RawFd> {
        None
    }

    /// After what time [`poll`](Self::poll) is to be called, where no descriptor tells.
    fn poll_within(&self) -> Option<Duration> {
        None
    }

    /// Columns and rows of the terminal at the other end, if there is one and it says. Asked after
    /// [`poll`](Self::poll).
    fn size(&self) -> Option<(u16, u16)> {
        None
    }
}

impl<B: PortBackend + ?Sized> PortBackend for Box<B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (**self).write(bytes)
    }
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (**self).read(bytes)
    }
    fn poll(&mut self) {
        (**self).poll();
    }
    fn is_open(&self) -> bool {
        (**self).is_open()
    }
    fn read_fd(&self) -> Option<RawFd> {
        (**self).read_fd()
    }
    fn write_fd(&self) -> Option<RawFd> {
        (**self).write_fd()
    }
    fn poll_fd(&self) -> Option<RawFd> {
        (**self).poll_fd()
    }
    fn poll_within(&self) -> Option<Duration> {
        (**self).poll_within()
    }
    fn size(&self) -> Option<(u16, u16)> {
        (**self).size()
    }
}

/// How often a terminal is asked for its size, which it tells those alone that it controls, by a signal.
const LOOK_AT_SIZE: Duration = Duration::from_secs(1);

/// Columns and rows of a terminal; nothing if it does not know.
fn size_of(terminal: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(terminal).ok()?;
    let size = (size.ws_col, size.ws_row);
    (size != (0, 0)).then_some(size)
}

/// What is true of a descriptor now: of `flags`, errors and hang-ups.
fn state_of(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(fd, flags)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let [fd] = fds;
    Ok(fd.revents().unwrap_or(PollFlags::empty()))
}
