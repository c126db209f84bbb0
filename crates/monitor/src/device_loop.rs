//! The loop of the devices that wait for the host: one thread for all of them, started when the first one waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use goldcrest_virtio::Waits;
use nix::errno::Errno;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::cpu::Board;
use crate::events::{EventThreads, Stop};
use crate::virtio::Slot;

type Member = Weak<Slot>;

/// The devices, and how they reach the loop.
#[derive(Default)]
pub(crate) struct DeviceLoop {
    members: Mutex<Vec<Member>>,
    /// What is needed to start the loop.
    starter: OnceLock<(Weak<Board>, Weak<EventThreads>)>,
    /// Wakes it once it is started.
    wake: OnceLock<EventFd>,
    started: AtomicBool,
}

/// Events taken at a time.
const BATCH: usize = 16;
/// The event that is not a device's.
const WAKE: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// When a descriptor is tried again that the host has no room to watch.
const REST: Duration = Duration::from_millis(20);
/// The longest that a device waits.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a device waits for: its descriptors, and when it is to be called in any case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    readable: Vec<RawFd>,
    writable: Vec<RawFd>,
    edges: Vec<RawFd>,
    /// Changes whenever the descriptors do: with the same numbers as before, they may be others by now.
    generation: u64,
    deadline: Option<Instant>,
}

impl Wanted {
    /// Takes over what a device says now.
    pub(crate) fn set(&mut self, waits: &Waits) {
        if !self.has_descriptors_of(waits) {
            self.readable.clone_from(&waits.readable);
            self.writable.clone_from(&waits.writable);
            self.edges.clone_from(&waits.edges);
            self.generation += 1;
        }
        self.deadline = waits.delay.map(in_time);
    }

    /// Whether `waits` is satisfied by somebody who knows of this. To be called too early does no harm, and a delay
    /// that is said again is not a new one.
    pub(crate) fn covers(&self, waits: &Waits) -> bool {
        self.has_descriptors_of(waits)
            && waits.delay.is_none_or(|delay| {
                let slack = Duration::from_millis(1);
                self.deadline.is_some_and(|at| at <= in_time(delay) + slack)
            })
    }

    /// Whether it is time to call the device in any case.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }

    fn has_descriptors_of(&self, waits: &Waits) -> bool {
        self.readable == waits.readable
            && self.writable == waits.writable
            && self.edges == waits.edges
    }

    fn levels(&self, fd: RawFd) -> EventSet {
        let mut events = EventSet::empty();
        events.set(EventSet::IN, self.readable.contains(&fd));
        events.set(EventSet::OUT, self.writable.contains(&fd));
        events
    }

    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let levels = self.readable.iter().chain(&self.writable);
        levels.chain(&self.edges).copied()
    }
}

fn in_time(delay: Duration) -> Instant {
    Instant::now() + delay.min(LONGEST)
}

impl DeviceLoop {
    /// A device joins.
    pub(crate) fn add(&self, member: Member) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.push(member);
    }

    /// The device that joined as the `index`th.
    fn device(&self, index: usize) -> Option<Arc<Slot>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.get(index)?.upgrade()
    }

    /// Says where the loop's thread belongs.
    pub(crate) fn connect(&self, board: &Arc<Board>, events: &Arc<EventThreads>) {
        let _ = self
            .starter
            .set((Arc::downgrade(board), Arc::downgrade(events)));
    }

    /// A device waits for something else than before. Called with the device locked.
    pub(crate) fn changed(self: &Arc<Self>) {
        if !self.started.swap(true, Ordering::SeqCst) {
            self.start();
        } else if let Some(wake) = self.wake.get() {
            let _ = wake.write(1);
        }
    }

    fn start(self: &Arc<Self>) {
        let Some((board, events)) = self.starter.get() else {
            return;
        };
        let (Some(board), Some(events)) = (board.upgrade(), events.upgrade()) else {
            return;
        };
        let this = Arc::downgrade(self);
        let started = EventFd::new(EFD_NONBLOCK).and_then(|wake| {
            let wake_too = wake.try_clone()?;
            let _ = self.wake.set(wake);
            events.start_loop(board.clone(), move |stop| {
                Loop::new(this, wake_too, &stop)?.run(&stop)
            })
        });
        if let Err(source) = started {
            board.events_failed("start the devices' event loop", source);
        }
    }
}

/// The loop, on its thread.
struct Loop {
    devices: Weak<DeviceLoop>,
    wake: EventFd,
    epoll: Epoll,
    /// What each device waits for.
    waits: Vec<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wanted: Wanted,
    /// Some of what it waits for is always ready: a regular file.
    ready: bool,
    /// Some of it the host had no room to watch.
    unwatched: bool,
}

impl Loop {
    fn new(devices: Weak<DeviceLoop>, wake: EventFd, stop: &Stop) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (fd, data) in [(wake.as_raw_fd(), WAKE), (stop.fd(), STOP)] {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(EventSet::IN, data),
            )?;
        }
        Ok(Self {
            devices,
            wake,
            epoll,
            waits: Vec::new(),
        })
    }

    fn run(mut self, stop: &Stop) -> io::Result<()> {
        let mut events = [EpollEvent::default(); BATCH];
        self.look_at_all();
        while !stop.is_stopped() {
            let count = match self.epoll.wait(self.timeout(), &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            let mut woken = false;
            let now = Instant::now();
            let fired = events.get(..count).unwrap_or_default();
            for index in 0..self.waits.len() {
                if self.is_due(index, fired, now) {
                    self.process(index);
                }
            }
            for event in fired {
                woken |= event.data() == WAKE;
            }
            if woken {
                let _ = self.wake.read();
                self.look_at_all();
            }
        }
        Ok(())
    }

    /// Milliseconds until the first device is to be called in any case; -1 for ever.
    fn timeout(&self) -> i32 {
        if self.waits.iter().any(|waiting| waiting.ready) {
            return 0;
        }
        let Some(first) = self.waits.iter().filter_map(|w| w.wanted.deadline).min() else {
            return -1;
        };
        let left = first.saturating_duration_since(Instant::now());
        // Rounded up: called too early, a device would only wait again.
        let millis = left.as_micros().div_ceil(1000);
        i32::try_from(millis).unwrap_or(i32::MAX)
    }

    fn is_due(&self, index: usize, fired: &[EpollEvent], now: Instant) -> bool {
        let Some(waiting) = self.waits.get(index) else {
            return false;
        };
        waiting.ready
            || waiting.wanted.is_due(now)
            || fired.iter().any(|event| event.data() == index as u64)
    }

    fn process(&mut self, index: usize) {
        if let Some(device) = self.device(index) {
            device.process_events(|wanted| self.watch(index, wanted));
        }
    }

    fn device(&self, index: usize) -> Option<Arc<Slot>> {
        self.devices.upgrade()?.device(index)
    }

    fn look_at_all(&mut self) {
        let mut index = 0;
        while let Some(device) = self.device(index) {
            if self.waits.len() <= index {
                self.waits.resize_with(index + 1, Waiting::default);
            }
            device.look(|wanted| self.watch(index, wanted));
            // Most wake the loop to have it serve a queue.
            let now = Instant::now();
            if self.is_due(index, &[], now) {
                self.process(index);
            }
            index += 1;
        }
    }

    /// Watches what the device waits for, and no longer what it does not.
    fn watch(&mut self, index: usize, wanted: &Wanted) {
        let Some(waiting) = self.waits.get_mut(index) else {
            return;
        };
        waiting.wanted.deadline = wanted.deadline;
        if waiting.wanted.generation == wanted.generation && !waiting.unwatched {
            return;
        }
        let before = std::mem::replace(&mut waiting.wanted, wanted.clone());
        for fd in before.descriptors() {
            // A device that has closed it may have left the number to another one.
            let is_wanted =
                |waiting: &Waiting| waiting.wanted.descriptors().any(|other| other == fd);
            if !self.waits.iter().any(is_wanted) {
                // One that was closed is not there any more.
                let _ = self
                    .epoll
                    .ctl(ControlOperation::Delete, fd, EpollEvent::default());
            }
        }
        let Some(Waiting {
            wanted,
            ready,
            unwatched,
        }) = self.waits.get_mut(index)
        else {
            return;
        };
        (*ready, *unwatched) = (false, false);
        for fd in wanted.descriptors() {
            let events = match wanted.edges.contains(&fd) {
                true => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
                false => wanted.levels(fd),
            };
            match arm(&self.epoll, fd, EpollEvent::new(events, index as u64)) {
                Ok(()) => {}
                Err(Errno::EPERM) => *ready = true,
                Err(_) => *unwatched = true,
            }
        }
        if *unwatched {
            let again = in_time(REST);
            wanted.deadline = Some(wanted.deadline.map_or(again, |at| at.min(again)));
        }
    }
}

/// A descriptor of this number may have been closed and another opened since it was last armed.
fn arm(epoll: &Epoll, fd: RawFd, event: EpollEvent) -> Result<(), Errno> {
    epoll
        .ctl(ControlOperation::Modify, fd, event)
        .or_else(|_| epoll.ctl(ControlOperation::Add, fd, event))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}
