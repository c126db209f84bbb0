//! A port on a pseudo-terminal of its own.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc::EIO;
use nix::poll::PollFlags;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::{LOOK_AT_SIZE, size_of, state_of};
use crate::{ConsoleError, PortBackend};

/// How often it is looked whether somebody has opened the terminal. There is no descriptor to wait for: one that is
/// hung up is ready all the time.
const LOOK: Duration = Duration::from_millis(200);

/// A pseudo-terminal. Programs such as `screen` or `picocom` open its [path](Self::path), close it, and open it again;
/// while none has it open, output is dropped.
#[derive(Debug)]
pub struct PtyPort {
    master: PtyMaster,
    path: PathBuf,
    open: bool,
}

impl PtyPort {
    /// Opens a new pseudo-terminal, in raw mode.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Pty`].
    pub fn open() -> Result<Self, ConsoleError> {
        Self::try_open().map_err(|error| ConsoleError::Pty(error.into()))
    }

    fn try_open() -> nix::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(ptsname_r(&master)?);
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        // Having been opened and closed once, the terminal says that it is hung up.
        let terminal = nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty())?;
        let mut settings = tcgetattr(&terminal)?;
        cfmakeraw(&mut settings);
        tcsetattr(&terminal, SetArg::TCSANOW, &settings)?;
        Ok(Self {
            master,
            path,
            open: false,
        })
    }

    /// Where to open it, `/dev/pts/3` for example.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl PortBackend for PtyPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.master.write(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.master.read(bytes) {
            // Nobody has it open, and all that was written before has been read.
            Err(error) if error.raw_os_error() == Some(EIO) => {
                self.open = false;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            result => result,
        }
    }

    fn poll(&mut self) {
        let state = state_of(self.master.as_fd(), PollFlags::empty());
        self.open = state.is_ok_and(|state| !state.contains(PollFlags::POLLHUP));
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn read_fd(&self) -> Option<RawFd> {
        self.open.then(|| self.master.as_raw_fd())
    }

    fn write_fd(&self) -> Option<RawFd> {
        self.open.then(|| self.master.as_raw_fd())
    }

    fn poll_within(&self) -> Option<Duration> {
        Some(if self.open { LOOK_AT_SIZE } else { LOOK })
    }

    fn size(&self) -> Option<(u16, u16)> {
        self.open.then(|| size_of(&self.master)).flatten()
    }
}
