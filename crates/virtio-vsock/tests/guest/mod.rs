//! A guest with a driver of the socket device.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

pub(crate) mod sockets;

use std::time::{Duration, Instant};

use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, read};
use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_vsock::spec::{HEADER_SIZE, cid, op, queue};
use goldcrest_virtio_vsock::{Backend, Header, MemoryHost, Vsock, VsockConfig};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

pub(crate) const CID: u64 = 7;
pub(crate) const FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | 0b101;
/// Where the queues, buffers for events, for receiving and for sending are.
const QUEUES: u64 = 0;
const EVENTS: u64 = 0x1_0000;
const RECEIVE: u64 = 0x10_0000;
const TRANSMIT: u64 = 0x200_0000;
/// Room for a buffer of each kind.
const RECEIVE_SPACE: u64 = 0x1_1000;
const TRANSMIT_SPACE: u64 = 0x5_0000;
const RAM: usize = 0x800_0000;

/// A packet as the guest gets it.
pub(crate) type Packet = (Header, Vec<u8>);

pub(crate) struct Guest<B: Backend> {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) device: Mmio<Vsock<B>>,
    pub(crate) receive: DriverQueue,
    pub(crate) transmit: DriverQueue,
    pub(crate) event: DriverQueue,
    /// How many receive buffers there are, and the bytes of each.
    given: u16,
    buffer: u32,
    /// Packets that the device has not taken.
    pub(crate) unsent: u16,
}

impl Guest<MemoryHost> {
    /// A host in memory, and a clock that stands still.
    pub(crate) fn in_memory() -> (Self, MemoryHost, ManualClock) {
        Self::in_memory_with(4096)
    }

    pub(crate) fn in_memory_with(streams: u32) -> (Self, MemoryHost, ManualClock) {
        let (host, clock) = (MemoryHost::default(), ManualClock::default());
        let device = Vsock::with_limits(host.clone(), CID, streams, 64 << 20).unwrap();
        let guest = Self::new(device.with_clock(clock.clone()));
        (guest, host, clock)
    }
}

impl<B: Backend> Guest<B> {
    /// A driver that has started the device, and has given it 64 buffers of 4 KiB to receive in, and 8 for events.
    pub(crate) fn new(device: Vsock<B>) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let device = Mmio::new(device, memory.clone(), IrqLine::detached());
        let mut guest = Self::bare(memory, device);
        guest.start(FEATURES);
        guest.give(64, 4096);
        guest.give_events(8);
        guest
    }

    /// Nothing is set up yet.
    pub(crate) fn bare(memory: GuestMemoryMmap, device: Mmio<Vsock<B>>) -> Self {
        let [receive, transmit, event] = Self::lay_out(&memory);
        Self {
            memory,
            device,
            receive,
            transmit,
            event,
            given: 0,
            buffer: 0,
            unsent: 0,
        }
    }

    fn lay_out(memory: &GuestMemoryMmap) -> [DriverQueue; 3] {
        let mut at = QUEUES;
        [queue::SIZE, queue::SIZE, queue::EVENT_SIZE].map(|size| {
            let queue = DriverQueue::new(memory, at, size);
            at = queue.end().next_multiple_of(16);
            queue
        })
    }

    /// Resets the device, and starts it.
    pub(crate) fn start(&mut self, features: u64) {
        [self.receive, self.transmit, self.event] = Self::lay_out(&self.memory);
        (self.given, self.unsent) = (0, 0);
        let queues = [&self.receive, &self.transmit, &self.event];
        initialise(&mut self.device, features, &queues);
    }

    /// Gives buffers to receive in, and notifies.
    pub(crate) fn give(&mut self, count: u16, len: u32) {
        self.buffer = len;
        for _ in 0..count {
            let at = RECEIVE + u64::from(self.given) * RECEIVE_SPACE;
            self.receive.add(&[Buffer::Writable(at, len)]);
            self.given += 1;
        }
        notify(&mut self.device, queue::RECEIVE);
    }

    pub(crate) fn give_events(&mut self, count: u16) {
        for number in 0..count {
            let at = EVENTS + 16 * u64::from(number);
            self.event.add(&[Buffer::Writable(at, 4)]);
        }
        notify(&mut self.device, queue::EVENT);
    }

    /// The packets that have come. Their buffers are kept.
    pub(crate) fn take_kept(&mut self) -> Vec<(u16, Packet)> {
        let mut all = Vec::new();
        while let Some((head, written)) = self.receive.used() {
            let at = RECEIVE + u64::from(head) * RECEIVE_SPACE;
            let mut bytes = vec![0; written as usize];
            self.memory
                .read_slice(&mut bytes, GuestAddress(at))
                .unwrap();
            let payload = bytes.split_off(HEADER_SIZE);
            let header = Header::from_bytes(&bytes.try_into().unwrap());
            assert_eq!(header.len as usize, payload.len());
            assert_eq!(header.dst_cid, CID);
            all.push((head, (header, payload)));
        }
        all
    }

    /// The packets that have come. Their buffers are given again, one notification for all.
    pub(crate) fn packets(&mut self) -> Vec<Packet> {
        let kept = self.take_kept();
        if kept.is_empty() {
            return Vec::new();
        }
        for (head, _) in &kept {
            self.receive.offer(*head);
        }
        notify(&mut self.device, queue::RECEIVE);
        kept.into_iter().map(|(_, packet)| packet).collect()
    }

    /// What came, as long as something comes.
    pub(crate) fn all_packets(&mut self) -> Vec<Packet> {
        let mut all = Vec::new();
        loop {
            let packets = self.packets();
            if packets.is_empty() {
                return all;
            }
            all.extend(packets);
        }
    }

    /// The only packet that has come.
    pub(crate) fn packet(&mut self) -> Packet {
        let mut packets = self.all_packets();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    /// The `op`s of the packets that have come.
    pub(crate) fn ops(&mut self) -> Vec<u16> {
        let packets = self.all_packets();
        packets.iter().map(|(header, _)| header.op).collect()
    }

    /// Which events have come. Their buffers are not given again.
    pub(crate) fn events(&mut self) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some((head, written)) = self.event.used() {
            assert_eq!(written, 4);
            let at = GuestAddress(EVENTS + 16 * u64::from(head));
            all.push(self.memory.read_obj(at).unwrap());
        }
        all
    }

    /// Sends a packet as it is, its header and its payload in a buffer each, without a word.
    pub(crate) fn put(&mut self, header: &Header, payload: &[u8]) {
        while self.transmit.used().is_some() {
            self.unsent -= 1;
        }
        assert!(self.unsent < queue::SIZE / 2, "the ring is full");
        self.unsent += 1;
        let slot = u64::from(self.transmit.available % (queue::SIZE / 2));
        let at = TRANSMIT + slot * TRANSMIT_SPACE;
        let bytes = header.to_bytes();
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        let data = at + 4096;
        self.memory
            .write_slice(payload, GuestAddress(data))
            .unwrap();
        let len = u32::try_from(payload.len()).unwrap();
        let buffers = [
            Buffer::Readable(at, HEADER_SIZE as u32),
            Buffer::Readable(data, len),
        ];
        let count = if payload.is_empty() { 1 } else { 2 };
        self.transmit.add(&buffers[..count]);
    }

    /// Sends a packet, and notifies.
    pub(crate) fn send(&mut self, header: &Header, payload: &[u8]) {
        self.put(header, payload);
        notify(&mut self.device, queue::TRANSMIT);
    }

    /// How many packets the device has not taken.
    pub(crate) fn waiting(&mut self) -> u16 {
        while self.transmit.used().is_some() {
            self.unsent -= 1;
        }
        self.unsent
    }

    pub(crate) fn ignored(&self) -> u64 {
        self.device.core().device().ignored()
    }

    pub(crate) fn streams(&self) -> usize {
        self.device.core().device().streams()
    }

    pub(crate) fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
        waits
    }

    pub(crate) fn needs_reset(&mut self) -> bool {
        read(&mut self.device, mmio::STATUS) & u32::from(status::DEVICE_NEEDS_RESET) != 0
    }

    /// Waits for what the device waits for, and lets it work, until `done` or a minute is over.
    pub(crate) fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < Duration::from_secs(60), "in vain");
            self.turn(Duration::from_millis(10));
        }
    }

    /// Waits for what the device waits for, at most for `limit`, and lets it work. Returns whether that was sooner.
    pub(crate) fn turn(&mut self, limit: Duration) -> bool {
        let waits = self.waits();
        let epoll = Epoll::new().unwrap();
        for fd in &waits.readable {
            let event = EpollEvent::new(EventSet::IN, 0);
            epoll.ctl(ControlOperation::Add, *fd, event).unwrap();
        }
        let delay = waits.delay.unwrap_or(limit).min(limit);
        let millis = i32::try_from(delay.as_micros().div_ceil(1000)).unwrap();
        let ready = epoll.wait(millis, &mut [EpollEvent::default(); 8]).unwrap();
        if ready > 0 || waits.delay.is_some_and(|due| due <= delay) {
            self.device.process_events();
        }
        ready > 0 || waits.delay.is_some_and(|delay| delay < limit)
    }

    /// Whether the device comes to rest: waiting becomes waiting.
    pub(crate) fn rests(&mut self) -> bool {
        (0..50).any(|_| !self.turn(Duration::from_millis(5)))
    }
}

/// A packet of a stream between a port of the guest's and one of the host's, with 256 KiB of room.
pub(crate) fn header(op: u16, guest_port: u32, host_port: u32) -> Header {
    Header {
        src_cid: CID,
        dst_cid: cid::HOST,
        src_port: guest_port,
        dst_port: host_port,
        op,
        buf_alloc: 256 << 10,
        ..Header::default()
    }
}

/// A packet with payload.
pub(crate) fn data(guest_port: u32, host_port: u32, payload: &[u8]) -> Header {
    Header {
        len: payload.len() as u32,
        ..header(op::RW, guest_port, host_port)
    }
}

/// A device with Unix sockets at `vsock` in a folder.
pub(crate) fn unix(folder: &std::path::Path) -> VsockConfig {
    VsockConfig::new(CID, folder.join("vsock"))
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}
