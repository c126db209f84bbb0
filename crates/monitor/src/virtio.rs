//! virtio devices of a machine: what a configuration says of them, and how they come to be on the memory bus.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};

use goldcrest_boot::MmioDevice;
use goldcrest_bus::{Bus, Device, Effect, Range};
use goldcrest_irq::{FanOut, IrqLine};
use goldcrest_memory::GuestRam;
use goldcrest_virtio::{Mmio, VirtioDevice, Waits};
use goldcrest_virtio_rng::{Entropy, HostSource};

use crate::MonitorError;
use crate::batching::Batching;
use crate::device_loop::{DeviceLoop, Wanted};

/// Where the first device's registers are; each device has a page.
const FIRST: u32 = 0xd000_0000;
/// Bytes of that page.
const LEN: u32 = 4096;
/// The IOAPIC's inputs that devices get, in this order: those that no ISA device has ever had come first.
const INTERRUPTS: [u32; 17] = [
    16, 17, 18, 19, 20, 21, 22, 23, 5, 9, 10, 11, 6, 7, 12, 14, 15,
];

/// Queues beyond are served by their CPUs.
const MAX_BATCHING: usize = 16;

/// The most virtio devices that a machine can have.
pub const MAX_VIRTIO_DEVICES: usize = INTERRUPTS.len();

/// A virtio device that a machine has.
pub struct VirtioConfig {
    name: String,
    make: Box<Make>,
}

type Make = dyn Fn(&GuestRam, IrqLine) -> Result<Box<dyn Attachable>, DeviceFailure> + Send + Sync;

/// Why a device cannot be made.
pub type DeviceFailure = Box<dyn Error + Send + Sync>;

impl VirtioConfig {
    /// The device that `make` makes, once for each start: a machine that is reset finds it fresh.
    pub fn new<D: VirtioDevice + 'static>(
        name: impl Into<String>,
        make: impl Fn() -> Result<D, DeviceFailure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Box::new(move |ram, line| {
                Ok(Box::new(Mmio::new(make()?, ram.memory().clone(), line)))
            }),
        }
    }
}

impl fmt::Debug for VirtioConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioConfig")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A source of entropy: the host's.
pub fn entropy_device() -> VirtioConfig {
    VirtioConfig::new("rng", || Ok(Entropy::new(HostSource)))
}

/// How `count` devices are announced to the guest.
///
/// # Errors
///
/// [`MonitorError::VirtioDevices`] if there are more than can be.
pub(crate) fn announced(count: usize) -> Result<Vec<MmioDevice>, MonitorError> {
    if count > MAX_VIRTIO_DEVICES {
        return Err(MonitorError::VirtioDevices {
            count,
            max: MAX_VIRTIO_DEVICES,
        });
    }
    let bases = std::iter::successors(Some(FIRST), |base| base.checked_add(LEN));
    let places = bases.zip(INTERRUPTS);
    Ok(places
        .take(count)
        .map(|(base, interrupt)| MmioDevice {
            base,
            len: LEN,
            interrupt,
            edge: true,
        })
        .collect())
}

/// Makes the devices of `configs` and puts them on the bus, at the places of `announced`.
pub(crate) fn attach(
    configs: &[VirtioConfig],
    announced: &[MmioDevice],
    ram: &GuestRam,
    isa: &FanOut,
    bus: &mut Bus,
    events: &Arc<DeviceLoop>,
) -> Result<(), MonitorError> {
    for (config, place) in configs.iter().zip(announced) {
        let device = (config.make)(ram, isa.line(place.interrupt)).map_err(|source| {
            MonitorError::Device {
                name: config.name.clone(),
                source,
            }
        })?;
        let range = Range::new(place.base.into(), place.len.into())?;
        let shared = Arc::new_cyclic(|this| {
            events.add(this.clone());
            let queues = if device.batches() { MAX_BATCHING } else { 0 };
            Mutex::new(Attached {
                device,
                batching: vec![Batching::default(); queues],
                left: Vec::with_capacity(queues),
                wanted: Wanted::default(),
                now: Waits::default(),
                events: events.clone(),
            })
        });
        bus.add(config.name.as_str(), range, shared)?;
    }
    Ok(())
}

/// A device behind its transport.
trait Attachable: Device {
    fn batches(&self) -> bool;
    fn notified_queue(&self, offset: u64, data: &[u8]) -> Option<u16>;
    fn defer_queue(&mut self, index: u16) -> bool;
    fn last_batch(&self, index: u16) -> u16;
    fn process_events(&mut self);
    fn waits(&self, waits: &mut Waits);
}

impl<D: VirtioDevice> Attachable for Mmio<D> {
    fn batches(&self) -> bool {
        self.core().device().batches()
    }

    fn notified_queue(&self, offset: u64, data: &[u8]) -> Option<u16> {
        Self::notified_queue(offset, data)
    }

    fn defer_queue(&mut self, index: u16) -> bool {
        Mmio::defer_queue(self, index)
    }

    fn last_batch(&self, index: u16) -> u16 {
        self.core().last_batch(index)
    }

    fn process_events(&mut self) {
        Mmio::process_events(self);
    }

    fn waits(&self, waits: &mut Waits) {
        Mmio::waits(self, waits);
    }
}

/// A device on the bus. Notifications are served on the CPU's own thread or by the loop, as `Batching` says, and what waits
/// for the host by the loop.
pub(crate) struct Attached {
    device: Box<dyn Attachable>,
    /// Of each queue, if the device gains by it.
    batching: Vec<Batching>,
    /// The queues that were left to the loop.
    left: Vec<u16>,
    /// What the loop knows it to wait for.
    wanted: Wanted,
    /// Room for what it waits for now.
    now: Waits,
    events: Arc<DeviceLoop>,
}

impl Attached {
    /// Something that it waits for has happened; by the loop.
    pub(crate) fn process_events(&mut self) {
        self.device.process_events();
        for index in self.left.drain(..) {
            if let Some(batching) = self.batching.get_mut(usize::from(index)) {
                batching.served(self.device.last_batch(index));
            }
        }
        self.look();
        self.wanted.set(&self.now);
    }

    /// What it waits for.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Leaves what the driver notifies of to the loop, if that is better.
    fn leave(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(index) = self.device.notified_queue(offset, data) else {
            return false;
        };
        let batching = self.batching.get_mut(usize::from(index));
        let left = batching.is_some_and(Batching::leave) && self.device.defer_queue(index);
        if left && !self.left.contains(&index) {
            self.left.push(index);
        }
        left
    }

    fn look(&mut self) {
        self.now.clear();
        self.device.waits(&mut self.now);
    }
}

impl Device for Attached {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.device.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let effect = match self.leave(offset, data) {
            true => Effect::None,
            false => self.device.write(offset, data),
        };
        self.look();
        if !self.wanted.covers(&self.now) {
            self.wanted.set(&self.now);
            self.events.changed();
        }
        effect
    }
}
