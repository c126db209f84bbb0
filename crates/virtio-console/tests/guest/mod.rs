//! A guest with a driver of the console device.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, read};
use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_console::spec::{self, queue};
use goldcrest_virtio_console::{Console, PortConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Where data begins; each buffer has a page or more of its own.
const DATA: u64 = 0x10_0000;
const RAM: u64 = 16 << 20;

pub(crate) struct Guest {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) device: Mmio<Console>,
    pub(crate) queues: Vec<DriverQueue>,
    /// By queue and head: where the buffer is.
    buffers: Vec<Vec<u64>>,
    next: u64,
}

impl Guest {
    /// A driver that takes these features of the device's, and has started it.
    pub(crate) fn new(ports: Vec<PortConfig>, features: u64) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let console = Console::new(ports).unwrap();
        let device = Mmio::new(console, memory.clone(), IrqLine::detached());
        let mut guest = Self {
            memory,
            device,
            queues: Vec::new(),
            buffers: Vec::new(),
            next: DATA,
        };
        guest.start(features);
        guest
    }

    /// Resets the device, and starts it.
    pub(crate) fn start(&mut self, features: u64) {
        let count = self.device.core().spec().queue_sizes.len();
        self.queues.clear();
        let mut at = 0;
        for _ in 0..count {
            let queue = DriverQueue::new(&self.memory, at, queue::SIZE);
            at = queue.end().next_multiple_of(16);
            self.queues.push(queue);
        }
        assert!(at <= DATA);
        self.buffers = vec![vec![0; queue::SIZE.into()]; count];
        let queues: Vec<_> = self.queues.iter().collect();
        let features = features | feature::VERSION_1 | feature::EVENT_IDX;
        initialise(&mut self.device, features, &queues);
    }

    fn room(&mut self, len: usize) -> u64 {
        let len = (len as u64).next_multiple_of(4096);
        if self.next + len > RAM {
            self.next = DATA;
        }
        self.next += len;
        self.next - len
    }

    /// Offers room for input, and notifies.
    pub(crate) fn give(&mut self, queue: u16, len: u32) {
        let at = self.room(len as usize);
        let head = self.queues[usize::from(queue)].add(&[Buffer::Writable(at, len)]);
        self.buffers[usize::from(queue)][usize::from(head)] = at;
        notify(&mut self.device, queue);
    }

    /// What has been written to buffers since this was last asked, one by one.
    pub(crate) fn received(&mut self, queue: u16) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((head, written)) = self.queues[usize::from(queue)].used() {
            let mut bytes = vec![0; written as usize];
            let at = self.buffers[usize::from(queue)][usize::from(head)];
            self.memory
                .read_slice(&mut bytes, GuestAddress(at))
                .unwrap();
            all.push(bytes);
        }
        all
    }

    /// Puts out bytes in one buffer, and notifies.
    pub(crate) fn send(&mut self, queue: u16, bytes: &[u8]) {
        let at = self.room(bytes.len());
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        self.queues[usize::from(queue)].add(&[Buffer::Readable(at, len)]);
        notify(&mut self.device, queue);
    }

    /// How many output buffers have come back since this was last asked.
    pub(crate) fn taken(&mut self, queue: u16) -> usize {
        std::iter::from_fn(|| self.queues[usize::from(queue)].used()).count()
    }

    /// Sends a control message.
    pub(crate) fn control(&mut self, id: u32, event: u16, value: u16) {
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        self.send(queue::CONTROL_TRANSMIT, &bytes);
    }

    /// The control messages that have come: port, event, value, what follows.
    pub(crate) fn controls(&mut self) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let parse = |bytes: Vec<u8>| {
            let id = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            let event = u16::from_le_bytes(bytes[4..6].try_into().unwrap());
            let value = u16::from_le_bytes(bytes[6..8].try_into().unwrap());
            (id, event, value, bytes[spec::CONTROL_SIZE..].to_vec())
        };
        let messages = self.received(queue::CONTROL_RECEIVE);
        messages.into_iter().map(parse).collect()
    }

    pub(crate) fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
        waits
    }

    pub(crate) fn needs_reset(&mut self) -> bool {
        read(&mut self.device, mmio::STATUS) & u32::from(status::DEVICE_NEEDS_RESET) != 0
    }

    /// Waits for what the device waits for, and lets it work, until `done` or ten seconds are over.
    pub(crate) fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "in vain");
            self.turn(Duration::from_millis(10));
        }
    }

    /// Waits for what the device waits for, at most for `limit`, and lets it work. Returns whether that was sooner.
    pub(crate) fn turn(&mut self, limit: Duration) -> bool {
        let waits = self.waits();
        let mut interest = BTreeMap::new();
        let readable = waits.readable.iter().map(|fd| (*fd, EventSet::IN));
        let writable = waits.writable.iter().map(|fd| (*fd, EventSet::OUT));
        for (fd, events) in readable.chain(writable) {
            *interest.entry(fd).or_insert(EventSet::empty()) |= events;
        }
        let epoll = Epoll::new().unwrap();
        for (fd, events) in interest {
            let event = EpollEvent::new(events, 0);
            epoll.ctl(ControlOperation::Add, fd, event).unwrap();
        }
        let delay = waits.delay.unwrap_or(limit).min(limit);
        let millis = i32::try_from(delay.as_millis()).unwrap();
        let ready = epoll.wait(millis, &mut [EpollEvent::default(); 8]).unwrap();
        self.device.process_events();
        ready > 0 || waits.delay.is_some_and(|delay| delay < limit)
    }

    /// Whether the device comes to rest: waiting becomes waiting.
    pub(crate) fn rests(&mut self) -> bool {
        (0..20).any(|_| !self.turn(Duration::from_millis(10)))
    }
}
