//! Packets of a socket device's stream, with a program in memory at its end.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use goldcrest_irq::IrqLine;
use goldcrest_virtio::Mmio;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
use goldcrest_virtio_vsock::spec::{HEADER_SIZE, cid, op, queue};
use goldcrest_virtio_vsock::{Backend, Event, Header, Parts, Vsock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::FEATURES;
use crate::floor::Ring;

const CID: u64 = 3;
/// Entries of each ring.
const SIZE: u16 = 64;
const RINGS: [u64; 2] = [0x10000, 0x14000];
/// Where packets' headers, payload and answers are.
const HEADER: u64 = 0x20000;
const DATA: u64 = 0x30000;
const ANSWER: u64 = 0x50000;
/// So often the driver tells how much it has taken.
const TOLD: u32 = 1000;

/// Takes bytes and overwrites what it took before, and always has others.
struct Program {
    bytes: Vec<u8>,
    token: Option<u64>,
}

impl Backend for Program {
    type Stream = ();

    fn next_event(&mut self, _: Duration) -> Option<Event<()>> {
        let token = self.token.take()?;
        Some(Event::Stream {
            token,
            readable: true,
            writable: true,
            ended: false,
            hung_up: false,
        })
    }

    fn connect(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self, (): &mut (), token: u64) -> io::Result<()> {
        self.token = Some(token);
        Ok(())
    }

    fn accepted(&mut self, (): &mut (), _: u32) {}

    fn receive(&mut self, (): &mut (), parts: Parts<'_>) -> io::Result<usize> {
        let mut bytes = self.bytes.as_slice();
        for slice in parts {
            let slice = slice?;
            slice.copy_from(bytes);
            bytes = bytes.get(slice.len()..).unwrap_or_default();
        }
        Ok(self.bytes.len() - bytes.len())
    }

    fn send(&mut self, (): &mut (), parts: Parts<'_>) -> io::Result<usize> {
        let mut done = 0;
        for slice in parts {
            let slice = slice?;
            done += slice.copy_to(&mut self.bytes[done..]);
        }
        Ok(done)
    }

    fn send_bytes(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn end_sending(&mut self, (): &mut ()) {}

    fn end_receiving(&mut self, (): &mut ()) {}
}

/// A packet with `len` bytes from the guest, its header and its payload in a buffer each, as Linux 6.1 has them.
pub fn sent(memory: &GuestMemoryMmap, len: u32) -> [Buffer; 2] {
    put(memory, HEADER, op::RW, len, 0);
    [
        Buffer::Readable(HEADER, HEADER_SIZE as u32),
        Buffer::Readable(DATA, len),
    ]
}

/// Room for a packet with `len` bytes.
pub fn received(len: u32) -> [Buffer; 2] {
    [
        Buffer::Writable(HEADER, HEADER_SIZE as u32),
        Buffer::Writable(DATA, len),
    ]
}

fn put(memory: &GuestMemoryMmap, at: u64, op: u16, len: u32, fwd_cnt: u32) {
    let header = Header {
        src_cid: CID,
        dst_cid: cid::HOST,
        src_port: 1000,
        dst_port: 52,
        op,
        len,
        buf_alloc: 1 << 31,
        fwd_cnt,
        ..Header::default()
    };
    let at = GuestAddress(at);
    memory.write_slice(&header.to_bytes(), at).unwrap();
}

/// A device with one stream, and the driver's rings.
struct Setup {
    device: Mmio<Vsock<Program>>,
    receive: DriverQueue,
    transmit: DriverQueue,
}

impl Setup {
    fn new(memory: &GuestMemoryMmap, len: u32) -> Self {
        let program = Program {
            bytes: vec![7; len as usize],
            token: None,
        };
        let device = Vsock::new(program, CID).unwrap();
        let mut device = Mmio::new(device, memory.clone(), IrqLine::detached());
        let [mut receive, mut transmit] = RINGS.map(|at| DriverQueue::new(memory, at, SIZE));
        initialise(&mut device, FEATURES, &[&receive, &transmit]);
        put(memory, ANSWER, op::REQUEST, 0, 0);
        receive.add(&[Buffer::Writable(ANSWER + 64, 64)]);
        transmit.add(&[Buffer::Readable(ANSWER, HEADER_SIZE as u32)]);
        notify(&mut device, queue::TRANSMIT);
        assert_eq!(receive.used().map(|(_, len)| len), Some(HEADER_SIZE as u32));
        device.process_events();
        Self {
            device,
            receive,
            transmit,
        }
    }
}

/// Makes every entry of a ring the same chain.
fn fill(memory: &GuestMemoryMmap, queue: &mut DriverQueue, buffers: &[Buffer]) {
    let head = queue.describe(buffers);
    for slot in 0..u64::from(SIZE) {
        let at = GuestAddress(queue.layout.available + 4 + 2 * slot);
        memory.write_obj(head, at).unwrap();
    }
}

/// Packets from the guest, and what tells it of room.
pub fn run_transmit(memory: &GuestMemoryMmap, len: u32, count: u32) -> u128 {
    let mut setup = Setup::new(memory, len);
    fill(memory, &mut setup.transmit, &sent(memory, len));
    fill(memory, &mut setup.receive, &[Buffer::Writable(ANSWER, 64)]);
    let transmit = Ring::new(memory, &setup.transmit.layout);
    let receive = Ring::new(memory, &setup.receive.layout);
    let begun = Instant::now();
    for index in 2..=count + 1 {
        receive.offer(u32::from(receive.used_index()) + 1);
        transmit.offer(index);
        notify(black_box(&mut setup.device), queue::TRANSMIT);
    }
    let took = begun.elapsed().as_nanos();
    assert_eq!(transmit.used_index(), transmit.available_index());
    took
}

/// Packets to the guest, which now and then tells of room.
pub fn run_receive(memory: &GuestMemoryMmap, len: u32, count: u32) -> u128 {
    let mut setup = Setup::new(memory, len);
    fill(memory, &mut setup.receive, &received(len));
    let told = [Buffer::Readable(ANSWER, HEADER_SIZE as u32)];
    fill(memory, &mut setup.transmit, &told);
    let transmit = Ring::new(memory, &setup.transmit.layout);
    let receive = Ring::new(memory, &setup.receive.layout);
    let begun = Instant::now();
    for index in 2..=count + 1 {
        if index % TOLD == 0 {
            let taken = (index - 2).wrapping_mul(len);
            put(memory, ANSWER, op::CREDIT_UPDATE, 0, taken);
            transmit.offer(u32::from(transmit.used_index()) + 1);
            notify(&mut setup.device, queue::TRANSMIT);
        }
        receive.offer(index);
        notify(black_box(&mut setup.device), queue::RECEIVE);
    }
    let took = begun.elapsed().as_nanos();
    assert_eq!(receive.used_index(), receive.available_index());
    took
}
