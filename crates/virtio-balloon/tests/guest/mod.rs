//! A guest with a driver of the balloon.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::time::Duration;

use goldcrest_bus::Device;
use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::driver::{self, Buffer, DriverQueue, notify, read};
use goldcrest_virtio::spec::{feature as transport, mmio, status};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_balloon::spec::{config, feature, queue};
use goldcrest_virtio_balloon::{
    Balloon, BalloonConfig, BalloonHandle, BalloonStatus, Pages, RecordedPages, Totals,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where RAM ends below the hole, and where it goes on behind it for another MiB.
pub(crate) const LOW: u64 = 64 << 20;
pub(crate) const HIGH: u64 = 1 << 32;
pub(crate) const MIB: u64 = 1 << 20;
/// Where requests are.
const REQUESTS: u64 = 0x8_0000;

/// How a driver numbers queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// §5.5.2.
    Specification,
    /// One after another.
    Linux,
}

pub(crate) struct Guest<P> {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) device: Mmio<Balloon<P, ManualClock>>,
    pub(crate) clock: ManualClock,
    /// By what they are for.
    pub(crate) queues: Vec<Option<(u16, DriverQueue)>>,
    next: u64,
}

/// Everything that can be offered.
pub(crate) fn everything() -> BalloonConfig {
    BalloonConfig {
        free_page_hinting: true,
        statistics: Some(Duration::from_secs(5)),
        ..BalloonConfig::default()
    }
}

pub(crate) fn memory() -> GuestMemoryMmap {
    let regions = [(0, LOW), (HIGH, MIB)];
    let regions = regions.map(|(at, len)| (GuestAddress(at), len as usize));
    GuestMemoryMmap::from_ranges(&regions).unwrap()
}

/// A guest whose driver takes all but filling free pages, numbered as Linux does.
pub(crate) fn recorded(config: &BalloonConfig) -> (Guest<RecordedPages>, RecordedPages) {
    let pages = RecordedPages::default();
    let mut guest = Guest::new(pages.clone(), config, None);
    guest.start(!feature::PAGE_POISON, Numbers::Linux);
    (guest, pages)
}

impl<P: Pages> Guest<P> {
    /// A device that no driver has touched.
    pub(crate) fn new(pages: P, config: &BalloonConfig, handle: Option<&BalloonHandle>) -> Self {
        let clock = ManualClock::default();
        let mut balloon = Balloon::with_clock(pages, config, clock.clone()).unwrap();
        if let Some(handle) = handle {
            balloon = balloon.with_handle(handle);
        }
        let memory = memory();
        let device = Mmio::new(balloon, memory.clone(), IrqLine::detached());
        Self {
            memory,
            device,
            clock,
            queues: Vec::new(),
            next: REQUESTS,
        }
    }

    /// Resets the device and starts it with these of its features.
    pub(crate) fn start(&mut self, features: u64, numbers: Numbers) {
        self.start_with(features, numbers, |_| {});
    }

    /// The same; `before` is done when features have been agreed on.
    pub(crate) fn start_with(
        &mut self,
        features: u64,
        numbers: Numbers,
        before: impl FnOnce(&mut Self),
    ) {
        let device = &mut self.device;
        let features = driver::offered_features(device) & (features | !transport::DEVICE_TYPE);
        assert!(driver::negotiate(device, features));
        before(self);
        let optional = [
            feature::STATS_VQ,
            feature::FREE_PAGE_HINT,
            feature::PAGE_REPORTING,
        ];
        let there = [true, true].into_iter();
        let there = there.chain(optional.map(|each| features & each != 0));
        self.queues = Vec::new();
        let mut in_turn = 0;
        for (own, there) in (0..).zip(there) {
            let number = if numbers == Numbers::Linux {
                in_turn
            } else {
                own
            };
            in_turn += u16::from(there);
            let queue = there.then(|| {
                let size = if own < 2 {
                    queue::SIZE
                } else {
                    queue::OPTIONAL_SIZE
                };
                let queue = DriverQueue::new(&self.memory, u64::from(own) * 0x1000, size);
                driver::set_up(&mut self.device, number, &queue.layout);
                (number, queue)
            });
            self.queues.push(queue);
        }
        driver::start(&mut self.device);
        assert!(!self.needs_reset());
    }

    /// The queue for what has this number by the specification.
    pub(crate) fn queue(&mut self, role: u16) -> &mut DriverQueue {
        &mut self.queues[usize::from(role)].as_mut().unwrap().1
    }

    pub(crate) fn add(&mut self, role: u16, buffers: &[Buffer]) -> u16 {
        self.queue(role).add(buffers)
    }

    pub(crate) fn notify(&mut self, role: u16) {
        let number = self.queues[usize::from(role)].as_ref().unwrap().0;
        notify(&mut self.device, number);
    }

    /// Makes a request by a queue, and finds it answered, with nothing written.
    pub(crate) fn request(&mut self, role: u16, buffers: &[Buffer]) {
        let head = self.add(role, buffers);
        self.notify(role);
        assert_eq!(self.queue(role).used(), Some((head, 0)));
    }

    /// Bytes somewhere in RAM.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> Buffer {
        if self.next + bytes.len() as u64 > MIB {
            self.next = REQUESTS;
        }
        let at = self.next;
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        self.next += bytes.len() as u64;
        Buffer::Readable(at, bytes.len() as u32)
    }

    pub(crate) fn numbers(&mut self, numbers: &[u32]) -> Buffer {
        self.place(
            &numbers
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn inflate(&mut self, numbers: &[u32]) {
        let buffer = self.numbers(numbers);
        self.request(queue::INFLATE, &[buffer]);
    }

    pub(crate) fn deflate(&mut self, numbers: &[u32]) {
        let buffer = self.numbers(numbers);
        self.request(queue::DEFLATE, &[buffer]);
    }

    pub(crate) fn report(&mut self, ranges: &[(u64, u32)]) {
        let buffers: Vec<_> = ranges
            .iter()
            .map(|(at, len)| Buffer::Writable(*at, *len))
            .collect();
        self.request(queue::REPORTING, &buffers);
    }

    /// Sends a command ID by the queue for hints.
    pub(crate) fn send_id(&mut self, id: u32) {
        let buffer = self.numbers(&[id]);
        self.request(queue::FREE_PAGE, &[buffer]);
    }

    pub(crate) fn hint(&mut self, at: u64, len: u32) {
        self.request(queue::FREE_PAGE, &[Buffer::Writable(at, len)]);
    }

    /// Makes a buffer with statistics available.
    pub(crate) fn tell(&mut self, statistics: &[(u16, u64)]) {
        let bytes: Vec<u8> = statistics
            .iter()
            .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect();
        let buffer = self.place(&bytes);
        self.add(queue::STATISTICS, &[buffer]);
        self.notify(queue::STATISTICS);
    }

    /// Whether the device has asked for statistics, by giving a buffer back.
    pub(crate) fn asked(&mut self) -> bool {
        self.queue(queue::STATISTICS).used().is_some()
    }

    pub(crate) fn config(&mut self, field: usize) -> u32 {
        assert!(field < config::SIZE);
        read(&mut self.device, mmio::CONFIG + field as u64)
    }

    pub(crate) fn write_config(&mut self, field: usize, value: u32) {
        let _ = self
            .device
            .write(mmio::CONFIG + field as u64, &value.to_le_bytes());
    }

    /// Whether there was an interrupt for a change of the configuration since this was last asked.
    pub(crate) fn told_of_change(&mut self) -> bool {
        let bits = read(&mut self.device, mmio::INTERRUPT_STATUS);
        driver::write(&mut self.device, mmio::INTERRUPT_ACK, bits);
        bits & mmio::INT_CONFIG_CHANGE != 0
    }

    pub(crate) fn balloon(&mut self) -> &mut Balloon<P, ManualClock> {
        self.device.device_mut()
    }

    pub(crate) fn status(&self) -> BalloonStatus {
        self.device.core().device().status()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.status().totals
    }

    pub(crate) fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
        waits
    }

    pub(crate) fn needs_reset(&mut self) -> bool {
        read(&mut self.device, mmio::STATUS) & u32::from(status::DEVICE_NEEDS_RESET) != 0
    }

    pub(crate) fn fill(&self, at: u64, len: u64, value: u8) {
        for at in (at..at + len).step_by(4096) {
            self.memory
                .write_slice(&[value; 4096], GuestAddress(at))
                .unwrap();
        }
    }

    /// Whether all of a range has this value; it is touched by that.
    pub(crate) fn is(&self, at: u64, len: u64, value: u8) -> bool {
        (at..at + len).step_by(4096).all(|at| {
            let page: [u8; 4096] = {
                let mut page = [0; 4096];
                self.memory.read_slice(&mut page, GuestAddress(at)).unwrap();
                page
            };
            page == [value; 4096]
        })
    }
}
