//! The host's side of a balloon, for those who do not have the device: a control interface, another thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::config::pages;
use crate::{BalloonError, BalloonStatus};

/// Controls a balloon from any thread. Clones control the same one.
///
/// It outlives the device: one that is [made with it](crate::Balloon::with_handle) later, as when the guest is started
/// anew, goes on with what was last asked for. A device with a handle waits for it; without one there is no descriptor.
#[derive(Debug, Clone)]
pub struct BalloonHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Mutex<Shared>,
    /// Readable while the device has not looked at what is asked for.
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Shared {
    wishes: Wishes,
    status: BalloonStatus,
}

/// What is asked of the device.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// As `num_pages`.
    pub(crate) target: Option<u32>,
    /// How often statistics are asked for.
    pub(crate) interval: Option<Duration>,
    /// That they are, now. The device takes it.
    pub(crate) statistics: bool,
    /// That a round of hints begins, or ends. The device takes it.
    pub(crate) hinting: Option<bool>,
}

impl BalloonHandle {
    /// A handle that has asked for nothing.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Handle`] if the process cannot have one more descriptor.
    pub fn new() -> Result<Self, BalloonError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_value_and_flags(0, flags)
            .map_err(|error| BalloonError::Handle(error.into()))?;
        Ok(Self(Arc::new(Inner {
            shared: Mutex::default(),
            wake,
        })))
    }

    /// The guest is to put so many bytes of its memory into the balloon.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Target`].
    pub fn set_target(&self, bytes: u64) -> Result<(), BalloonError> {
        let pages = pages(bytes)?;
        self.wish(|wishes| wishes.target = Some(pages));
        Ok(())
    }

    /// Asks for statistics so often; with zero, no more but by [`ask_statistics`](Self::ask_statistics).
    pub fn set_statistics_interval(&self, interval: Duration) {
        self.wish(|wishes| wishes.interval = Some(interval));
    }

    /// Asks for statistics. They are there when [`Totals::statistics`](crate::Totals::statistics) has grown.
    pub fn ask_statistics(&self) {
        self.wish(|wishes| wishes.statistics = true);
    }

    /// Asks the guest for all of its free pages. It has them back when it has named all.
    pub fn start_hinting(&self) {
        self.wish(|wishes| wishes.hinting = Some(true));
    }

    /// Asks no more for them.
    pub fn stop_hinting(&self) {
        self.wish(|wishes| wishes.hinting = Some(false));
    }

    /// What the device is and has done, as of its last step.
    pub fn status(&self) -> BalloonStatus {
        self.lock().status
    }

    /// What is asked for. What is done once, by a driver that `running` says to be there, is taken.
    pub(crate) fn take(&self, running: bool) -> Wishes {
        // There is nothing to be read if nobody has called.
        let _ = self.0.wake.read();
        let mut shared = self.lock();
        let wishes = shared.wishes;
        if running {
            shared.wishes.statistics = false;
            shared.wishes.hinting = None;
        }
        wishes
    }

    pub(crate) fn publish(&self, status: BalloonStatus) {
        self.lock().status = status;
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.wake.as_fd().as_raw_fd()
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.lock().wishes);
        // It can only be full, and then the device is as good as called.
        let _ = self.0.wake.write(1).map_err(io::Error::from);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
