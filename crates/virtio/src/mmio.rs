//! The MMIO transport (§4.2), version 2: registers in a page of their own.

use goldcrest_bus::{Device, Effect};
use goldcrest_irq::IrqLine;
use vm_memory::GuestMemoryMmap;

use crate::spec::mmio as reg;
use crate::transport::{Cause, Core, set_half};
use crate::{Interrupt, VirtioDevice, Waits};

/// A device behind registers in memory.
///
/// Registers are 32 bits wide and are accessed so; any other access reads all ones and writes nothing (§4.2.2.2). The
/// configuration may be accessed by any width.
///
/// The interrupt suits edge-triggered and level-triggered inputs: it is up while `InterruptStatus` has a bit, and
/// rises anew when one is left after an acknowledgement.
pub struct Mmio<D> {
    pub(crate) core: Core<D>,
    pub(crate) interrupt: Interrupt,
    pub(crate) selects: Selects,
}

/// What the `…Sel` registers hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selects {
    pub(crate) device_features: u32,
    pub(crate) driver_features: u32,
    pub(crate) queue: u32,
}

/// The queue that a write to a device's registers notifies of (§4.2.2), if that is what it does.
pub fn notified_queue(offset: u64, data: &[u8]) -> Option<u16> {
    match *data {
        [low, high, 0, 0] if offset == reg::QUEUE_NOTIFY => Some(u16::from_le_bytes([low, high])),
        _ => None,
    }
}

impl<D: VirtioDevice> Mmio<D> {
    /// The device after a reset, with buffers in `memory` and interrupts on `line`.
    pub fn new(device: D, memory: GuestMemoryMmap, line: IrqLine) -> Self {
        Self {
            core: Core::new(device, memory),
            interrupt: Interrupt::new(line),
            selects: Selects::default(),
        }
    }

    /// What is the same for all transports.
    pub fn core(&self) -> &Core<D> {
        &self.core
    }

    /// The registers about interrupts, for those who take accesses to them elsewhere.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The device, for its host's side.
    pub fn device_mut(&mut self) -> &mut D {
        self.core.device_mut()
    }

    /// The driver has added buffers to a queue: what a write to `QueueNotify` does, for those who take it elsewhere.
    #[inline]
    pub fn notify_queue(&mut self, index: u16) {
        self.core.notify_queue(index);
        self.signal();
    }

    /// Something that the device [waits](Self::waits) for may have happened.
    pub fn process_events(&mut self) {
        self.core.process_events();
        self.signal();
    }

    /// As [`Core::defer_queue`].
    pub fn defer_queue(&mut self, index: u16) -> bool {
        self.core.defer_queue(index)
    }

    /// What the device waits for now, added to `waits`.
    pub fn waits(&self, waits: &mut Waits) {
        self.core.waits(waits);
    }

    /// Has the device finish what it has begun, before its state is saved.
    pub fn quiesce(&mut self) {
        self.core.quiesce();
        self.signal();
    }

    #[inline]
    pub(crate) fn signal(&mut self) {
        let mut bits = 0;
        self.core.take_interrupts(|cause| {
            bits |= match cause {
                Cause::Queue(_) => reg::INT_USED_BUFFER,
                Cause::Configuration => reg::INT_CONFIG_CHANGE,
            };
        });
        if bits != 0 {
            self.interrupt.raise(bits);
        }
    }

    /// The queue that is selected; a number that no queue has if it is too large to be one.
    fn queue(&self) -> u16 {
        u16::try_from(self.selects.queue).unwrap_or(u16::MAX)
    }

    fn read_register(&self, offset: u64) -> u32 {
        let (core, queue) = (&self.core, self.queue());
        match offset {
            reg::MAGIC => reg::MAGIC_VALUE,
            reg::VERSION => reg::VERSION_VALUE,
            reg::DEVICE_ID => core.spec().id,
            reg::VENDOR_ID => reg::VENDOR,
            reg::DEVICE_FEATURES => core.device_features(self.selects.device_features),
            reg::QUEUE_SIZE_MAX => core.queue_max_size(queue).into(),
            reg::QUEUE_READY => core.queue_ready(queue).into(),
            reg::INTERRUPT_STATUS => self.interrupt.status(),
            reg::STATUS => core.status().into(),
            // There are no regions of shared memory: length and address are -1 (§4.2.2).
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            reg::CONFIG_GENERATION => core.config_generation(),
            // A reset is over when the write that asks for it is. What can only be written reads as zero.
            _ => 0,
        }
    }

    #[inline]
    fn notify(&mut self, value: u32) {
        match u16::try_from(value) {
            Ok(index) => self.notify_queue(index),
            Err(_) => self.core.misuse(),
        }
    }

    /// All but `QueueNotify`.
    #[inline(never)]
    fn write_register(&mut self, offset: u64, value: u32) {
        let queue = self.queue();
        match offset {
            reg::DEVICE_FEATURES_SEL => self.selects.device_features = value,
            reg::DRIVER_FEATURES_SEL => self.selects.driver_features = value,
            reg::DRIVER_FEATURES => {
                let half = self.selects.driver_features;
                self.core.set_driver_features(half, value);
            }
            reg::QUEUE_SEL => self.selects.queue = value,
            reg::QUEUE_SIZE => self.core.set_queue_layout(queue, |q| q.size = value),
            reg::QUEUE_READY => self.core.set_queue_ready(queue, value & 1 != 0),
            reg::INTERRUPT_ACK => self.interrupt.acknowledge(value),
            reg::STATUS => self.set_status(value),
            reg::QUEUE_RESET if value & 1 != 0 => self.core.reset_queue(queue),
            reg::SHM_SEL | reg::QUEUE_RESET => {}
            _ => self.write_address(queue, offset, value),
        }
        self.signal();
    }

    fn write_address(&mut self, queue: u16, offset: u64, value: u32) {
        let half = u32::from(offset & 4 != 0);
        match offset {
            reg::QUEUE_DESC_LOW | reg::QUEUE_DESC_HIGH => self
                .core
                .set_queue_layout(queue, |q| set_half(&mut q.descriptors, half, value)),
            reg::QUEUE_DRIVER_LOW | reg::QUEUE_DRIVER_HIGH => self
                .core
                .set_queue_layout(queue, |q| set_half(&mut q.available, half, value)),
            reg::QUEUE_DEVICE_LOW | reg::QUEUE_DEVICE_HIGH => self
                .core
                .set_queue_layout(queue, |q| set_half(&mut q.used, half, value)),
            _ => self.core.misuse(),
        }
    }

    fn set_status(&mut self, value: u32) {
        // The status has eight bits.
        let [value, ..] = value.to_le_bytes();
        self.core.set_status(value);
        if value == 0 {
            self.selects = Selects::default();
            self.interrupt.acknowledge(u32::MAX);
        }
    }
}

impl<D: VirtioDevice> Device for Mmio<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            data.fill(0);
            self.core.read_config(offset, data);
        } else if let (true, Ok(data)) = (offset.is_multiple_of(4), <&mut [u8; 4]>::try_from(data))
        {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    #[inline]
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let value = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        match value {
            // Almost all writes to a device that runs.
            Ok(value) if offset == reg::QUEUE_NOTIFY => self.notify(value),
            _ if offset >= reg::CONFIG => {
                self.core.write_config(offset - reg::CONFIG, data);
                self.signal();
            }
            Ok(value) if offset.is_multiple_of(4) => self.write_register(offset, value),
            _ => self.core.misuse(),
        }
        Effect::None
    }
}
