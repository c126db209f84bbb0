//! The device.

use std::fmt;
use std::time::Duration;

use goldcrest_memory::Contents;
use goldcrest_rate_limiter::{Clock, MonotonicClock};
use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, QueueError, Ram, VirtioDevice,
    Waits, spec::device_id,
};

use crate::config::{interval, offered, pages};
use crate::configuration::Configuration;
use crate::hinting::{Hinting, is_round};
use crate::poll::Poll;
use crate::queues::{self, Role};
use crate::spec::{NUMBER_SIZE, PAGE, cmd_id, feature};
use crate::status::add;
use crate::taker::Taker;
use crate::{BalloonConfig, BalloonError, BalloonHandle, BalloonStatus, Pages, Statistics};

/// A memory balloon.
pub struct Balloon<P, C = MonotonicClock> {
    taker: Taker<P>,
    clock: C,
    handle: Option<BalloonHandle>,
    offered: u64,
    /// What was agreed on, while the driver runs.
    agreed: Option<Features>,
    pub(crate) configuration: Configuration,
    pub(crate) hinting: Hinting,
    /// The driver is to be told that the configuration has changed.
    changed: bool,
    poll: Poll,
    statistics: Statistics,
}

fn misused(queue: u16) -> impl Fn(QueueError) -> DeviceError {
    move |source| DeviceError::Queue { queue, source }
}

impl<P: Pages> Balloon<P> {
    /// A balloon whose pages `backend` takes.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Target`].
    pub fn new(backend: P, config: &BalloonConfig) -> Result<Self, BalloonError> {
        Self::with_clock(backend, config, MonotonicClock)
    }
}

impl<P: Pages, C: Clock> Balloon<P, C> {
    /// As `new`, on another clock.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Target`].
    pub fn with_clock(backend: P, config: &BalloonConfig, clock: C) -> Result<Self, BalloonError> {
        Ok(Self {
            taker: Taker::new(backend),
            clock,
            handle: None,
            offered: offered(config),
            agreed: None,
            configuration: Configuration {
                num_pages: pages(config.target)?,
                ..Configuration::default()
            },
            hinting: Hinting::default(),
            changed: false,
            poll: Poll::new(config.statistics.and_then(interval)),
            statistics: Statistics::default(),
        })
    }

    /// The same, controlled by a handle: what that has asked for takes the place of what was configured.
    #[must_use]
    pub fn with_handle(mut self, handle: &BalloonHandle) -> Self {
        self.handle = Some(handle.clone());
        self.obey();
        self.publish();
        self
    }

    /// The guest is to put so many bytes of its memory into the balloon. It is told the next time that events are
    /// processed, which the device waits for.
    ///
    /// # Errors
    ///
    /// [`BalloonError::Target`].
    pub fn set_target(&mut self, bytes: u64) -> Result<(), BalloonError> {
        self.aim(pages(bytes)?);
        Ok(())
    }

    /// Asks the guest for all of its free pages, if it can be: the next time that events are processed. It has them back
    /// when it has named all.
    pub fn start_hinting(&mut self) {
        if self.has(feature::FREE_PAGE_HINT) {
            self.configuration.cmd_id = self.hinting.begin();
            self.changed = true;
        }
    }

    /// Asks no more for them.
    pub fn stop_hinting(&mut self) {
        if is_round(self.configuration.cmd_id) {
            self.configuration.cmd_id = cmd_id::DONE;
            self.changed = true;
        }
    }

    /// Asks for statistics, the next time that events are processed, or when the driver has a buffer for that.
    pub fn ask_statistics(&mut self) {
        if self.has(feature::STATS_VQ) {
            self.poll.ask();
        }
    }

    /// Asks for statistics so often; with zero, no more but by [`ask_statistics`](Self::ask_statistics).
    pub fn set_statistics_interval(&mut self, wanted: Duration) {
        self.poll.set(interval(wanted), self.clock.now());
    }

    /// What the device is and has done.
    pub fn status(&self) -> BalloonStatus {
        let bytes = |pages| u64::from(pages) * PAGE;
        BalloonStatus {
            running: self.agreed.is_some(),
            target: bytes(self.configuration.num_pages),
            actual: bytes(self.configuration.actual),
            hinting: is_round(self.configuration.cmd_id),
            totals: self.taker.totals,
            statistics: self.statistics,
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.features().has(feature)
    }

    fn features(&self) -> Features {
        self.agreed.unwrap_or_default()
    }

    fn aim(&mut self, num_pages: u32) {
        self.changed |= self.configuration.num_pages != num_pages;
        self.configuration.num_pages = num_pages;
    }

    /// Does what the handle asks for. What needs a driver is asked for when there is one.
    fn obey(&mut self) {
        let Some(handle) = &self.handle else {
            return;
        };
        let wishes = handle.take(self.agreed.is_some());
        if let Some(target) = wishes.target {
            self.aim(target);
        }
        if let Some(wanted) = wishes.interval {
            self.poll.set(interval(wanted), self.clock.now());
        }
        if wishes.statistics {
            self.ask_statistics();
        }
        match wishes.hinting {
            Some(true) => self.start_hinting(),
            Some(false) => self.stop_hinting(),
            None => {}
        }
    }

    fn publish(&self) {
        if let Some(handle) = &self.handle {
            handle.publish(self.status());
        }
    }

    fn tell(&mut self, io: &mut DeviceIo<'_>) {
        if std::mem::take(&mut self.changed) {
            io.config_changed();
        }
    }

    /// §5.5.6: numbers of pages.
    fn inflate(&mut self, number: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let Some(mut queue) = io.queue(number) else {
            return Ok(());
        };
        let (misused, ram) = (misused(number), queue.ram());
        while let Some(mut chain) = queue.pop().map_err(&misused)? {
            let head = chain.head;
            self.taker
                .take_numbers(ram, &mut chain.readable)
                .map_err(&misused)?;
            queue.push(head, 0);
        }
        Ok(())
    }

    /// The pages come back when the guest touches them: which they are, nobody needs to know.
    fn deflate(&mut self, number: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let Some(mut queue) = io.queue(number) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop().map_err(misused(number))? {
            let head = chain.head;
            let numbers = chain.readable.left() / NUMBER_SIZE as u64;
            self.taker.totals.deflate(numbers);
            queue.push(head, 0);
        }
        Ok(())
    }

    /// §5.5.6.7: ranges as buffers to be written to, which are not touched but taken.
    fn report(&mut self, number: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let Some(mut queue) = io.queue(number) else {
            return Ok(());
        };
        let (contents, ram) = (self.contents_of_free_pages(), queue.ram());
        while let Some(chain) = queue.pop().map_err(misused(number))? {
            let head = chain.head;
            let buffers = chain.writable.segments();
            let bytes = self.taker.take_buffers(ram, buffers, contents);
            add(&mut self.taker.totals.reported, bytes);
            queue.push(head, 0);
        }
        Ok(())
    }

    /// What reported pages must contain when the guest has them back (§5.5.6.7.2). Nothing if that cannot be but by
    /// leaving them alone.
    fn contents_of_free_pages(&self) -> Option<Contents> {
        match (self.has(feature::PAGE_POISON), self.configuration.poison) {
            (false, _) => Some(Contents::Unneeded),
            (true, 0) => Some(Contents::Zeros),
            (true, _) => None,
        }
    }

    /// §5.5.6.5: a buffer to be read has a number, buffers to be written to are free pages.
    fn hint(&mut self, number: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let Some(mut queue) = io.queue(number) else {
            return Ok(());
        };
        let (misused, ram) = (misused(number), queue.ram());
        while let Some(mut chain) = queue.pop().map_err(&misused)? {
            let (head, current) = (chain.head, self.configuration.cmd_id);
            if chain.readable.left() >= NUMBER_SIZE as u64 {
                let bytes = chain.readable.read_array().map_err(&misused)?;
                if self.hinting.received(u32::from_le_bytes(bytes), current) {
                    // All that was free is the host's: the driver may have the pages back.
                    self.stop_hinting();
                }
            }
            let buffers = chain.writable.segments();
            if self.hinting.counts(current) {
                let contents = Some(Contents::Unneeded);
                let bytes = self.taker.take_buffers(ram, buffers, contents);
                add(&mut self.taker.totals.hinted, bytes);
            } else {
                add(&mut self.taker.totals.ignored, buffers.len() as u64);
            }
            queue.push(head, 0);
        }
        Ok(())
    }

    /// Reads the statistics in the buffer that the driver has made available, and leaves it there to ask by.
    fn read_statistics(&mut self, number: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.poll.used(false);
        let Some(mut queue) = io.queue(number) else {
            return Ok(());
        };
        let misused = misused(number);
        if let Some(mut chain) = queue.pop().map_err(&misused)? {
            let head = chain.head;
            let (statistics, ignored) = Statistics::read(&mut chain.readable).map_err(&misused)?;
            queue.undo_pop(head);
            self.statistics = statistics;
            add(&mut self.taker.totals.statistics, 1);
            add(&mut self.taker.totals.ignored, ignored);
            self.poll.told(self.clock.now());
        }
        Ok(())
    }

    /// Looks for the first buffer, and gives one back if it is time to, which asks the driver for another one.
    fn ask(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let features = self.features();
        let Some(number) = queues::number(Role::Statistics, features, io) else {
            return Ok(());
        };
        if self.poll.is_unseen() {
            self.read_statistics(number, io)?;
        }
        if self.poll.due_in(self.clock.now()) != Some(Duration::ZERO) {
            return Ok(());
        }
        if let Some(mut queue) = io.queue(number)
            && let Some(chain) = queue.pop().map_err(misused(number))?
        {
            let head = chain.head;
            queue.push(head, 0);
            self.poll.used(true);
        }
        // A driver has no other buffer there, and to see that is to be notified of the next.
        self.read_statistics(number, io)
    }
}

impl<P: Pages, C: Clock> VirtioDevice for Balloon<P, C> {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: device_id::BALLOON,
            features: self.offered,
            queue_sizes: queues::sizes(self.offered),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.configuration.read(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let running = self.agreed.is_some();
        self.configuration.write(offset, data, running);
        self.publish();
    }

    fn activate(&mut self, features: Features, ram: Ram<'_>) -> Result<(), ActivateError> {
        self.agreed = Some(features);
        self.taker.begin(ram);
        if self.has(feature::STATS_VQ) {
            self.poll.begin();
        }
        self.obey();
        self.publish();
        Ok(())
    }

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        match queues::role(index, self.features(), io) {
            Some(Role::Inflate) => self.inflate(index, io)?,
            Some(Role::Deflate) => self.deflate(index, io)?,
            Some(Role::Statistics) => self.read_statistics(index, io)?,
            Some(Role::Hints) => self.hint(index, io)?,
            Some(Role::Reports) => self.report(index, io)?,
            None => {}
        }
        self.tell(io);
        self.publish();
        Ok(())
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.obey();
        self.tell(io);
        self.ask(io)?;
        self.publish();
        Ok(())
    }

    fn waits(&self, waits: &mut Waits) {
        if let Some(handle) = &self.handle {
            waits.readable.push(handle.descriptor());
        }
        if self.changed {
            waits.within(Duration::ZERO);
        }
        if let Some(delay) = self.poll.due_in(self.clock.now()) {
            waits.within(delay);
        }
    }

    /// That the configuration has changed is not saved, so it is told before.
    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.tell(io);
        Ok(())
    }

    /// What the host wants stays; the driver has all of its pages back.
    fn reset(&mut self) {
        self.agreed = None;
        self.configuration = Configuration {
            num_pages: self.configuration.num_pages,
            ..Configuration::default()
        };
        self.hinting.reset();
        self.changed = false;
        self.poll.reset();
        self.taker.totals.deflate(self.taker.totals.held());
        self.publish();
    }
}

impl<P: fmt::Debug, C> fmt::Debug for Balloon<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balloon")
            .field("taker", &self.taker)
            .field("configuration", &self.configuration)
            .finish_non_exhaustive()
    }
}
