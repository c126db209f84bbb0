//! Stopping and pausing machines from outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use goldcrest_vcpu::Kick;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counters::Counters;
use crate::cpu::Board;
use crate::snapshot::{Subject, take};
use crate::{Metrics, SnapshotError, SnapshotFiles, SnapshotKind, SnapshotReport};

/// Why a machine was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The process got this signal.
    Signal(u8),
    /// It ran as long as it may.
    Timeout,
    /// The person at the terminal typed `Ctrl-a x`.
    Escape,
    /// A program asked for it.
    Request,
}

/// Stops and pauses a machine. One control serves one machine at a time, also across resets.
#[derive(Default)]
pub struct Control {
    /// 0, or an encoded [`StopReason`].
    stop: AtomicU32,
    /// A pause that is asked for where no lock can be taken.
    asked_to_pause: AtomicBool,
    kickers: Mutex<Vec<Arc<dyn Kick>>>,
    /// Tells an access that waits that it is to end. There is none before such an access can be.
    interrupt: OnceLock<EventFd>,
    pause: Mutex<Pause>,
    changed: Condvar,
    /// The devices of the machine that runs.
    board: Mutex<Weak<Board>>,
    snapshots: Mutex<()>,
    pub(crate) counters: Counters,
}

#[derive(Default)]
struct Pause {
    wanted: bool,
    /// CPUs that have a thread now.
    running: usize,
    /// Those among them that wait.
    waiting: usize,
    /// They wait in any case: the machine is being saved.
    held: bool,
    /// What those that wait are to do.
    task: Option<Task>,
    /// How many tasks there have been.
    tasks: u64,
    /// How many have done the last one.
    done: usize,
    /// What is saved of the machine.
    subject: Option<Arc<Subject>>,
}

/// What the thread of a CPU that waits does for a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Notes what the clocks show, as it begins to wait.
    NoteClocks,
    /// Finishes an access that was begun.
    FinishAccess,
    /// Saves the CPU's state.
    Save,
}

/// CPUs that do not run on for as long as this lives.
pub(crate) struct Hold<'a> {
    control: &'a Control,
    cpus: usize,
}

impl Hold<'_> {
    /// Has every CPU's thread do this.
    pub(crate) fn perform(&self, task: Task) -> Result<(), SnapshotError> {
        let control = self.control;
        let mut pause = control.lock_pause();
        pause.task = Some(task);
        pause.tasks += 1;
        pause.done = 0;
        control.changed.notify_all();
        let under_way = |pause: &mut Pause| pause.done < self.cpus && pause.waiting == self.cpus;
        let pause = control
            .changed
            .wait_while(pause, under_way)
            .unwrap_or_else(PoisonError::into_inner);
        match pause.waiting == self.cpus {
            true => Ok(()),
            false => Err(SnapshotError::Ended),
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut pause = self.control.lock_pause();
        pause.held = false;
        pause.task = None;
        drop(pause);
        self.control.changed.notify_all();
    }
}

const TIMEOUT: u32 = 0x100;
const ESCAPE: u32 = 0x101;
const REQUEST: u32 = 0x102;

/// How long the CPUs of a machine that was paused while it started may take to be there.
const ARRIVAL: Duration = Duration::from_secs(5);
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
            StopReason::Request => REQUEST,
        };
        let _ = self
            .stop
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.try_kick();
    }

    /// As [`kick_all`](Self::kick_all), in a signal handler.
    fn try_kick(&self) {
        self.interrupt();
        match self.kickers.try_lock() {
            Ok(kickers) => kick(&kickers),
            Err(TryLockError::Poisoned(error)) => kick(&error.into_inner()),
            // Whoever has the lock looks what is wanted after giving it back.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Why the machine is to stop, if it is.
    pub fn stopped(&self) -> Option<StopReason> {
        match self.stop.load(Ordering::SeqCst) {
            0 => None,
            TIMEOUT => Some(StopReason::Timeout),
            ESCAPE => Some(StopReason::Escape),
            REQUEST => Some(StopReason::Request),
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
        tracing::info!("the machine is paused");
    }

    /// As [`pause`](Self::pause), for so long at most: whether it is paused. If not, it goes on as if nothing had been asked.
    pub fn pause_within(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        let was_wanted = std::mem::replace(&mut self.lock_pause().wanted, true);
        if !was_wanted {
            self.counters.pauses.begin();
        }
        self.kick_all();
        let pause = self.lock_pause();
        let left = limit.saturating_sub(begun.elapsed());
        let (mut pause, waited) = self
            .changed
            .wait_timeout_while(pause, left, |p| p.wanted && p.waiting < p.running)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && !was_wanted {
            self.counters.pauses.end();
            pause.wanted = false;
            drop(pause);
            self.changed.notify_all();
        }
        match waited.timed_out() {
            true => tracing::warn!(?limit, "the machine does not pause"),
            false => tracing::info!("the machine is paused"),
        }
        !waited.timed_out()
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        self.asked_to_pause.store(false, Ordering::SeqCst);
        let mut pause = self.lock_pause();
        if pause.wanted {
            self.counters.pauses.end();
            tracing::info!("the machine goes on");
        }
        pause.wanted = false;
        drop(pause);
        self.changed.notify_all();
    }

    /// Has the machine pause soon, and does not wait until it does.
    ///
    /// May be called in a signal handler: it takes no lock, and allocates nothing.
    pub fn ask_to_pause(&self) {
        self.asked_to_pause.store(true, Ordering::SeqCst);
        self.try_kick();
    }

    /// Takes [`ask_to_pause`](Self::ask_to_pause) back: the machine goes on soon, unless it is paused otherwise.
    ///
    /// May be called in a signal handler.
    pub fn ask_to_resume(&self) {
        self.asked_to_pause.store(false, Ordering::SeqCst);
    }

    /// Whether CPUs that are about to run are to wait.
    fn lasts(&self, pause: &Pause) -> bool {
        self.is_to_pause(pause) || pause.held
    }

    /// Saves the machine, which must be paused and stays so, into `files`: when this returns, they are on the disk whole,
    /// and otherwise what was there before still is.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if it is not paused, has a device that cannot be saved, or the files cannot be written.
    pub fn snapshot(
        &self,
        files: &SnapshotFiles,
        kind: SnapshotKind,
    ) -> Result<SnapshotReport, SnapshotError> {
        let _one_at_a_time = self.snapshots.lock();
        let subject = self.subject().ok_or(SnapshotError::NotRunning)?;
        let hold = self.hold(subject.cpus)?;
        let taken = take(&subject, &hold, files, kind);
        match &taken {
            Ok(_) => tracing::info!(state = %files.state.display(), ?kind, "a snapshot is taken"),
            Err(error) => tracing::error!(%error, "a snapshot cannot be taken"),
        }
        taken
    }

    /// Keeps the CPUs, all of which wait, from running on.
    fn hold(&self, cpus: usize) -> Result<Hold<'_>, SnapshotError> {
        let arriving = |pause: &mut Pause| self.is_to_pause(pause) && pause.waiting < cpus;
        let (mut pause, _) = self
            .changed
            .wait_timeout_while(self.lock_pause(), ARRIVAL, arriving)
            .unwrap_or_else(PoisonError::into_inner);
        if !self.is_to_pause(&pause) {
            return Err(SnapshotError::NotPaused);
        }
        if pause.waiting < cpus {
            return Err(SnapshotError::Ended);
        }
        pause.held = true;
        Ok(Hold {
            control: self,
            cpus,
        })
    }

    /// What is saved of the machine that runs; one that was paused before it started may be about to.
    fn subject(&self) -> Option<Arc<Subject>> {
        let to_come = |pause: &mut Pause| self.is_to_pause(pause) && pause.subject.is_none();
        let (pause, _) = self
            .changed
            .wait_timeout_while(self.lock_pause(), ARRIVAL, to_come)
            .unwrap_or_else(PoisonError::into_inner);
        pause.subject.clone()
    }

    /// A CPU begins to wait, whose time-stamp counter shows this.
    pub(crate) fn note_clocks(&self, cpu: u32, counter: u64) {
        let subject = self.lock_pause().subject.clone();
        if let Some(subject) = subject {
            subject.note_clocks(cpu, counter);
        }
    }

    /// Says what is to be saved of a machine that begins to run, or that nothing is any more.
    pub(crate) fn set_subject(&self, subject: Option<Arc<Subject>>) {
        // Dropped, it may end the machine: after the lock.
        let _before = std::mem::replace(&mut self.lock_pause().subject, subject);
        self.changed.notify_all();
    }

    fn is_to_pause(&self, pause: &Pause) -> bool {
        pause.wanted || self.asked_to_pause.load(Ordering::SeqCst)
    }

    /// The devices of a machine that is about to run.
    pub(crate) fn attach_devices(&self, board: &Arc<Board>) {
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(board);
    }

    /// The machine that runs, with its devices.
    pub(crate) fn board(&self) -> Option<Arc<Board>> {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.upgrade()
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
    ///
    /// # Errors
    ///
    /// If the process cannot have one more descriptor.
    pub fn interruption(&self) -> io::Result<OwnedFd> {
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
            let wanted = || {
                let pause = self.asked_to_pause.load(Ordering::SeqCst);
                (self.stop.load(Ordering::SeqCst), pause)
            };
            let seen = wanted();
            kick(&self.kickers.lock().unwrap_or_else(PoisonError::into_inner));
            // What was wanted meanwhile found the lock taken, and relies on this.
            if wanted() == seen {
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

    /// Blocks a CPU's thread while the machine is paused and neither stopped nor `finished`. Meanwhile it does its tasks.
    pub(crate) fn wait_while_paused(
        &self,
        finished: impl Fn() -> bool,
        mut perform: impl FnMut(Task),
    ) {
        if !self.lasts(&self.lock_pause()) {
            return;
        }
        perform(Task::NoteClocks);
        let mut pause = self.lock_pause();
        let mut seen = pause.tasks;
        pause.waiting += 1;
        self.changed.notify_all();
        while self.lasts(&pause) && self.stopped().is_none() && !finished() {
            if let Some(task) = pause.task.filter(|_| pause.tasks != seen) {
                seen = pause.tasks;
                drop(pause);
                perform(task);
                pause = self.lock_pause();
                pause.done += 1;
                self.changed.notify_all();
                continue;
            }
            pause = self
                .changed
                .wait_timeout(pause, PAUSED_POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        pause.waiting -= 1;
        drop(pause);
        self.changed.notify_all();
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
