//! A virtio driver that misbehaves on purpose.

use arbitrary::Unstructured;
use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{self, Buffer, DriverQueue, write_descriptor};
use goldcrest_virtio::spec::ring::{DESC_F_INDIRECT, DESC_F_NEXT};
use goldcrest_virtio::spec::{mmio, status};
use goldcrest_virtio::{Mmio, QueueLayout, VirtioDevice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::action::{Action, Descriptor, Part, Request};
use crate::watch::{Watch, assert_idle, is_live};
use crate::{Faults, Interference, place};

/// How often a run restores: it takes as long as many other steps.
const RESTORES: u32 = 4;
/// The most that a run does: a longer input has nothing to add.
const ACTIONS: usize = 160;

/// Saves the first device, and puts its state into the second: fails unless that is then the same.
pub type RoundTrip<D> = fn(&Mmio<D>, &mut Mmio<D>);

/// A driver that does what `data` says, and what must hold of the device meanwhile.
///
/// ```
/// use goldcrest_device_fuzz::HostileDriver;
/// # use goldcrest_virtio::{DeviceError, DeviceIo, DeviceSpec, Mmio, VirtioDevice};
/// # struct Sink;
/// # impl VirtioDevice for Sink {
/// #     fn spec(&self) -> DeviceSpec {
/// #         DeviceSpec { id: 42, features: 0, queue_sizes: vec![16] }
/// #     }
/// #     fn read_config(&self, _: u64, _: &mut [u8]) {}
/// #     fn process_queue(&mut self, _: u16, _: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
/// #         Ok(())
/// #     }
/// #     fn reset(&mut self) {}
/// # }
///
/// let driver = HostileDriver::new(&[0, 0xff, 24, 1, 2, 3, 4, 8, 0]);
/// let (faults, interference) = (driver.faults(), driver.interference());
/// driver.run(|memory, line| {
///     // A backend calls `faults.next()` where it may fail, `interference.strike()` where it takes its time.
///     let _ = (&faults, &interference);
///     Mmio::new(Sink, memory, line)
/// });
/// ```
pub struct HostileDriver<'a, D> {
    data: &'a [u8],
    interference: Interference,
    faults: Faults,
    round_trip: Option<RoundTrip<D>>,
}

impl<'a, D: VirtioDevice> HostileDriver<'a, D> {
    /// A driver that does what `data` says.
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            interference: Interference::default(),
            faults: Faults::default(),
            round_trip: None,
        }
    }

    /// What a backend calls to have memory changed while it works.
    pub fn interference(&self) -> Interference {
        self.interference.clone()
    }

    /// What a backend draws its faults from.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Now and then, the device is saved and another one goes on in its place: `round_trip` gives it the state.
    #[must_use]
    pub fn round_trip(mut self, round_trip: RoundTrip<D>) -> Self {
        self.round_trip = Some(round_trip);
        self
    }

    /// Does all of it to the device that `make` makes, which is called again for a device to restore into.
    ///
    /// # Panics
    ///
    /// If something does not hold, or in the device.
    pub fn run(self, make: impl FnMut(GuestMemoryMmap, IrqLine) -> Mmio<D>) {
        let memory = place::memory();
        self.interference.begin(&memory);
        let mut input = Unstructured::new(self.data);
        let mut guest = Guest::new(self, memory, make);
        for _ in 0..ACTIONS {
            if input.is_empty() {
                break;
            }
            let Ok(action) = Action::take(&mut input) else {
                break;
            };
            guest.act(action);
        }
        guest.finish();
    }
}

/// The guest that the driver is in.
struct Guest<'a, D, M> {
    driver: HostileDriver<'a, D>,
    make: M,
    memory: GuestMemoryMmap,
    line: IrqLine,
    device: Mmio<D>,
    queues: Vec<DriverQueue>,
    offered: u64,
    restores: u32,
}

impl<'a, D, M> Guest<'a, D, M>
where
    D: VirtioDevice,
    M: FnMut(GuestMemoryMmap, IrqLine) -> Mmio<D>,
{
    fn new(driver: HostileDriver<'a, D>, memory: GuestMemoryMmap, mut make: M) -> Self {
        let line = IrqLine::detached();
        let mut device = make(memory.clone(), line.clone());
        let offered = driver::offered_features(&mut device);
        let mut guest = Self {
            driver,
            make,
            memory,
            line,
            device,
            queues: Vec::new(),
            offered,
            restores: 0,
        };
        guest.lay_out();
        guest
    }

    /// Queues where they belong, and empty.
    fn lay_out(&mut self) {
        let sizes = self.device.core().spec().queue_sizes.iter();
        self.queues = sizes
            .take(place::QUEUES)
            .enumerate()
            .map(|(index, size)| {
                let size = (*size).min(place::QUEUE_SIZE);
                DriverQueue::new(&self.memory, place::queue(index), size)
            })
            .collect();
    }

    /// Whatever is done to the device is done here.
    fn call<T>(&mut self, work: impl FnOnce(&mut Mmio<D>) -> T) -> T {
        let watch = Watch::begin(&self.device);
        let result = work(&mut self.device);
        watch.end(&mut self.device, &self.line);
        result
    }

    fn write(&mut self, register: u64, value: u32) {
        self.call(|device| driver::write(device, register, value));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { features, spoilt } => self.start(features, spoilt),
            Action::Prepare { features } => self.prepare(features, None),
            Action::Status(bits) => self.write(mmio::STATUS, bits.into()),
            Action::Register { register, value } => self.write(register, value),
            Action::Access(access) => {
                self.call(|device| access.apply(device).assert_goes_on());
            }
            Action::Lay { queue, part, reset } => self.lay(queue, part, reset),
            Action::Ready { queue } => {
                self.write(mmio::QUEUE_SEL, queue.into());
                self.write(mmio::QUEUE_READY, 1);
            }
            Action::Notify(queue) => self.write(mmio::QUEUE_NOTIFY, queue),
            Action::Request(request) => self.request(&request),
            Action::Descriptor(descriptor) => self.describe(&descriptor),
            Action::Offer {
                queue,
                head,
                notify,
            } => self.offer(queue, head, notify),
            Action::AvailableIndex { queue, by } => {
                if let Some(queue) = queue_mut(&mut self.queues, queue) {
                    queue.set_available(queue.available.wrapping_add(by));
                }
            }
            Action::Suppress {
                queue,
                flags,
                event,
            } => {
                if let Some(queue) = queue_mut(&mut self.queues, queue) {
                    queue.set_flags(flags);
                    queue.set_used_event(event);
                }
            }
            Action::Scribble { address, bytes } => {
                // It may be where there is no RAM.
                let _ = self.memory.write_slice(&bytes, GuestAddress(address));
            }
            Action::Interfere { address, bytes } => self.driver.interference.plan(address, bytes),
            Action::Faults(faults) => self.driver.faults.add(&faults),
            Action::Events => self.call(Mmio::process_events),
            Action::Acknowledge => self.write(mmio::INTERRUPT_ACK, u32::MAX),
            Action::Restore => self.restore(),
            Action::Reset => self.write(mmio::STATUS, 0),
        }
    }

    /// §3.1.1, steps 1 to 7: the device agrees if it should.
    fn prepare(&mut self, features: u64, spoilt: Option<(u8, Part)>) {
        let features = features & self.offered;
        self.lay_out();
        let agreed = self.call(|device| driver::negotiate(device, features));
        let accepted = self.device.core().accepts(features);
        assert_eq!(agreed, accepted, "{features:#x} of {:#x}", self.offered);
        if !agreed {
            // One needs another that is missing. All of them together must do.
            let all = self.offered;
            let agreed = self.call(|device| driver::negotiate(device, all));
            assert!(agreed, "{all:#x} is offered");
        }
        for index in 0..self.queues.len() {
            let mut layout = self.queues[index].layout;
            if let Some((queue, part)) = spoilt
                && usize::from(queue) % self.queues.len() == index
            {
                part.put_into(&mut layout);
            }
            let index = u16::try_from(index).expect("few");
            self.call(|device| driver::set_up(device, index, &layout));
        }
    }

    fn start(&mut self, features: u64, spoilt: Option<(u8, Part)>) {
        self.prepare(features, spoilt);
        self.call(driver::start);
    }

    fn lay(&mut self, queue: u8, part: Part, reset: bool) {
        // One beyond the last does not exist.
        let index = u16::from(queue) % (u16::try_from(self.queues.len()).expect("few") + 1);
        self.write(mmio::QUEUE_SEL, index.into());
        if reset {
            self.write(mmio::QUEUE_RESET, 1);
        }
        let Some(queue) = self.queues.get(usize::from(index)) else {
            return self.write(mmio::QUEUE_SIZE, 1);
        };
        let mut layout = queue.layout;
        part.put_into(&mut layout);
        self.call(|device| driver::set_up(device, index, &layout));
    }

    /// A chain of readable and writable buffers, one behind the other.
    fn request(&mut self, request: &Request) {
        let readable = (0..request.readable).map(|_| Buffer::Readable as fn(u64, u32) -> Buffer);
        let writable = (0..request.writable).map(|_| Buffer::Writable as fn(u64, u32) -> Buffer);
        // The first is a header, which is short in most devices; the last a status.
        let count = request.readable + request.writable;
        let mut address = request.address;
        let buffers: Vec<_> = (1..)
            .zip(readable.chain(writable))
            .map(|(number, buffer)| {
                let len = match number {
                    1 if request.readable > 0 => request.len.min(16),
                    last if last == count && request.writable > 1 => 1,
                    _ => request.len,
                };
                let part = buffer(address, len);
                address = address.wrapping_add(len.into());
                part
            })
            .collect();
        let _ = self
            .memory
            .write_slice(&request.header, GuestAddress(request.address));
        let Some(queue) = queue_mut(&mut self.queues, request.queue) else {
            return;
        };
        if buffers.is_empty() {
            return;
        }
        let head = if request.indirect {
            queue.describe_indirect(place::TABLES, &buffers)
        } else {
            queue.describe(&buffers)
        };
        self.offer(request.queue, head, request.notify);
    }

    fn describe(&mut self, descriptor: &Descriptor) {
        let Some(queue) = queue_mut(&mut self.queues, descriptor.queue) else {
            return;
        };
        let (table, count) = if descriptor.in_table {
            (place::TABLES, 64)
        } else {
            let count = u64::from(queue.layout.size);
            (queue.layout.descriptors, count)
        };
        let at = table + 16 * (u64::from(descriptor.index) % count);
        // A table is whole if it is to be one.
        let whole = descriptor.flags & (DESC_F_INDIRECT | DESC_F_NEXT) == DESC_F_INDIRECT;
        write_descriptor(
            &self.memory,
            at,
            descriptor.address,
            descriptor.len & if whole { !15 } else { u32::MAX },
            descriptor.flags,
            descriptor.next,
        );
    }

    fn offer(&mut self, index: u8, head: u16, notify: bool) {
        let Some(queue) = queue_mut(&mut self.queues, index) else {
            return;
        };
        queue.offer(head);
        if notify {
            let index = usize::from(index) % self.queues.len();
            self.write(mmio::QUEUE_NOTIFY, u32::try_from(index).expect("few"));
        }
    }

    /// Goes on with a restored device, as a clone of the machine would.
    fn restore(&mut self) {
        let Some(round_trip) = self.driver.round_trip else {
            return;
        };
        self.restores += 1;
        if self.restores > RESTORES {
            return;
        }
        self.call(Mmio::quiesce);
        if is_live(&self.device) {
            assert_idle(&self.device);
        }
        let line = IrqLine::detached();
        let mut fresh = (self.make)(self.memory.clone(), line.clone());
        round_trip(&self.device, &mut fresh);
        assert_eq!(line.level(), self.line.level());
        (self.device, self.line) = (fresh, line);
    }

    /// A reset mends everything: after it, a driver that is correct finds a device that works.
    fn finish(mut self) {
        self.driver.interference.end();
        self.driver.faults.end();
        self.write(mmio::STATUS, 0);
        assert_idle(&self.device);
        assert!(!self.line.level());
        self.start(self.offered, None);
        let live = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        for index in 0..self.queues.len() {
            self.write(mmio::QUEUE_NOTIFY, u32::try_from(index).expect("few"));
            let error = self.device.core().error();
            assert_eq!(self.device.core().status(), live, "{error:?}");
        }
        self.call(Mmio::process_events);
        self.write(mmio::STATUS, 0);
        assert_idle(&self.device);
    }
}

/// A queue by any number, if there is one at all.
fn queue_mut(queues: &mut [DriverQueue], index: u8) -> Option<&mut DriverQueue> {
    let count = queues.len().max(1);
    queues.get_mut(usize::from(index) % count)
}

impl Part {
    fn put_into(self, layout: &mut QueueLayout) {
        match self {
            Self::Size(size) => layout.size = size,
            Self::Descriptors(address) => layout.descriptors = address,
            Self::Available(address) => layout.available = address,
            Self::Used(address) => layout.used = address,
        }
    }
}
