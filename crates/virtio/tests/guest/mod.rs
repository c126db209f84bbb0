//! A guest with an [`Echo`] device, its driver's queues, and three regions of RAM: two that touch, and one beyond a hole.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test file uses a part"
)]

#[path = "../echo/mod.rs"]
mod echo;

use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{self, Buffer, DriverQueue};
use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{DeviceError, Mmio, QueueError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub use echo::*;

pub const REGIONS: [(u64, usize); 3] = [(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x4_0000, 0x1_0000)];
/// Where requests lie, and answers.
pub const REQUEST: u64 = 0x8000;
pub const ANSWER: u64 = 0x9000;

pub const BASIC: u64 = feature::VERSION_1;
pub const EVENT_IDX: u64 = BASIC | feature::EVENT_IDX;
pub const INDIRECT: u64 = BASIC | feature::INDIRECT_DESC;
pub const RING_RESET: u64 = BASIC | feature::RING_RESET;

/// The status bits of a device that runs.
pub const LIVE: u8 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub line: IrqLine,
    pub device: Mmio<Echo>,
    pub queues: Vec<DriverQueue>,
}

impl Guest {
    /// A device that no driver has touched.
    pub fn new() -> Self {
        let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
        let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
        let line = IrqLine::detached();
        let mut guest = Self {
            device: Mmio::new(Echo::default(), memory.clone(), line.clone()),
            memory,
            line,
            queues: Vec::new(),
        };
        guest.lay_out();
        guest
    }

    /// One that has agreed to features, with no queue.
    pub fn negotiated(features: u64) -> Self {
        let mut guest = Self::new();
        assert!(driver::negotiate(&mut guest.device, features));
        guest
    }

    /// One that runs.
    pub fn live(features: u64) -> Self {
        let mut guest = Self::new();
        guest.go_live(features);
        guest
    }

    /// New queues, in the driver's memory alone.
    fn lay_out(&mut self) {
        self.queues = (1..)
            .zip(QUEUES)
            .map(|(page, size)| DriverQueue::new(&self.memory, page * 0x1000, size))
            .collect();
    }

    pub fn go_live(&mut self, features: u64) {
        self.lay_out();
        let queues: Vec<_> = self.queues.iter().collect();
        driver::initialise(&mut self.device, features, &queues);
        assert_eq!(self.status(), LIVE);
    }

    pub fn read(&mut self, register: u64) -> u32 {
        driver::read(&mut self.device, register)
    }

    pub fn write(&mut self, register: u64, value: u32) {
        driver::write(&mut self.device, register, value);
    }

    pub fn status(&mut self) -> u8 {
        self.read(mmio::STATUS).try_into().unwrap()
    }

    pub fn set_status(&mut self, bits: u8) {
        self.write(mmio::STATUS, bits.into());
    }

    pub fn notify(&mut self, queue: u16) {
        driver::notify(&mut self.device, queue);
    }

    pub fn misuses(&self) -> u64 {
        self.device.core().misuses()
    }

    /// What happens is a misuse, and changes nothing that a driver sees of status and queues.
    pub fn ignores(&mut self, act: impl FnOnce(&mut Self)) {
        let core = self.device.core();
        let (misuses, layout) = (core.misuses(), core.queue_layout(0));
        let (ready, status) = (core.queue_ready(0), core.status());
        act(self);
        let core = self.device.core();
        assert!(core.misuses() > misuses, "it is not counted");
        assert_eq!(core.queue_layout(0), layout);
        assert_eq!((core.queue_ready(0), core.status()), (ready, status));
    }

    /// The device has given up: for what the driver did to a queue.
    pub fn queue_error(&mut self) -> QueueError {
        assert_ne!(self.status() & status::DEVICE_NEEDS_RESET, 0);
        match self.device.core().error() {
            Some(DeviceError::Queue { source, .. }) => *source,
            other => panic!("{other:?}"),
        }
    }

    pub fn interrupts(&mut self) -> u32 {
        let status = self.read(mmio::INTERRUPT_STATUS);
        assert_eq!(self.line.level(), status != 0);
        status
    }

    pub fn acknowledge(&mut self) {
        let status = self.interrupts();
        self.write(mmio::INTERRUPT_ACK, status);
        assert_eq!(self.interrupts(), 0);
    }

    /// Makes a correct request available, without a word to the device.
    pub fn offer(&mut self, queue: usize) -> u16 {
        self.queues[queue].add(&[Buffer::Readable(REQUEST, 5), Buffer::Writable(ANSWER, 16)])
    }

    /// A correct request is answered.
    pub fn echo(&mut self, queue: u16) {
        self.put(REQUEST, b"hello");
        self.put(ANSWER, &[0xee; 16]);
        let head = self.offer(queue.into());
        self.notify(queue);
        assert_eq!(self.queues[usize::from(queue)].used(), Some((head, 5)));
        assert_eq!(self.get::<8>(ANSWER), *b"hello\xee\xee\xee");
    }

    /// After a reset all is well.
    pub fn recovers(&mut self) {
        self.go_live(BASIC);
        for queue in 0..3 {
            self.echo(queue);
        }
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }
}
