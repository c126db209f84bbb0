//! The event loop: one thread for everything that waits on the host, started when something first does.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::cpu::Board;
use crate::{Control, StopReason};

/// What takes part in the loop.
pub(crate) type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// Threads that run an event loop, ended and joined when dropped.
#[derive(Default)]
pub(crate) struct EventThreads {
    threads: Mutex<Vec<(Stop, JoinHandle<()>)>>,
}

impl EventThreads {
    /// Starts a loop with the subscriber that `make` gives, called on its thread; `board` is told if it fails.
    pub(crate) fn start(
        &self,
        board: Arc<Board>,
        make: impl FnOnce() -> io::Result<Subscriber> + Send + 'static,
    ) -> io::Result<()> {
        self.start_loop(board, |stop| run(stop, make()?))
    }

    /// Starts a thread that does `work` until it is stopped; `board` is told if it fails.
    pub(crate) fn start_loop(
        &self,
        board: Arc<Board>,
        work: impl FnOnce(Stop) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let stop = Stop::new()?;
        let stop_too = stop.try_clone()?;
        let thread = thread::Builder::new()
            .name("events".into())
            .spawn(move || {
                if let Err(source) = work(stop_too) {
                    board.events_failed("run the event loop", source);
                }
            })?;
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((stop, thread));
        Ok(())
    }
}

impl Drop for EventThreads {
    fn drop(&mut self) {
        self.end();
    }
}

impl EventThreads {
    /// Ends and joins the threads that there are.
    pub(crate) fn end(&self) {
        // Not while they are locked: a thread that is ended may be about to start another.
        loop {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((stop, thread)) = threads.pop() else {
                return;
            };
            drop(threads);
            if stop.stop().is_ok() {
                let _ = thread.join();
            }
        }
    }
}

fn run(stop: Stop, subscriber: Subscriber) -> io::Result<()> {
    let stopped = stop.flag.clone();
    let mut manager =
        EventManager::<Subscriber>::new_with_capacity(16).map_err(io::Error::other)?;
    manager.add_subscriber(Box::new(stop));
    manager.add_subscriber(subscriber);
    while !stopped.load(Ordering::SeqCst) {
        manager.run().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Ends a loop.
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    event: EventFd,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            flag: Arc::default(),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            flag: self.flag.clone(),
            event: self.event.try_clone()?,
        })
    }

    /// Readable when the loop is to end.
    pub(crate) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    fn stop(&self) -> io::Result<()> {
        self.flag.store(true, Ordering::SeqCst);
        self.event.write(1)
    }
}

impl MutEventSubscriber for Stop {
    fn init(&mut self, ops: &mut EventOps) {
        // Fails only for a descriptor that is registered already.
        let _ = ops.add(Events::new(&self.event, EventSet::IN));
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {}
}

/// Ends the machine when its time is up.
pub(crate) struct Deadline {
    timer: TimerFd,
    control: Arc<Control>,
}

impl Deadline {
    pub(crate) fn new(after: Duration, control: Arc<Control>) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        // A time of 0 would disarm the timer.
        timer.reset(after.max(Duration::from_nanos(1)), None)?;
        Ok(Self { timer, control })
    }
}

impl MutEventSubscriber for Deadline {
    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(&self.timer, EventSet::IN));
    }

    fn process(&mut self, _: Events, ops: &mut EventOps) {
        let _ = ops.remove(Events::empty(&self.timer));
        self.control.stop(StopReason::Timeout);
    }
}
