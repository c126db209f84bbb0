//! The core of every transport: device status, features, queue set-up, configuration (§2.1 to §2.7, §3.1).

use std::time::Duration;

use goldcrest_memory::Window;
use vm_memory::GuestMemoryMmap;

use crate::device::DeviceIo;
use crate::queue::{Queue, QueueLayout};
use crate::spec::{feature, status};
use crate::{DeviceError, DeviceSpec, Features, Ram, Served, VirtioDevice, Waits, Work};

/// The features that the core offers for every device.
const TRANSPORT_FEATURES: u64 =
    feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC | feature::RING_RESET;
/// The status bits that a driver sets, but for FAILED.
const DRIVER_BITS: u8 =
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

/// What a driver is interrupted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The device has used buffers of this queue.
    Queue(u16),
    /// The configuration has changed, or the device needs a reset.
    Configuration,
}

/// A device with its queues, as far as it is the same for all transports.
///
/// A transport maps its registers to these methods, and what [`take_interrupts`](Self::take_interrupts) gives to
/// interrupts. Whatever the driver does out of turn is ignored and counted.
#[derive(Debug)]
pub struct Core<D> {
    pub(crate) device: D,
    spec: DeviceSpec,
    /// Guest RAM, by its first region.
    memory: Window,
    pub(crate) queues: Vec<Queue>,
    pub(crate) status: u8,
    pub(crate) driver_features: u64,
    pub(crate) generation: u32,
    config_interrupt: bool,
    misuses: u64,
    failures: u64,
    error: Option<DeviceError>,
}

impl<D: VirtioDevice> Core<D> {
    /// The device after a reset, with buffers in `memory`.
    pub fn new(device: D, memory: GuestMemoryMmap) -> Self {
        let mut spec = device.spec();
        spec.features = spec.features & feature::DEVICE_TYPE | TRANSPORT_FEATURES;
        Self {
            queues: spec
                .queue_sizes
                .iter()
                .map(|&size| Queue::new(size))
                .collect(),
            device,
            spec,
            memory: Window::first_region(&memory),
            status: 0,
            driver_features: 0,
            generation: 0,
            config_interrupt: false,
            misuses: 0,
            failures: 0,
            error: None,
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device, for its host's side.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// What the device is, with all features that are offered.
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    /// The device status (§2.1).
    pub fn status(&self) -> u8 {
        self.status
    }

    /// How often the driver did what it must not, since the device was made.
    pub fn misuses(&self) -> u64 {
        self.misuses
    }

    /// How often the device came to need a reset, since it was made.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// What was done in all queues.
    pub fn served(&self) -> Served {
        self.queues.iter().fold(Served::default(), |sum, queue| {
            let Served {
                chains,
                bytes_read,
                bytes_written,
            } = queue.served;
            Served {
                chains: sum.chains.wrapping_add(chains),
                bytes_read: sum.bytes_read.wrapping_add(bytes_read),
                bytes_written: sum.bytes_written.wrapping_add(bytes_written),
            }
        })
    }

    /// Why the device needs a reset, if it does.
    pub fn error(&self) -> Option<&DeviceError> {
        self.error.as_ref()
    }

    /// 32 of the offered features: the lower half by 0, the upper by 1.
    pub fn device_features(&self, half: u32) -> u32 {
        half_of(self.spec.features, half)
    }

    /// 32 of the features that the driver has taken.
    pub fn driver_features(&self, half: u32) -> u32 {
        half_of(self.driver_features, half)
    }

    /// The driver takes features, until it sets FEATURES_OK (§3.1.1).
    pub fn set_driver_features(&mut self, half: u32, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            self.misuse();
            return;
        }
        set_half(&mut self.driver_features, half, value);
    }

    /// The driver writes the device status: it adds bits in their order, or resets by 0 (§2.1.1, §3.1.1).
    pub fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let had = self.status & DRIVER_BITS;
        if had & !value != 0 {
            self.misuse();
            return;
        }
        if value & status::FAILED != 0 {
            self.status |= status::FAILED;
        }
        let steps = [
            (status::ACKNOWLEDGE, 0),
            (status::DRIVER, status::ACKNOWLEDGE),
            (status::FEATURES_OK, status::DRIVER),
            (status::DRIVER_OK, status::FEATURES_OK),
        ];
        for (bit, before) in steps {
            if value & !self.status & bit == 0 {
                continue;
            }
            if self.status & before != before {
                self.misuse();
                return;
            }
            if bit == status::FEATURES_OK && !self.accepts(self.driver_features) {
                // The driver reads back that the bit is not set (§2.2.2).
                self.misuse();
                return;
            }
            self.status |= bit;
            if bit == status::DRIVER_OK {
                self.close_set_up();
                self.activate();
            }
        }
    }

    /// A queue that is not ready when the device begins becomes so after a reset of its own alone.
    fn close_set_up(&mut self) {
        for queue in &mut self.queues {
            queue.stopped = !queue.ready;
        }
    }

    /// Whether a driver may take these features (§2.2.2).
    pub fn accepts(&self, features: u64) -> bool {
        features & !self.spec.features == 0
            && features & feature::VERSION_1 != 0
            && self.device.accepts(Features(features))
    }

    pub(crate) fn has(&self, feature: u64) -> bool {
        Features(self.driver_features).has(feature)
    }

    fn activate(&mut self) {
        if self.status & status::DEVICE_NEEDS_RESET != 0 {
            self.config_interrupt = true;
            return;
        }
        let features = Features(self.driver_features);
        if let Err(error) = self.device.activate(features, Ram::new(&self.memory)) {
            self.fail(DeviceError::Host {
                what: error.what,
                source: error.source,
            });
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(Queue::reset);
        self.status = 0;
        self.driver_features = 0;
        self.config_interrupt = false;
        self.error = None;
    }

    /// The greatest size of a queue, 0 if it does not exist.
    pub fn queue_max_size(&self, index: u16) -> u16 {
        self.queue(index).map_or(0, |queue| queue.max_size)
    }

    /// Whether a queue is in use.
    pub fn queue_ready(&self, index: u16) -> bool {
        self.queue(index).is_some_and(|queue| queue.ready)
    }

    /// A queue that exists.
    pub fn queue(&self, index: u16) -> Option<&Queue> {
        self.queues.get(usize::from(index))
    }

    /// What the driver has set of a queue.
    pub fn queue_layout(&self, index: u16) -> QueueLayout {
        self.queue(index).map(|q| q.layout).unwrap_or_default()
    }

    /// The driver sets something of a queue: possible between FEATURES_OK and the queue's being ready, and not in a
    /// running device unless the queue has been reset (§4.2.2.2, §2.6.1).
    pub fn set_queue_layout(&mut self, index: u16, set: impl FnOnce(&mut QueueLayout)) {
        if self.may_set_up(index)
            && let Some(queue) = self.queues.get_mut(usize::from(index))
        {
            set(&mut queue.layout);
        } else {
            self.misuse();
        }
    }

    fn may_set_up(&self, index: u16) -> bool {
        let agreed = self.status & status::FEATURES_OK != 0;
        agreed && self.queue(index).is_some_and(|q| !q.ready && !q.stopped)
    }

    /// The driver puts a queue to use, or takes it out of use.
    pub fn set_queue_ready(&mut self, index: u16, ready: bool) {
        if !ready {
            self.stop_queue(index);
            return;
        }
        let (event_idx, indirect) = (
            self.has(feature::EVENT_IDX),
            self.has(feature::INDIRECT_DESC),
        );
        let possible = self.may_set_up(index);
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if possible => {
                let started = queue.start(Ram::new(&self.memory), event_idx, indirect);
                if let Err(source) = started {
                    self.fail(DeviceError::Queue {
                        queue: index,
                        source,
                    });
                }
            }
            _ => self.misuse(),
        }
    }

    fn stop_queue(&mut self, index: u16) {
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if queue.ready => {
                if self.status & status::DRIVER_OK != 0 {
                    self.device.reset_queue(index);
                    queue.stopped = true;
                }
                queue.stop();
            }
            Some(_) => {}
            None => self.misuse(),
        }
    }

    /// The driver resets a queue, which it may then set up anew (§2.6.1); needs `VIRTIO_F_RING_RESET`.
    pub fn reset_queue(&mut self, index: u16) {
        let allowed = self.has(feature::RING_RESET) && self.status & status::DRIVER_OK != 0;
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if allowed => {
                if queue.ready {
                    self.device.reset_queue(index);
                }
                queue.reset();
            }
            _ => self.misuse(),
        }
    }

    /// The driver has added buffers to a queue.
    #[inline]
    pub fn notify_queue(&mut self, index: u16) {
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if queue.ready && is_live(self.status) => queue.begin_turn(),
            _ => {
                self.misuse();
                return;
            }
        }
        self.call(|device, io| device.process_queue(index, io));
    }

    /// The driver has added buffers to a queue, which are looked for by the next
    /// [`process_events`](Self::process_events): until then, the driver has no reason to notify again (§2.7.10). False if
    /// the queue is not in use.
    pub fn defer_queue(&mut self, index: u16) -> bool {
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if queue.ready && is_live(self.status) => {
                queue.backlog = true;
                true
            }
            _ => false,
        }
    }

    /// What the device took from a queue when it was served last.
    pub fn last_batch(&self, index: u16) -> Work {
        self.queue(index).map(Queue::taken).unwrap_or_default()
    }

    /// Something that the device waits for may have happened.
    pub fn process_events(&mut self) {
        if !is_live(self.status) {
            return;
        }
        for index in 0..self.spec.queue_sizes.len() {
            let Some(queue) = self.queues.get_mut(index) else {
                break;
            };
            // It may have failed in the queue before.
            if !is_live(self.status) {
                break;
            }
            let backlog = queue.backlog;
            queue.begin_turn();
            if let (true, Ok(index)) = (backlog && queue.ready, u16::try_from(index)) {
                self.call(|device, io| device.process_queue(index, io));
            }
        }
        if is_live(self.status) {
            self.call(|device, io| device.process_events(io));
        }
    }

    /// Has the device finish what it has begun, before its state is saved: also when the driver has given up since, as
    /// the host may still be moving bytes.
    pub fn quiesce(&mut self) {
        if self.status & status::DRIVER_OK != 0 {
            self.call(|device, io| device.quiesce(io));
        }
    }

    /// What the device waits for now.
    pub fn waits(&self, waits: &mut Waits) {
        if is_live(self.status) {
            self.device.waits(waits);
            if self.queues.iter().any(|queue| queue.backlog) {
                waits.within(Duration::ZERO);
            }
        }
    }

    #[inline]
    fn call(&mut self, work: impl FnOnce(&mut D, &mut DeviceIo<'_>) -> Result<(), DeviceError>) {
        let mut io = DeviceIo {
            ram: Ram::new(&self.memory),
            queues: &mut self.queues,
            config_changed: false,
        };
        let result = work(&mut self.device, &mut io);
        if io.config_changed {
            self.generation = self.generation.wrapping_add(1);
            self.config_interrupt = true;
        }
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Calls `interrupt` with each cause that the driver wants to be interrupted for (§2.1.2, §2.7.7, §2.3).
    #[inline]
    pub fn take_interrupts(&mut self, mut interrupt: impl FnMut(Cause)) {
        if self.status & status::DRIVER_OK == 0 {
            return;
        }
        for (index, queue) in (0..).zip(&mut self.queues) {
            if queue.take_signal() {
                interrupt(Cause::Queue(index));
            }
        }
        if std::mem::take(&mut self.config_interrupt) {
            interrupt(Cause::Configuration);
        }
    }

    /// Reads the configuration; `data` comes as zeros.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    /// The driver writes to the configuration. What may be written when is for the device to say: a console takes
    /// characters from a driver that has not begun (§5.3.4).
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    /// A number that changes with the configuration (§2.5).
    pub fn config_generation(&self) -> u32 {
        self.generation
    }

    /// The device gives up until it is reset (§2.1.2).
    #[cold]
    fn fail(&mut self, error: DeviceError) {
        self.misuse();
        self.failures = self.failures.saturating_add(1);
        self.status |= status::DEVICE_NEEDS_RESET;
        self.config_interrupt = true;
        self.error = Some(error);
    }

    pub(crate) fn misuse(&mut self) {
        self.misuses = self.misuses.saturating_add(1);
    }

    pub(crate) fn restart_queue(&mut self, index: usize) -> Result<(), crate::QueueError> {
        let (event_idx, indirect) = (
            self.has(feature::EVENT_IDX),
            self.has(feature::INDIRECT_DESC),
        );
        match self.queues.get_mut(index) {
            Some(queue) => queue.start(Ram::new(&self.memory), event_idx, indirect),
            None => Ok(()),
        }
    }

    /// A device that was running goes on.
    pub(crate) fn reactivate(&mut self) {
        if is_live(self.status) {
            self.activate();
        }
    }
}

/// Whether the device may work: the driver is ready, and neither has given up.
const fn is_live(status: u8) -> bool {
    status & (status::DRIVER_OK | status::DEVICE_NEEDS_RESET | status::FAILED) == status::DRIVER_OK
}

#[allow(clippy::cast_possible_truncation, reason = "halves are meant")]
const fn half_of(value: u64, half: u32) -> u32 {
    match half {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Sets a half of a number; a third half does not exist.
pub(crate) fn set_half(number: &mut u64, half: u32, value: u32) {
    match half {
        0 => *number = *number & !0xffff_ffff | u64::from(value),
        1 => *number = *number & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}
