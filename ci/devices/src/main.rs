//! Requests to a virtio device, or the same bytes moved by a bare loop over the ring: `devices NAME COUNT`.
//!
//! Prints the nanoseconds of all COUNT requests. `ci/bench-devices` counts the instructions. The driver costs both the
//! same, and next to nothing: the chain lies in the ring once, and for each request one index is advanced.

mod floor;
mod sockets;

use std::hint::black_box;
use std::time::Instant;

use goldcrest_bus::{Bus, Range, shared};
use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, negotiate, notify, set_up, start};
use goldcrest_virtio::spec::{feature, mmio};
use goldcrest_virtio::{Features, Mmio, Ram, Segment, VirtioDevice, Waits};
use goldcrest_virtio_blk::{Block, BlockConfig, MemoryDisk};
use goldcrest_virtio_console::{Console, PortBackend, PortConfig};
use goldcrest_virtio_net::{Header, Net, NetBackend, NetConfig, gather, scatter};
use goldcrest_virtio_rng::{Entropy, Source};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::floor::Ring;

const RAM: usize = 16 << 20;
const RING: u64 = 0x10000;
const HEADER: u64 = 0x20000;
const DATA: u64 = 0x30000;
const STATUS: u64 = 0x40000;
const BLOCK: u32 = 4096;
/// What Linux asks its entropy source for at a time.
const ENTROPY: u32 = 64;
/// A line of output.
const OUTPUT: u32 = 64;
/// The queue for it, and for a network's frames from the guest.
const TRANSMIT: u16 = 1;
/// The queue for a network's frames to the guest.
const RECEIVE: u16 = 0;
/// Bytes of the header that precedes each of them.
const NET_HEADER: usize = 12;
/// A receive buffer for frames of 1,500 bytes.
const NET_ROOM: u32 = 1526;
/// The longest frame that a network here has, with its header.
const NET_FRAME: usize = 2048;
/// Bytes of a stream in a packet: as many as drivers put in one.
const PAYLOAD: u32 = 64 << 10;
/// As many entries as the smallest of the queues has.
const SIZE: u16 = 64;
const DISK: usize = 1 << 20;
const FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX;

/// Fills with what it has: moves bytes, as a source must at least.
struct Pattern([u8; 64]);

impl Source for Pattern {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        for chunk in bytes.chunks_mut(self.0.len()) {
            chunk.copy_from_slice(&self.0[..chunk.len()]);
        }
        Ok(())
    }
}

/// Takes output and overwrites what it took before.
struct Sink([u8; 64]);

impl PortBackend for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = bytes.len().min(self.0.len());
        self.0[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

/// A network in memory: it takes a frame and overwrites what it took before, and always has another frame.
struct Network {
    sent: [u8; NET_FRAME],
    frame: Vec<u8>,
}

impl NetBackend for Network {
    fn features(&self) -> u64 {
        0
    }

    fn start(&mut self, _: Features, _: u16) -> std::io::Result<()> {
        Ok(())
    }

    fn send(
        &mut self,
        _: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> std::io::Result<()> {
        let (first, rest) = self.sent.split_at_mut(NET_HEADER);
        first.copy_from_slice(&header.0);
        gather(ram, frame, rest).map_err(std::io::Error::other)?;
        Ok(())
    }

    fn receive(&mut self, _: u16, ram: Ram<'_>, room: &[Segment]) -> std::io::Result<usize> {
        scatter(ram, room, 0, &self.frame).map_err(std::io::Error::other)?;
        Ok(self.frame.len())
    }

    fn discard(&mut self, _: u16) {}

    fn waits(&self, _: u16, _: bool, _: bool, _: &mut Waits) {}

    fn reset(&mut self) {}
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("devices NAME COUNT");
    let count = arguments.next().and_then(|count| count.parse().ok());
    let count: u32 = count.expect("devices NAME COUNT");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    let mut bytes = vec![1; DISK];
    let mut sink = [0; 64];
    let mut frame = [0; NET_FRAME];
    let serve_block = |ring: &mut Ring| ring.serve_block(&mut bytes);
    let nanoseconds = match name.as_str() {
        "blk-read" => run(&memory, disk(), 0, &block(0), count),
        "blk-write" => run(&memory, disk(), 0, &block(1), count),
        "rng" => run(
            &memory,
            Entropy::new(Pattern([7; 64])),
            0,
            &entropy(),
            count,
        ),
        "console" => run(&memory, console(), TRANSMIT, &output(), count),
        "net-tx-64" => run(&memory, network(64), TRANSMIT, &sent(64), count),
        "net-tx-1500" => run(&memory, network(1500), TRANSMIT, &sent(1500), count),
        "net-rx-64" => run(&memory, network(64), RECEIVE, &received(), count),
        "net-rx-1500" => run(&memory, network(1500), RECEIVE, &received(), count),
        "vsock-tx" => sockets::run_transmit(&memory, PAYLOAD, count),
        "vsock-rx" => sockets::run_receive(&memory, PAYLOAD, count),
        "notify" => run_notify(&memory, count),
        "blk-read-floor" => run_floor(&memory, &block(0), count, serve_block),
        "blk-write-floor" => run_floor(&memory, &block(1), count, serve_block),
        "rng-floor" => run_floor(&memory, &entropy(), count, |ring| {
            ring.serve_entropy(&[7; 64])
        }),
        "console-floor" => run_floor(&memory, &output(), count, |ring| {
            ring.serve_console(black_box(&mut sink));
        }),
        "net-tx-64-floor" => run_floor(&memory, &sent(64), count, |ring| {
            ring.serve_transmit(black_box(&mut frame));
        }),
        "net-tx-1500-floor" => run_floor(&memory, &sent(1500), count, |ring| {
            ring.serve_transmit(black_box(&mut frame));
        }),
        "net-rx-64-floor" => run_floor(&memory, &received(), count, |ring| {
            ring.serve_receive(black_box(&frame[..NET_HEADER + 64]));
        }),
        "net-rx-1500-floor" => run_floor(&memory, &received(), count, |ring| {
            ring.serve_receive(black_box(&frame[..NET_HEADER + 1500]));
        }),
        "vsock-tx-floor" => run_floor(&memory, &sockets::sent(&memory, PAYLOAD), count, |ring| {
            ring.serve_stream_out(black_box(&mut bytes));
        }),
        "vsock-rx-floor" => run_floor(&memory, &sockets::received(PAYLOAD), count, |ring| {
            ring.serve_stream_in(black_box(&bytes[..PAYLOAD as usize]));
        }),
        "notify-floor" => run_floor(&memory, &[], count, Ring::look),
        _ => panic!("there is no {name}"),
    };
    println!("{nanoseconds}");
}

/// A request of type `kind`, with its header in memory.
fn block(kind: u32) -> [Buffer; 3] {
    let data = match kind {
        0 => Buffer::Writable(DATA, BLOCK),
        _ => Buffer::Readable(DATA, BLOCK),
    };
    [
        Buffer::Readable(HEADER + 16 * u64::from(kind), 16),
        data,
        Buffer::Writable(STATUS, 1),
    ]
}

fn entropy() -> [Buffer; 1] {
    [Buffer::Writable(DATA, ENTROPY)]
}

fn output() -> [Buffer; 1] {
    [Buffer::Readable(DATA, OUTPUT)]
}

/// A frame of `len` bytes behind its header, as Linux has them: in one buffer.
fn sent(len: u32) -> [Buffer; 1] {
    [Buffer::Readable(DATA, NET_HEADER as u32 + len)]
}

fn received() -> [Buffer; 1] {
    [Buffer::Writable(DATA, NET_ROOM)]
}

fn network(len: usize) -> Net<Network> {
    let network = Network {
        sent: [0; NET_FRAME],
        frame: vec![7; NET_HEADER + len],
    };
    Net::new(network, &NetConfig::default()).unwrap()
}

fn console() -> Console {
    Console::new(vec![PortConfig::console(Sink([0; 64]))]).unwrap()
}

fn disk() -> Block<MemoryDisk> {
    Block::new(MemoryDisk::new(vec![1; DISK]), &BlockConfig::default()).unwrap()
}

/// A queue whose every entry is the same chain.
fn queue(memory: &GuestMemoryMmap, buffers: &[Buffer]) -> DriverQueue {
    for kind in 0..2_u32 {
        let at = GuestAddress(HEADER + 16 * u64::from(kind));
        memory.write_obj(kind, at).unwrap();
    }
    let mut queue = DriverQueue::new(memory, RING, SIZE);
    if !buffers.is_empty() {
        let head = queue.describe(buffers);
        for slot in 0..u64::from(SIZE) {
            let at = GuestAddress(queue.layout.available + 4 + 2 * slot);
            memory.write_obj(head, at).unwrap();
        }
    }
    queue
}

fn run<D: VirtioDevice>(
    memory: &GuestMemoryMmap,
    device: D,
    number: u16,
    buffers: &[Buffer],
    count: u32,
) -> u128 {
    let queue = queue(memory, buffers);
    let mut device = Mmio::new(device, memory.clone(), IrqLine::detached());
    assert!(negotiate(&mut device, FEATURES));
    set_up(&mut device, number, &queue.layout);
    start(&mut device);
    let ring = Ring::new(memory, &queue.layout);
    let begun = Instant::now();
    for index in 1..=count {
        ring.offer(index);
        notify(black_box(&mut device), number);
    }
    let took = begun.elapsed().as_nanos();
    assert_eq!(
        ring.used_index(),
        ring.available_index(),
        "not all were served"
    );
    took
}

/// A notification of a queue that has nothing new, from the bus on.
fn run_notify(memory: &GuestMemoryMmap, count: u32) -> u128 {
    let queue = queue(memory, &[]);
    let mut device = Mmio::new(disk(), memory.clone(), IrqLine::detached());
    initialise(&mut device, FEATURES, &[&queue]);
    let mut bus = Bus::new("memory");
    for (number, name) in (0_u64..).zip(["one", "two", "three", "four"]) {
        let other = Mmio::new(disk(), memory.clone(), IrqLine::detached());
        let range = Range::new(0x1000 * number, 0x1000).unwrap();
        bus.add(name, range, shared(other)).unwrap();
    }
    let range = Range::new(0x10000, 0x1000).unwrap();
    bus.add("disk", range, shared(device)).unwrap();
    let begun = Instant::now();
    for _ in 0..count {
        let _ = black_box(&bus).write(0x10000 + mmio::QUEUE_NOTIFY, &[0; 4]);
    }
    begun.elapsed().as_nanos()
}

fn run_floor(
    memory: &GuestMemoryMmap,
    buffers: &[Buffer],
    count: u32,
    mut serve: impl FnMut(&mut Ring),
) -> u128 {
    let queue = queue(memory, buffers);
    let mut ring = Ring::new(memory, &queue.layout);
    let begun = Instant::now();
    for index in 1..=count {
        if !buffers.is_empty() {
            ring.offer(index);
        }
        serve(black_box(&mut ring));
    }
    let took = begun.elapsed().as_nanos();
    assert_eq!(
        ring.used_index(),
        ring.available_index(),
        "not all were served"
    );
    took
}
