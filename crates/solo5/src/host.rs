//! The host's clocks, and waiting.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// What a guest's calls need of the host beside its devices.
pub trait Host: Send {
    /// Time since 1970-01-01 00:00 UTC.
    fn wall_clock(&self) -> Duration;

    /// Time since some moment, by a clock that never jumps.
    fn now(&self) -> Duration;

    /// Whether the machine is to end: no call waits any more.
    fn is_stopped(&self) -> bool;

    /// Waits until one of `readable` can be read or `timeout` is over, or returns earlier.
    ///
    /// # Errors
    ///
    /// What the host gives if it cannot wait.
    fn wait(&mut self, readable: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Wake>;
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something can be read, or it is time; or it is worth a look.
    Look,
    /// The guest's call is to return, whatever there is.
    Return,
}

/// Longer waits are several.
const LONGEST: Duration = Duration::from_secs(3600);

/// This system.
pub struct SystemHost {
    stopped: Box<dyn Fn() -> bool + Send>,
    interrupt: Option<File>,
    begun: Instant,
}

impl SystemHost {
    /// `stopped` says whether the machine is to end. `interrupt` is an `eventfd` that does not block, written to when a
    /// guest's call that waits is to return; without it, a wait is as long as the guest wants it to be.
    pub fn new(stopped: impl Fn() -> bool + Send + 'static, interrupt: Option<OwnedFd>) -> Self {
        Self {
            stopped: Box::new(stopped),
            interrupt: interrupt.map(File::from),
            begun: Instant::now(),
        }
    }
}

impl Host for SystemHost {
    fn wall_clock(&self) -> Duration {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default()
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn is_stopped(&self) -> bool {
        (self.stopped)()
    }

    fn wait(&mut self, readable: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Wake> {
        let interrupt = self.interrupt.as_ref().map(File::as_fd);
        let mut fds: Vec<_> = interrupt
            .into_iter()
            .chain(readable.iter().copied())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = TimeSpec::from_duration(timeout.min(LONGEST));
        match ppoll(&mut fds, Some(timeout), None) {
            // Who is kicked is to look whether the machine is to end.
            Err(Errno::EINTR) => return Ok(Wake::Look),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let interrupted =
            self.interrupt.is_some() && fds.first().and_then(PollFd::any).unwrap_or_default();
        if !interrupted {
            return Ok(Wake::Look);
        }
        if let Some(interrupt) = &mut self.interrupt {
            // Somebody else may have read it.
            let _ = interrupt.read(&mut [0; 8]);
        }
        Ok(Wake::Return)
    }
}
