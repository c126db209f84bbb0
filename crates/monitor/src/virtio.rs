//! virtio devices of a machine: what a configuration says of them, and how they come to be on the memory bus.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use goldcrest_boot::MmioDevice;
use goldcrest_bus::{Bus, Device, Effect, Range, shared};
use goldcrest_irq::{FanOut, IrqLine};
use goldcrest_memory::GuestRam;
use goldcrest_rate_limiter::{MonotonicClock, RateConfig};
use goldcrest_snapshot::{EnvelopeError, Part, Snapshot};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio::{Interrupt, Mmio, Served, VirtioDevice, Waits, Work, notified_queue};
use goldcrest_virtio_blk::Block;
use goldcrest_virtio_rng::{Entropy, HostSource};

use crate::batching::Batching;
use crate::counters::{Counters, DeviceCounters, count};
use crate::device_loop::{DeviceLoop, Wanted};
use crate::disk::Noticing;
use crate::snapshot::{Description, Saver};
use crate::{GUEST, MonitorError};

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
    id: Option<String>,
    make: Box<Make>,
    /// What it is saved as; nothing for a device whose state nobody knows.
    description: Option<(Description, Saver)>,
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
            id: None,
            make: Box::new(move |ram, line| {
                Ok(Box::new(Mmio::new(make()?, ram.memory().clone(), line)))
            }),
            description: None,
        }
    }

    /// As [`new`](Self::new), of a device that can be saved, and be made again from `description`.
    pub(crate) fn described<D: VirtioDevice + Snapshot + 'static>(
        name: impl Into<String>,
        description: Description,
        make: impl Fn() -> Result<D, DeviceFailure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            description: Some((description, Saver::of::<D>())),
            ..Self::new(name, make)
        }
    }

    /// The name by which the device is bound anew when a snapshot of its machine is restored
    /// ([`Rebinding`](crate::Rebinding)). Without one it is its kind and a number: `disk0`, `disk1`, `net0`.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..self
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
    entropy_device_with(RateConfig::default())
}

/// As [`entropy_device`], with a limit.
pub fn entropy_device_with(rate: RateConfig) -> VirtioConfig {
    VirtioConfig::described("rng", Description::Entropy(rate), move || {
        Ok(Entropy::with_rate(HostSource, rate, MonotonicClock))
    })
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
    counters: &Counters,
) -> Result<Vec<Placed>, MonitorError> {
    let mut devices: Vec<Placed> = Vec::with_capacity(configs.len());
    for (index, (config, place)) in configs.iter().zip(announced).enumerate() {
        let mut device = (config.make)(ram, isa.line(place.interrupt)).map_err(|source| {
            MonitorError::Device {
                name: config.name.clone(),
                source,
            }
        })?;
        let range = Range::new(place.base.into(), place.len.into())?;
        let counters = counters.device(index, &config.name);
        if let Some(disk) = device.inner().downcast_mut::<Block<Noticing>>() {
            disk.backend_mut().count_in(counters.clone());
        }
        let slot = Arc::new(Slot::new(device, events.clone(), counters));
        events.add(Arc::downgrade(&slot));
        bus.add(config.name.as_str(), range, shared(Registers(slot.clone())))?;
        let id = config.id(&devices);
        tracing::info!(
            id,
            name = config.name,
            address = place.base,
            interrupt = place.interrupt,
            "a device is made"
        );
        devices.push(Placed {
            id,
            saved: config.description.clone(),
            changed: Mutex::default(),
            slot,
        });
    }
    Ok(devices)
}

/// A device at its place.
pub(crate) struct Placed {
    pub(crate) id: String,
    /// What it is saved as, if it can be.
    pub(crate) saved: Option<(Description, Saver)>,
    /// The same since the host has changed it.
    changed: Mutex<Option<Description>>,
    pub(crate) slot: Arc<Slot>,
}

impl Placed {
    /// What it is now, if it can be saved.
    pub(crate) fn description(&self) -> Option<Description> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.saved.as_ref().map(|(description, _)| description);
        changed.as_ref().or(made).cloned()
    }

    /// The host has changed it.
    pub(crate) fn revise(&self, change: impl FnOnce(&mut Description)) {
        if let Some(mut description) = self.description() {
            change(&mut description);
            let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
            *changed = Some(description);
        }
    }
}

impl VirtioConfig {
    /// Its name, if it is given one, else its kind and how many of that kind come before it.
    fn id(&self, before: &[Placed]) -> String {
        let (id, description) = match (&self.id, &self.description) {
            (Some(id), _) => return id.clone(),
            (None, Some((description, _))) => (description.kind(), description),
            (None, None) => return self.name.clone(),
        };
        let same = |placed: &&Placed| {
            let other = placed.saved.as_ref().map(|(other, _)| other.kind());
            other == Some(description.kind())
        };
        format!("{id}{}", before.iter().filter(same).count())
    }
}

/// A device behind its transport.
trait Attachable: Device + Any {
    fn quiesce(&mut self);
    fn batches(&self, index: u16) -> Option<Work>;
    fn interrupt(&self) -> Interrupt;
    fn defer_queue(&mut self, index: u16) -> bool;
    fn last_batch(&self, index: u16) -> Work;
    fn served(&self) -> Served;
    /// What the driver did wrong, and how often the device came to need a reset by that or otherwise.
    fn mishaps(&self) -> [u64; 2];
    fn process_events(&mut self);
    fn waits(&self, waits: &mut Waits);
    /// The device without its transport.
    fn inner(&mut self) -> &mut dyn Any;
}

impl<D: VirtioDevice + 'static> Attachable for Mmio<D> {
    fn quiesce(&mut self) {
        Mmio::quiesce(self);
    }

    fn batches(&self, index: u16) -> Option<Work> {
        self.core().device().batches(index)
    }

    fn interrupt(&self) -> Interrupt {
        Mmio::interrupt(self).clone()
    }

    fn defer_queue(&mut self, index: u16) -> bool {
        Mmio::defer_queue(self, index)
    }

    fn last_batch(&self, index: u16) -> Work {
        self.core().last_batch(index)
    }

    fn served(&self) -> Served {
        self.core().served()
    }

    fn mishaps(&self) -> [u64; 2] {
        [self.core().misuses(), self.core().failures()]
    }

    fn process_events(&mut self) {
        Mmio::process_events(self);
    }

    fn waits(&self, waits: &mut Waits) {
        Mmio::waits(self, waits);
    }

    fn inner(&mut self) -> &mut dyn Any {
        self.device_mut()
    }
}

/// A device, as its CPUs and the loop share it. A CPU never waits while the loop is at work on it: what it notifies of is
/// left to the loop then.
pub(crate) struct Slot {
    attached: Mutex<Attached>,
    interrupt: Interrupt,
    /// A bit for each queue that was notified of while the device was at work.
    notified: AtomicU64,
    counters: Arc<DeviceCounters>,
}

impl Slot {
    fn new(
        device: Box<dyn Attachable>,
        events: Arc<DeviceLoop>,
        counters: Arc<DeviceCounters>,
    ) -> Self {
        Self {
            interrupt: device.interrupt(),
            notified: AtomicU64::new(0),
            counters: counters.clone(),
            attached: Mutex::new(Attached {
                device,
                batching: Default::default(),
                left: 0,
                wanted: Wanted::default(),
                now: Waits::default(),
                events,
                counters,
                counted: [0; 5],
            }),
        }
    }

    /// Something that the device waits for has happened, by the loop. `look` is shown what it waits for then.
    pub(crate) fn process_events(&self, look: impl FnOnce(&Wanted)) {
        self.with(|attached| {
            attached.process_events(self.notified.swap(0, Ordering::SeqCst));
            look(&attached.wanted);
        });
    }

    /// What it waits for.
    pub(crate) fn look(&self, look: impl FnOnce(&Wanted)) {
        self.with(|attached| look(&attached.wanted));
    }

    /// Does `work` on the device from outside of the machine, and has the loop see what it waits for then. None if it is a
    /// device of another type.
    pub(crate) fn access<D: 'static, T>(&self, work: impl FnOnce(&mut D) -> T) -> Option<T> {
        self.with(|attached| {
            let result = attached.device.inner().downcast_mut().map(work);
            attached.tell();
            result
        })
    }

    /// Has the device finish what it has begun, and begin nothing else for as long as the result lives.
    pub(crate) fn hold(&self) -> Held<'_> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.leave_all(self.notified.swap(0, Ordering::SeqCst));
        attached.device.quiesce();
        attached.tell();
        Held {
            attached: Some(attached),
            slot: self,
        }
    }

    /// Puts a saved state into the device, which was just made.
    pub(crate) fn restore(&self, saver: Saver, state: &Part) -> Result<(), EnvelopeError> {
        self.with(|attached| {
            let device: &mut dyn Any = &mut *attached.device;
            saver.restore(device, state)
        })
    }

    /// Has the device, which was restored, look what there is to do, and the loop what it waits for.
    pub(crate) fn wake(&self) {
        self.with(|attached| {
            attached.device.process_events();
            attached.tell();
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Attached) -> T) -> T {
        let result = work(&mut self.attached.lock().unwrap_or_else(PoisonError::into_inner));
        self.leave_notified();
        result
    }

    /// A CPU notifies of a queue.
    fn notify(&self, queue: u16, offset: u64, data: &[u8]) {
        count(&self.counters.notifications);
        match (self.try_lock(), 1_u64.checked_shl(queue.into())) {
            (Some(mut attached), _) => attached.write(offset, data),
            (None, Some(bit)) => {
                self.notified.fetch_or(bit, Ordering::SeqCst);
            }
            (None, None) => return self.with(|attached| attached.write(offset, data)),
        }
        self.leave_notified();
    }

    /// What was notified of while the device was locked is the loop's. Whoever has locked it since looks after that.
    fn leave_notified(&self) {
        while self.notified.load(Ordering::SeqCst) != 0 {
            let Some(mut attached) = self.try_lock() else {
                return;
            };
            attached.leave_all(self.notified.swap(0, Ordering::SeqCst));
        }
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Attached>> {
        match self.attached.try_lock() {
            Ok(attached) => Some(attached),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A device that does nothing meanwhile.
pub(crate) struct Held<'a> {
    /// Always there, until this is dropped.
    attached: Option<MutexGuard<'a, Attached>>,
    slot: &'a Slot,
}

impl Held<'_> {
    /// The device's state.
    pub(crate) fn save(&self, saver: Saver) -> Result<Part, EnvelopeError> {
        match &self.attached {
            Some(attached) => {
                let device: &dyn Any = &*attached.device;
                saver.save(device)
            }
            None => saver.save(&()),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.attached = None;
        self.slot.leave_notified();
    }
}

/// A device on the bus.
struct Registers(Arc<Slot>);

impl Device for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset == mmio::INTERRUPT_STATUS => {
                *word = self.0.interrupt.status().to_le_bytes();
            }
            _ => self.0.with(|attached| attached.device.read(offset, data)),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (notified_queue(offset, data), <[u8; 4]>::try_from(data)) {
            (Some(queue), _) => self.0.notify(queue, offset, data),
            (None, Ok(word)) if offset == mmio::INTERRUPT_ACK => {
                self.0.interrupt.acknowledge(u32::from_le_bytes(word));
            }
            _ => self.0.with(|attached| attached.write(offset, data)),
        }
        // No virtio device ends a machine.
        Effect::None
    }
}

/// What is locked of a device. Notifications are served on the CPU's own thread or by the loop, as `Batching` says, and
/// what waits for the host by the loop.
struct Attached {
    device: Box<dyn Attachable>,
    /// Of each queue whose device gains by it.
    batching: [Batching; MAX_BATCHING],
    /// A bit for each of them that was left to the loop.
    left: u64,
    /// What the loop knows it to wait for.
    wanted: Wanted,
    /// Room for what it waits for now.
    now: Waits,
    events: Arc<DeviceLoop>,
    counters: Arc<DeviceCounters>,
    /// What of the device is counted already.
    counted: [u64; 5],
}

impl Attached {
    /// Something that it waits for has happened, and these queues were notified of meanwhile.
    fn process_events(&mut self, notified: u64) {
        self.device.process_events();
        for index in queues(std::mem::take(&mut self.left)) {
            let batching = self.batching.get_mut(usize::from(index));
            if let (Some(batching), Some(worth)) = (batching, self.device.batches(index)) {
                batching.served(self.device.last_batch(index), worth);
            }
        }
        self.defer_all(notified);
        self.look();
        self.wanted.set(&self.now);
        count(&self.counters.turns);
        self.count();
    }

    /// The driver writes to a register.
    fn write(&mut self, offset: u64, data: &[u8]) {
        if self.leave(offset, data) {
            count(&self.counters.left);
        } else {
            let _ = self.device.write(offset, data);
            self.count();
        }
        self.tell();
    }

    fn leave_all(&mut self, notified: u64) {
        self.defer_all(notified);
        self.tell();
    }

    fn defer_all(&mut self, notified: u64) {
        for index in queues(notified) {
            // A queue that is not in use is nobody's.
            let _ = self.device.defer_queue(index);
        }
    }

    /// Leaves what the driver notifies of to the loop, if that is better.
    fn leave(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(index) = notified_queue(offset, data) else {
            return false;
        };
        let left = self.device.batches(index).is_some()
            && self
                .batching
                .get_mut(usize::from(index))
                .is_some_and(Batching::leave)
            && self.device.defer_queue(index);
        if left {
            self.left |= 1 << index;
        }
        left
    }

    /// Tells the loop what it waits for now, if that is something else.
    fn tell(&mut self) {
        self.look();
        if !self.wanted.covers(&self.now) {
            self.wanted.set(&self.now);
            self.events.changed();
        }
    }

    /// Counts what the device has done since this was called last.
    fn count(&mut self) {
        let Served {
            chains,
            bytes_read,
            bytes_written,
        } = self.device.served();
        let [misuses, failures] = self.device.mishaps();
        let [_, _, _, misuses_before, failures_before] = self.counted;
        if misuses != misuses_before {
            let name = self.counters.name();
            tracing::warn!(target: GUEST, name, "a driver did what it must not");
        }
        if failures != failures_before {
            let name = self.counters.name();
            tracing::warn!(target: GUEST, name, "a device came to need a reset");
        }
        let now = [chains, bytes_read, bytes_written, misuses, failures];
        self.counters.add(&self.counted, &now);
        self.counted = now;
    }

    fn look(&mut self) {
        self.now.clear();
        self.device.waits(&mut self.now);
    }
}

/// The numbers of the bits that are set.
fn queues(bits: u64) -> impl Iterator<Item = u16> {
    (0..64).filter(move |index| bits >> index & 1 != 0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Instant;

    use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, read, write};
    use goldcrest_virtio::{DeviceError, DeviceIo, DeviceSpec};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    /// Gives buffers back, and is at work for as long as its host wants.
    struct Busy {
        begun: Sender<()>,
        end: Receiver<()>,
    }

    impl VirtioDevice for Busy {
        fn spec(&self) -> DeviceSpec {
            DeviceSpec {
                id: 42,
                features: 0,
                queue_sizes: vec![16],
            }
        }

        fn read_config(&self, _: u64, _: &mut [u8]) {}

        fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
            let mut queue = io.queue(index).unwrap();
            while let Some(chain) = queue.pop().unwrap() {
                let head = chain.head;
                queue.push(head, 0);
            }
            Ok(())
        }

        fn process_events(&mut self, _: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
            self.begun.send(()).unwrap();
            self.end.recv().unwrap();
            Ok(())
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn a_cpu_does_not_wait_for_a_device_that_the_loop_has_at_work() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let (begun, has_begun) = channel();
        let (end, to_end) = channel();
        let busy = Busy { begun, end: to_end };
        let line = IrqLine::detached();
        let device = Mmio::new(busy, memory.clone(), line.clone());
        let slot = Arc::new(Slot::new(Box::new(device), Arc::default(), Arc::default()));
        let mut registers = Registers(slot.clone());
        let mut queue = DriverQueue::new(&memory, 0, 16);
        initialise(&mut registers, 1 << 32, &[&queue]);
        queue.add(&[Buffer::Readable(0x8000, 1)]);
        notify(&mut registers, 0);
        assert!(queue.used().is_some() && line.level());

        let at_work = thread::spawn({
            let slot = slot.clone();
            move || slot.process_events(|_| {})
        });
        has_begun.recv().unwrap();
        assert_eq!(read(&mut registers, mmio::INTERRUPT_STATUS), 1);
        write(&mut registers, mmio::INTERRUPT_ACK, 1);
        assert!(!line.level());
        queue.add(&[Buffer::Readable(0x8000, 1)]);
        notify(&mut registers, 0);
        assert!(queue.used().is_none(), "it is at work");

        end.send(()).unwrap();
        at_work.join().unwrap();
        let mut waits = Wanted::default();
        slot.look(|wanted| waits = wanted.clone());
        assert!(
            waits.is_due(Instant::now()),
            "the loop is to serve the queue"
        );
        end.send(()).unwrap();
        slot.process_events(|_| {});
        assert!(queue.used().is_some() && line.level());

        let metrics = slot.counters.metrics();
        assert_eq!((metrics.notifications, metrics.turns), (2, 2));
        assert_eq!((metrics.requests, metrics.bytes_read), (2, 2));
        assert_eq!((metrics.misuses, metrics.failures), (0, 0));
        // A queue that there is not.
        write(&mut registers, mmio::QUEUE_NOTIFY, 7);
        assert_eq!(slot.counters.metrics().misuses, 1);
    }
}
