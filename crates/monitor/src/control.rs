//! Stopping and pausing machines from outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use goldcrest_vcpu::Kick;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::Metrics;
use crate::counters::Counters;

/// Why a machine was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The process got this signal.
    Signal(u8),
    /// It ran as long as it may.
    Timeout,
    /// The person at the terminal typed `Ctrl-a x`.
    Escape,
}

/// Stops and pauses a machine. One control serves one machine at a time, also across resets.
#[derive(Default)]
pub struct Control {
    /// 0, or an encoded [`StopReason`].
    stop: AtomicU32,
    kickers: Mutex<Vec<Arc<dyn Kick>>>,
    /// Tells an access that waits that it is to end. There is none before such an access can be.
    interrupt: OnceLock<EventFd>,
    pause: Mutex<Pause>,
    changed: Condvar,
    pub(crate) counters: Counters,
}

#[derive(Default)]
struct Pause {
    wanted: bool,
    /// CPUs that have a thread now.
    running: usize,
    /// Those among them that wait.
    waiting: usize,
}

const TIMEOUT: u32 = 0x100;
const ESCAPE: u32 = 0x101;

/// How often a paused CPU looks whether it was stopped: a signal handler cannot wake it.
const PAUSED_POLL: Duration = Duration::from_millis(50);

impl Control {
    /// Ends the machine soon; the first reason counts. A machine that is started later ends at once.
    ///
    /// May be called in a signal handler: it takes no lock, and allocates nothing.
    pub fn stop(&self, reason: StopReason) {
        let code = match reason {
            StopReason::Signal(number) => u32::from(number),
            StopReason::Timeout => TIMEOUT,
            StopReason::Escape => ESCAPE,
        };
        let _ = self
            .stop
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.interrupt();
        match self.kickers.try_lock() {
            Ok(kickers) => kick(&kickers),
            Err(TryLockError::Poisoned(error)) => kick(&error.into_inner()),
            // Whoever has the lock looks at `stop` after giving it back.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Why the machine is to stop, if it is.
    pub fn stopped(&self) -> Option<StopReason> {
        match self.stop.load(Ordering::SeqCst) {
            0 => None,
            TIMEOUT => Some(StopReason::Timeout),
            ESCAPE => Some(StopReason::Escape),
            number => Some(StopReason::Signal(u8::try_from(number).unwrap_or(0))),
        }
    }

    /// Pauses the machine: when this returns, no CPU runs guest code. It waits for accesses that are being served, so
    /// also for an output that nobody reads; it must not be called by a device.
    pub fn pause(&self) {
        let mut pause = self.lock_pause();
        if !pause.wanted {
            self.counters.pauses.begin();
        }
        pause.wanted = true;
        drop(pause);
        self.kick_all();
        let pause = self.lock_pause();
        drop(
            self.changed
                .wait_while(pause, |p| p.wanted && p.waiting < p.running)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        let mut pause = self.lock_pause();
        if pause.wanted {
            self.counters.pauses.end();
        }
        pause.wanted = false;
        drop(pause);
        self.changed.notify_all();
    }

    /// What the machine has done so far, and what was done for it; also those before it that this has controlled.
    pub fn metrics(&self) -> Metrics {
        self.counters.metrics()
    }

    /// The CPUs of a machine that is about to run.
    pub(crate) fn attach(&self, kickers: Vec<Arc<dyn Kick>>) {
        *self.kickers.lock().unwrap_or_else(PoisonError::into_inner) = kickers;
        // A stop may have come before there was anybody to kick, or have found the lock taken.
        if self.stopped().is_some() {
            self.kick_all();
        }
    }

    /// A descriptor that can be read when an access that waits is to end, since the machine is to stop, to pause, or has
    /// ended. Whoever reads it has seen it.
    pub(crate) fn interruption(&self) -> io::Result<OwnedFd> {
        let event = match self.interrupt.get() {
            Some(event) => event,
            None => {
                let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
                let event = EventFd::from_flags(flags)?;
                self.interrupt.get_or_init(|| event)
            }
        };
        // One that came before there was anybody to be told.
        if self.stopped().is_some() {
            self.interrupt();
        }
        event.as_fd().try_clone_to_owned()
    }

    fn interrupt(&self) {
        if let Some(event) = self.interrupt.get() {
            // It fails if nobody has seen billions of them.
            let _ = event.write(1);
        }
    }

    /// Makes every CPU look at what is wanted of it.
    pub(crate) fn kick_all(&self) {
        self.interrupt();
        loop {
            let seen = self.stop.load(Ordering::SeqCst);
            kick(&self.kickers.lock().unwrap_or_else(PoisonError::into_inner));
            // A stop meanwhile found the lock taken, and relies on this.
            if self.stop.load(Ordering::SeqCst) == seen {
                return;
            }
        }
    }

    /// A CPU's thread begins to run it.
    pub(crate) fn cpu_starts(&self) {
        self.lock_pause().running += 1;
    }

    /// A CPU's thread ends.
    pub(crate) fn cpu_ends(&self) {
        let mut pause = self.lock_pause();
        pause.running = pause.running.saturating_sub(1);
        drop(pause);
        self.changed.notify_all();
    }

    /// Blocks a CPU's thread while the machine is paused and neither stopped nor `finished`.
    pub(crate) fn wait_while_paused(&self, finished: impl Fn() -> bool) {
        let mut pause = self.lock_pause();
        if !pause.wanted {
            return;
        }
        pause.waiting += 1;
        self.changed.notify_all();
        while pause.wanted && self.stopped().is_none() && !finished() {
            pause = self
                .changed
                .wait_timeout(pause, PAUSED_POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        pause.waiting -= 1;
    }

    fn lock_pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kick(kickers: &[Arc<dyn Kick>]) {
    kickers.iter().for_each(|kicker| kicker.kick());
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}
