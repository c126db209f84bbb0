//! A guest with a driver of the network device.
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
use goldcrest_virtio::driver::{self, Buffer, DriverQueue, initialise, notify, read};
use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_net::spec::{self, header, queue};
use goldcrest_virtio_net::{Loopback, Net, NetBackend, NetConfig, NetStats};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Where buffers begin, which are taken one behind the other.
pub(crate) const DATA: u64 = 0x10_0000;
pub(crate) const RAM: u64 = 32 << 20;
pub(crate) const MAC: &str = "02:00:00:00:00:01";

pub(crate) struct Guest<B> {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) device: Mmio<Net<B>>,
    pub(crate) queues: Vec<DriverQueue>,
    /// By queue and head: what the chain is of.
    buffers: Vec<Vec<Vec<Buffer>>>,
    next: u64,
    control: usize,
    watched: (Epoll, Waits),
}

/// A device with the address [`MAC`].
pub(crate) fn config() -> NetConfig {
    NetConfig {
        mac: Some(MAC.parse().unwrap()),
        ..NetConfig::default()
    }
}

/// A frame to an address, of `len` bytes without a virtio header.
pub(crate) fn frame_to(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    frame.extend((0..len.saturating_sub(14)).map(|number| (number % 251) as u8));
    frame.truncate(len);
    frame
}

/// A frame for everybody.
pub(crate) fn frame(len: usize) -> Vec<u8> {
    frame_to([0xff; 6], len)
}

/// The same behind a virtio header of zeros.
pub(crate) fn headed(frame: &[u8]) -> Vec<u8> {
    [&[0; header::SIZE], frame].concat()
}

impl Guest<Loopback> {
    /// On a network in memory that holds 16 frames each way.
    pub(crate) fn silent(features: u64) -> Self {
        Self::new(Loopback::new(16).silent(), &config(), features)
    }

    pub(crate) fn backend(&mut self) -> &mut Loopback {
        self.device.device_mut().backend_mut()
    }

    /// Gives the guest a frame from the network, and has the device look.
    pub(crate) fn arrive(&mut self, frame: &[u8]) {
        assert!(self.backend().give(&headed(frame)));
        self.device.process_events();
    }
}

impl<B: NetBackend> Guest<B> {
    /// A driver that takes these features, and has started the device.
    pub(crate) fn new(backend: B, config: &NetConfig, features: u64) -> Self {
        Self::with(Net::new(backend, config).unwrap(), features)
    }

    pub(crate) fn with(net: Net<B>, features: u64) -> Self {
        // Two regions, side by side.
        let ranges = [0, RAM / 2].map(|start| (GuestAddress(start), RAM as usize / 2));
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        let device = Mmio::new(net, memory.clone(), IrqLine::detached());
        let mut guest = Self {
            memory,
            device,
            queues: Vec::new(),
            buffers: Vec::new(),
            next: DATA,
            control: 0,
            watched: (Epoll::new().unwrap(), Waits::default()),
        };
        guest.start(features);
        guest
    }

    /// Resets the device, and starts it.
    pub(crate) fn start(&mut self, features: u64) {
        let sizes = self.device.core().spec().queue_sizes.clone();
        self.control = match features & spec::feature::MQ {
            0 => 2,
            _ => sizes.len() - 1,
        };
        self.queues.clear();
        let mut at = 0;
        for size in &sizes {
            let queue = DriverQueue::new(&self.memory, at, *size);
            at = queue.end().next_multiple_of(16);
            self.queues.push(queue);
        }
        assert!(at <= DATA);
        self.buffers = vec![vec![Vec::new(); queue::SIZE.into()]; sizes.len()];
        let queues: Vec<_> = self.queues.iter().collect();
        let features = features | feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
        initialise(&mut self.device, features, &queues);
    }

    /// Room for so many bytes, in pages of its own.
    pub(crate) fn room(&mut self, len: usize) -> u64 {
        let len = (len.max(1) as u64).next_multiple_of(4096);
        if self.next + len > RAM {
            self.next = DATA;
        }
        self.next += len;
        self.next - len
    }

    /// Makes a chain available, without a word.
    pub(crate) fn add(&mut self, queue: usize, buffers: &[Buffer]) {
        let head = self.queues[queue].add(buffers);
        self.buffers[queue][usize::from(head)] = buffers.to_vec();
    }

    pub(crate) fn notify(&mut self, queue: usize) {
        notify(&mut self.device, queue as u16);
    }

    /// A receive buffer of these parts for a pair, without a word.
    pub(crate) fn offer_room(&mut self, pair: usize, parts: &[u32]) {
        let buffers: Vec<_> = parts
            .iter()
            .map(|len| Buffer::Writable(self.room(*len as usize), *len))
            .collect();
        self.add(2 * pair, &buffers);
    }

    /// A receive buffer for the first pair, and a notification.
    pub(crate) fn give_room(&mut self, len: u32) {
        self.offer_room(0, &[len]);
        self.notify(0);
    }

    /// What has been written to receive buffers since this was last asked, one by one.
    pub(crate) fn buffers(&mut self, queue: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((head, written)) = self.queues[queue].used() {
            let mut bytes = Vec::new();
            for buffer in &self.buffers[queue][usize::from(head)] {
                if let Buffer::Writable(at, len) = buffer {
                    let mut part = vec![0; *len as usize];
                    self.memory
                        .read_slice(&mut part, GuestAddress(*at))
                        .unwrap();
                    bytes.extend(part);
                }
            }
            bytes.truncate(written as usize);
            all.push(bytes);
        }
        all
    }

    /// The frames that a pair has received since this was last asked, with their headers, put together.
    pub(crate) fn received_by(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let mut buffers = self.buffers(2 * pair).into_iter();
        let mut frames = Vec::new();
        while let Some(mut frame) = buffers.next() {
            let count = u16::from_le_bytes([frame[10], frame[11]]);
            for _ in 1..count {
                frame.extend(buffers.next().unwrap());
            }
            frames.push(frame);
        }
        frames
    }

    /// The frames of the first pair, without their headers.
    pub(crate) fn received(&mut self) -> Vec<Vec<u8>> {
        let frames = self.received_by(0).into_iter();
        frames
            .map(|mut frame| frame.split_off(header::SIZE))
            .collect()
    }

    /// Sends bytes in parts of these lengths, the last taking the rest; a header is a part of them.
    pub(crate) fn send_parts(&mut self, pair: usize, bytes: &[u8], parts: &[usize]) {
        let mut rest = bytes;
        let mut buffers = Vec::new();
        for len in parts.iter().copied().chain([usize::MAX]) {
            let (part, later) = rest.split_at(len.min(rest.len()));
            let at = self.room(part.len());
            self.memory.write_slice(part, GuestAddress(at)).unwrap();
            buffers.push(Buffer::Readable(at, part.len() as u32));
            rest = later;
        }
        self.add(2 * pair + 1, &buffers);
        self.notify(2 * pair + 1);
    }

    /// Sends a frame behind a header of zeros, by the first pair.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.send_parts(0, &headed(frame), &[]);
    }

    /// How many of the frames that a pair has sent have come back since this was last asked.
    pub(crate) fn sent(&mut self, pair: usize) -> usize {
        let queue = &mut self.queues[2 * pair + 1];
        std::iter::from_fn(|| queue.used()).count()
    }

    /// Gives a command, with this much room for the answer.
    pub(crate) fn command_with(&mut self, command: &[u8], room: u32) -> Option<u8> {
        let (at, answer) = (self.room(command.len()), self.room(1));
        self.memory.write_slice(command, GuestAddress(at)).unwrap();
        self.memory
            .write_obj(0xee_u8, GuestAddress(answer))
            .unwrap();
        let control = self.control;
        let mut buffers = vec![Buffer::Readable(at, command.len() as u32)];
        if room > 0 {
            buffers.push(Buffer::Writable(answer, room));
        }
        self.add(control, &buffers);
        self.notify(control);
        let (_, written) = self.queues[control].used()?;
        assert_eq!(written, 1);
        Some(self.memory.read_obj(GuestAddress(answer)).unwrap())
    }

    /// Gives a command. Returns the answer.
    pub(crate) fn command(&mut self, class: u8, command: u8, data: &[u8]) -> u8 {
        let command = [&[class, command], data].concat();
        self.command_with(&command, 1).unwrap()
    }

    pub(crate) fn stats(&self) -> NetStats {
        self.device.core().device().stats()
    }

    pub(crate) fn read_config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.device.core().read_config(offset, &mut bytes);
        bytes
    }

    pub(crate) fn needs_reset(&mut self) -> bool {
        read(&mut self.device, mmio::STATUS) & u32::from(status::DEVICE_NEEDS_RESET) != 0
    }

    /// Why it does.
    pub(crate) fn error(&self) -> String {
        let error = self.device.core().error();
        error.map(ToString::to_string).unwrap_or_default()
    }

    /// Chains that the device has of a queue.
    pub(crate) fn in_flight(&self, queue: u16) -> usize {
        self.device.core().queue(queue).unwrap().in_flight()
    }

    /// How far the device is in a queue.
    pub(crate) fn indexes(&self, queue: u16) -> (u16, u16) {
        driver::indexes(self.device.core().queue(queue).unwrap())
    }

    pub(crate) fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
        waits
    }

    /// Waits for what the device waits for, and lets it work, until `done` or ten seconds are over.
    pub(crate) fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "in vain");
            self.turn(Duration::from_millis(10));
        }
    }

    /// Waits for what the device waits for, at most for `limit`, and lets it work: as a loop that registers descriptors
    /// when they change, and not else.
    pub(crate) fn turn(&mut self, limit: Duration) {
        let waits = self.waits();
        let delay = waits.delay.unwrap_or(limit).min(limit);
        let descriptors = Waits {
            delay: None,
            ..waits
        };
        if descriptors != self.watched.1 {
            self.watched = (watch(&descriptors), descriptors);
        }
        let millis = i32::try_from(delay.as_millis()).unwrap();
        let events = &mut [EpollEvent::default(); 8];
        self.watched.0.wait(millis, events).unwrap();
        self.device.process_events();
    }
}

fn watch(waits: &Waits) -> Epoll {
    let mut wanted = BTreeMap::new();
    let readable = waits.readable.iter().map(|fd| (*fd, EventSet::IN));
    let writable = waits.writable.iter().map(|fd| (*fd, EventSet::OUT));
    let edge = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
    let edges = waits.edges.iter().map(|fd| (*fd, edge));
    for (fd, events) in readable.chain(writable).chain(edges) {
        *wanted.entry(fd).or_insert(EventSet::empty()) |= events;
    }
    let epoll = Epoll::new().unwrap();
    for (fd, events) in wanted {
        let event = EpollEvent::new(events, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    }
    epoll
}
