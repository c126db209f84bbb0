//! The device (§5.2).

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use std::mem::take;

use goldcrest_memory::io::Durability;
use goldcrest_rate_limiter::{Clock, MonotonicClock, RateConfig, RateLimiter};
use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, Ram, VirtioDevice, Waits, Work,
};
use vm_memory::GuestMemoryMmap;

use crate::config::{ConfigSpace, is_writeback, written_writeback};
use crate::serve::{finish, status_of};
use crate::slots::{Reply, Slots};
use crate::spec::{feature, request, status};
use crate::{Backend, BlockConfig, DiskError, Limits};

/// The most operations of a disk that are under way at a time.
const MAX_DEPTH: u32 = 256;
/// When what the host was short of is asked for again.
const RETRY: Duration = Duration::from_millis(1);

/// A virtio block device (§5.2) on a disk.
///
/// Requests are started in the order in which they come by a queue, and answered as they are over, in any order. A
/// request that there is no room for, or that the limit holds back, stays with the driver until there is; so do those
/// behind it. The limit outlives resets of the device, so that a driver gains nothing by them.
pub struct Block<B> {
    pub(crate) backend: B,
    /// The disk that takes its place.
    next: Option<B>,
    /// The driver is to be told of another capacity.
    resized: bool,
    spec: DeviceSpec,
    pub(crate) limits: Limits,
    pub(crate) id: [u8; request::ID_SIZE],
    space: ConfigSpace,
    rate: RateConfig,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) limiter: RateLimiter,
    attached: bool,
    /// The driver is ready, and has agreed to these features.
    active: Option<Features>,
    /// What the driver has set `writeback` to, if it has.
    pub(crate) writeback: Option<bool>,
    pub(crate) durability: Durability,
    pub(crate) slots: Slots,
    /// Over, but not answered: what another queue's reset waited for.
    pub(crate) over: Vec<(Reply, u8)>,
    /// By queue: whether its next request has been put off.
    pub(crate) stalled: Vec<bool>,
    pub(crate) limited: Option<Limited>,
    /// The queue that is looked at first when stalled ones go on, so that none is always the last.
    first: u16,
    /// The host was short of something.
    pub(crate) retry: bool,
}

/// A request that the limit holds back. Other queues wait behind it: their smaller requests would keep it from ever
/// finding a full bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limited {
    pub(crate) queue: u16,
    /// When it may go, by the device's clock.
    pub(crate) at: Duration,
}

impl<B: Backend> Block<B> {
    /// A device after a reset, which goes by the host's monotonic clock.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the configuration is none that a disk can have.
    pub fn new(backend: B, config: &BlockConfig) -> Result<Self, DiskError> {
        config.check()?;
        let limits = BlockConfig::limits(backend.capacity(), backend.read_only());
        let depth = u32::from(config.queue_size) * u32::from(config.queues);
        let depth = depth.min(MAX_DEPTH);
        let rate = config.rate.unwrap_or_default();
        let clock = Box::new(MonotonicClock);
        let mut block = Self {
            spec: config.spec(limits.read_only),
            limits,
            id: config.id_bytes(),
            space: ConfigSpace::new(config, &limits),
            rate,
            limiter: RateLimiter::new(rate, clock.now()),
            clock,
            backend,
            next: None,
            resized: false,
            attached: false,
            active: None,
            writeback: None,
            durability: Durability::WriteThrough,
            slots: Slots::new(depth),
            over: Vec::with_capacity(usize::try_from(depth).unwrap_or(0)),
            stalled: vec![false; config.queues.into()],
            limited: None,
            first: 0,
            retry: false,
        };
        block.set_writeback(None);
        Ok(block)
    }

    /// The same device by another clock, with a full burst: for tests and fuzzers.
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.limiter = RateLimiter::new(self.rate, clock.now());
        self.clock = Box::new(clock);
        self
    }

    /// The disk.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The disk, for its host's side.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Limits what may be moved from now on, with a full burst. What the old limit held back goes by the new one.
    pub fn set_rate(&mut self, rate: RateConfig) {
        self.rate = rate;
        self.limiter = RateLimiter::new(rate, self.clock.now());
        self.limited = None;
    }

    /// Puts another disk in the place of this one: as soon as what is under way on this one is over, and the next time that
    /// events are processed, which the device waits for. The driver is told of its capacity.
    ///
    /// # Errors
    ///
    /// [`DiskError::Access`] if one of them can only be read, and the other be written: the driver has been told which.
    pub fn set_backend(&mut self, backend: B) -> Result<(), DiskError> {
        if backend.read_only() != self.limits.read_only {
            return Err(DiskError::Access {
                read_only: self.limits.read_only,
            });
        }
        self.next = Some(backend);
        if self.active.is_none() {
            self.swap();
        }
        Ok(())
    }

    /// The disk has another capacity now. The driver is told of it, the next time that events are processed.
    pub fn resize(&mut self) {
        self.set_capacity();
        self.resized = self.active.is_some();
    }

    /// Changes disks, with nothing under way.
    fn swap(&mut self) {
        if let Some(next) = self.next.take() {
            self.backend = next;
            self.attached = false;
            self.set_capacity();
            self.resized = self.active.is_some();
        }
    }

    fn set_capacity(&mut self) {
        self.limits = BlockConfig::limits(self.backend.capacity(), self.limits.read_only);
        self.space.set_capacity(&self.limits);
    }

    /// Does what the host wants, if there is anything.
    fn change(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if self.next.is_some() {
            self.finish_all(io)?;
            self.swap();
            self.attach(io.ram().memory());
        }
        if take(&mut self.resized) {
            io.config_changed();
        }
        Ok(())
    }

    /// Makes the disk ready for guest RAM, once, before the driver does: for those who give up afterwards what it
    /// takes, such as the system calls that set io_uring up. `memory` must be what the device's transport has.
    pub fn attach(&mut self, memory: &GuestMemoryMmap) {
        if !self.attached {
            let depth = u32::try_from(self.slots.depth()).unwrap_or(MAX_DEPTH);
            self.backend.attach(memory, depth);
            self.attached = true;
        }
    }

    /// Sets what the driver wrote, and what follows from it.
    pub(crate) fn set_writeback(&mut self, written: Option<bool>) {
        // Before features are agreed on, it is what it will be for a driver that flushes.
        let features = self.active.unwrap_or(Features(feature::FLUSH));
        let writeback = is_writeback(features, written);
        self.writeback = written;
        self.space.set_writeback(writeback);
        self.durability = match writeback {
            true => Durability::WriteBack,
            false => Durability::WriteThrough,
        };
    }

    /// Forgets all requests. What was under way touches no guest RAM after this.
    fn give_up(&mut self) {
        self.backend.reset();
        self.slots.clear();
        self.over.clear();
        self.stalled.fill(false);
        self.limited = None;
        self.retry = false;
    }

    /// A device that cannot go on is not called again: what it has under way must end by itself.
    fn or_give_up(&mut self, result: Result<(), DeviceError>) -> Result<(), DeviceError> {
        if result.is_err() {
            self.give_up();
        }
        result
    }

    fn serve_stalled(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let count = io.queue_count();
        let first = self.limited.map_or(self.first, |limited| limited.queue);
        for index in (first..count).chain(0..first.min(count)) {
            if self.stalled.get(usize::from(index)) == Some(&true) {
                self.serve(index, io)?;
                if self.stalled.get(usize::from(index)) == Some(&true) {
                    // There is no room for the others either; the next is the first to find some.
                    self.first = index.saturating_add(1);
                    break;
                }
            }
        }
        Ok(())
    }

    fn finish_all(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let mut outcome = self.answer_over(io);
        let slots = &mut self.slots;
        let waited = self.backend.wait_all(&mut |token, result| {
            let finished = finish(slots, io, token, &result);
            if outcome.is_ok() {
                outcome = finished;
            }
        });
        waited.map_err(|source| DeviceError::Host {
            what: "finish the requests of a disk",
            source,
        })?;
        outcome
    }

    /// Waits for all that is under way: `index`'s is dropped, the others' is to be answered.
    fn finish_others(&mut self, index: u16) {
        let (slots, over) = (&mut self.slots, &mut self.over);
        let mut keep = |reply: Reply, status| {
            if reply.queue != index {
                over.push((reply, status));
            }
        };
        let waited = self.backend.wait_all(&mut |token, result: io::Result<()>| {
            if let Some(reply) = slots.release(token) {
                keep(reply, status_of(&result));
            }
        });
        if waited.is_err() {
            self.backend.reset();
            slots
                .replies()
                .for_each(|reply| keep(*reply, status::IOERR));
        }
        slots.clear();
    }
}

impl<B: Backend> VirtioDevice for Block<B> {
    fn spec(&self) -> DeviceSpec {
        self.spec.clone()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // What is written before the features are known is judged when they are.
        let allowed = self.active.is_none_or(|f| f.has(feature::CONFIG_WCE));
        if let (true, Some(writeback)) = (allowed, written_writeback(offset, data)) {
            self.set_writeback(Some(writeback));
        }
    }

    fn activate(&mut self, features: Features, ram: Ram<'_>) -> Result<(), ActivateError> {
        self.attach(ram.memory());
        self.active = Some(features);
        let written = self.writeback.filter(|_| features.has(feature::CONFIG_WCE));
        self.set_writeback(written);
        Ok(())
    }

    #[inline]
    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let mut result = self.serve(index, io);
        if result.is_ok() && !self.slots.is_empty() {
            result = self.settle(io);
        }
        self.or_give_up(result)
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let result = self
            .change(io)
            .and_then(|()| self.settle(io))
            .and_then(|()| self.serve_stalled(io))
            .and_then(|()| match self.slots.is_empty() {
                true => Ok(()),
                false => self.settle(io),
            });
        self.or_give_up(result)
    }

    /// A request that moves its bytes on another thread of the host's takes no longer for being long.
    fn batches(&self, _index: u16) -> Option<Work> {
        Some(Work {
            chains: 4,
            bytes: u64::MAX,
        })
    }

    fn waits(&self, waits: &mut Waits) {
        // Always the same while it is in use, so that the descriptor can stay registered.
        let event = self.backend.event_fd();
        if self.active.is_some() {
            waits.readable.extend(event.map(|fd| fd.as_raw_fd()));
        }
        let busy = !self.slots.is_empty();
        let changed = self.next.is_some() || self.resized;
        if changed && self.active.is_some() || !self.over.is_empty() {
            waits.within(Duration::ZERO);
        }
        if self.retry || busy && event.is_none() {
            waits.within(RETRY);
        }
        if let Some(limited) = self.limited {
            waits.within(limited.at.saturating_sub(self.clock.now()));
        } else if !busy && !self.retry && self.stalled.contains(&true) {
            waits.within(Duration::ZERO);
        }
    }

    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let result = self.change(io).and_then(|()| self.finish_all(io));
        self.or_give_up(result)
    }

    fn reset_queue(&mut self, index: u16) {
        if let Some(stalled) = self.stalled.get_mut(usize::from(index)) {
            *stalled = false;
        }
        self.limited = self.limited.filter(|limited| limited.queue != index);
        self.over.retain(|(reply, _)| reply.queue != index);
        let is_its = |reply: &Reply| reply.queue == index;
        if self.slots.replies().all(is_its) {
            self.backend.reset();
            self.slots.clear();
        } else if self.slots.replies().any(is_its) {
            self.finish_others(index);
        }
    }

    fn reset(&mut self) {
        self.give_up();
        self.active = None;
        self.resized = false;
        self.swap();
        self.set_writeback(None);
    }
}
