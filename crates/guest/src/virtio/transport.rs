//! From a device that was found to one that works, and back (virtio 1.3 §3.1 and §4.2.3).

use super::queue::{Queue, Used};
use super::registers::Registers;
use super::spec::{feature, register, status};
use super::{Error, Mmio};

/// How often the status is read before a device that is to be reset is given up.
const PATIENCE: u32 = 1_000_000;

/// A device in the hands of its driver. It is reset when this is dropped.
#[derive(Debug)]
pub(super) struct Transport<R: Registers = Mmio> {
    registers: R,
    /// Those that both sides know.
    features: u64,
    /// The device was shut down.
    broken: bool,
}

impl<R: Registers> Transport<R> {
    /// Resets a device of kind `id` and agrees on features: those of `wanted` that it offers. Queues come next, then
    /// [`run`](Self::run).
    pub(super) fn start(registers: R, id: u32, wanted: u64) -> Result<Self, Error> {
        let found = registers.read(register::DEVICE_ID);
        if found != id {
            return Err(Error::Kind {
                found,
                expected: id,
            });
        }
        let mut transport = Self {
            registers,
            features: 0,
            broken: false,
        };
        transport.reset();
        transport.set_status(status::ACKNOWLEDGE);
        transport.set_status(status::DRIVER);
        let offered = transport.offered();
        let wanted = wanted | feature::VERSION_1 | feature::EVENT_IDX;
        transport.features = offered & wanted;
        transport.accept(transport.features);
        transport.set_status(status::FEATURES_OK);
        let accepted = transport.status() & status::FEATURES_OK != 0;
        if transport.features & feature::VERSION_1 == 0 || !accepted {
            let wanted = transport.features | feature::VERSION_1;
            return Err(Error::Features { offered, wanted });
        }
        Ok(transport)
    }

    /// Whether both sides know this feature.
    pub(super) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Sets a queue up, of at most `size` descriptors, a power of two (§4.2.3.2).
    pub(super) fn queue(&mut self, index: u16, size: u16) -> Result<Queue, Error> {
        let registers = &mut self.registers;
        registers.write(register::QUEUE_SEL, index.into());
        let most = registers.read(register::QUEUE_NUM_MAX);
        if most == 0 || registers.read(register::QUEUE_READY) != 0 {
            return Err(Error::Queue { index });
        }
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        let size = match most.checked_ilog2() {
            Some(bits) => size.min(1 << bits),
            None => size,
        };
        let queue = Queue::new(index, size, self.features & feature::EVENT_IDX != 0)?;
        let registers = &mut self.registers;
        registers.write(register::QUEUE_NUM, size.into());
        for (register, address) in [
            (register::QUEUE_DESC, queue.descriptors()),
            (register::QUEUE_DRIVER, queue.available_ring()),
            (register::QUEUE_DEVICE, queue.used_ring()),
        ] {
            let [low, high] = halves(address);
            registers.write(register, low);
            registers.write(register + 4, high);
        }
        registers.write(register::QUEUE_READY, 1);
        Ok(queue)
    }

    /// Lets the device work.
    pub(super) fn run(&mut self) {
        self.set_status(status::DRIVER_OK);
    }

    /// Offers the device what was added to the queue.
    pub(super) fn publish(&mut self, queue: &mut Queue) {
        if queue.publish() {
            self.registers
                .write(register::QUEUE_NOTIFY, queue.index().into());
        }
    }

    /// [`Error::Broken`] if the device was shut down.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Broken);
        }
        Ok(())
    }

    /// What the device has completed of the queue; nothing if that is nothing new. The device is shut down on an error.
    pub(super) fn poll(&mut self, queue: &mut Queue) -> Result<Option<Used>, Error> {
        self.check()?;
        queue.pop().inspect_err(|_| self.shut_down())
    }

    /// Waits until the device has completed something of the queue. Hosts often do while they are notified, so that
    /// there is nothing to wait for. The device is shut down on an error.
    pub(super) fn wait(&mut self, queue: &mut Queue) -> Result<Used, Error> {
        if let Some(used) = self.poll(queue)? {
            return Ok(used);
        }
        let used = self.registers.wait(None, |registers| {
            queue.set_interrupts(true);
            let completed = queue.pop().transpose();
            completed.or_else(|| is_stuck(registers).then_some(Err(Error::NeedsReset)))
        });
        queue.set_interrupts(false);
        used.and_then(|used| used.unwrap_or(Err(Error::Nothing)))
            .inspect_err(|_| self.shut_down())
    }

    /// Waits until there is something to take of one of the queues, or the time of [`now_ns`](crate::time::now_ns)
    /// reaches `deadline`; says which. The device is shut down on an error.
    ///
    /// Unlike [`wait`](Self::wait) this expects to wait: a look at the status costs an exit to the host and is taken
    /// only after an interrupt that came for nothing, as that of a device does which asks to be reset (§2.1.2).
    pub(super) fn wait_for<const N: usize>(
        &mut self,
        mut queues: [&mut Queue; N],
        deadline: Option<u64>,
    ) -> Result<bool, Error> {
        self.check()?;
        if queues.iter().any(|queue| queue.has_used()) {
            return Ok(true);
        }
        let mut interrupted = false;
        let result = self.registers.wait(deadline, |registers| {
            for queue in &mut queues {
                queue.set_interrupts(true);
            }
            if queues.iter().any(|queue| queue.has_used()) {
                return Some(Ok(true));
            }
            let stuck = interrupted && is_stuck(registers);
            interrupted = true;
            stuck.then_some(Err(Error::NeedsReset))
        });
        for queue in &mut queues {
            queue.set_interrupts(false);
        }
        result
            .and_then(|result| result.unwrap_or(Ok(false)))
            .inspect_err(|_| self.shut_down())
    }

    /// An 8-bit field of the configuration.
    pub(super) fn config_u8(&self, offset: u32) -> u8 {
        self.registers.read_u8(register::CONFIG + offset)
    }

    /// A 16-bit field of the configuration.
    pub(super) fn config_u16(&self, offset: u32) -> u16 {
        self.registers.read_u16(register::CONFIG + offset)
    }

    /// A 32-bit field of the configuration.
    pub(super) fn config(&self, offset: u32) -> u32 {
        self.registers.read(register::CONFIG + offset)
    }

    /// A 64-bit field of the configuration, read until it did not change meanwhile (§2.5.4 and §4.2.2.2).
    pub(super) fn config_u64(&self, offset: u32) -> u64 {
        let generation = || self.registers.read(register::CONFIG_GENERATION);
        let mut value = 0;
        for _ in 0..16 {
            let before = generation();
            let (low, high) = (self.config(offset), self.config(offset + 4));
            value = u64::from(high) << 32 | u64::from(low);
            if generation() == before {
                break;
            }
        }
        value
    }

    fn offered(&mut self) -> u64 {
        let mut half = |which| {
            self.registers.write(register::DEVICE_FEATURES_SEL, which);
            u64::from(self.registers.read(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn accept(&mut self, features: u64) {
        for (which, half) in (0..).zip(halves(features)) {
            self.registers.write(register::DRIVER_FEATURES_SEL, which);
            self.registers.write(register::DRIVER_FEATURES, half);
        }
    }

    fn status(&self) -> u32 {
        self.registers.read(register::STATUS)
    }

    fn set_status(&mut self, bit: u32) {
        let status = self.status() | bit;
        self.registers.write(register::STATUS, status);
    }

    /// Takes all memory back that was lent to the device: it is not used any more.
    pub(super) fn shut_down(&mut self) {
        self.broken = true;
        self.reset();
    }

    /// # Panics
    ///
    /// If the device does not let itself be reset: it may then write to memory at any time, which nothing would be safe
    /// from.
    fn reset(&mut self) {
        self.registers.write(register::STATUS, 0);
        let done = (0..PATIENCE).any(|_| self.status() == 0);
        assert!(done, "a virtio device does not let itself be reset");
    }
}

impl<R: Registers> Drop for Transport<R> {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
impl<R: Registers> Transport<R> {
    pub(super) fn registers(&mut self) -> &mut R {
        &mut self.registers
    }
}

/// The device asks for a reset, or was reset behind the driver's back.
fn is_stuck(registers: &impl Registers) -> bool {
    let found = registers.read(register::STATUS);
    found & status::NEEDS_RESET != 0 || found & status::DRIVER_OK == 0
}

/// The lower and the upper half.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}
