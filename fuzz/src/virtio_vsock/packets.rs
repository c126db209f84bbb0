//! Rings that are right, packets of any kind, and programs that do what they can.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify, write};
use goldcrest_virtio::spec::{feature, mmio};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_vsock::spec::{HEADER_SIZE, cid, op, queue};
use goldcrest_virtio_vsock::{Header, MemoryHost, MemoryStream, Vsock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BUFFERS, CID, STREAMS};
use crate::saved;

const RAM: usize = 4 << 20;
const EVENTS: u64 = 0x1_0000;
const RECEIVE: u64 = 0x2_0000;
const RECEIVE_SPACE: u64 = 0x1000;
const TRANSMIT: u64 = 0x20_0000;
/// The most that a run does.
const ACTIONS: usize = 300;
/// Room of a program.
const CAPACITY: usize = 5000;

pub(super) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut play = Play::new();
    for _ in 0..ACTIONS {
        if input.is_empty() || play.act(&mut input).is_err() {
            break;
        }
        play.take_packets();
    }
    play.finish();
}

/// What the guest has told of its room, and what it has been sent.
#[derive(Default)]
struct Told {
    buf_alloc: u32,
    fwd_cnt: u32,
    sent: u32,
}

struct Play {
    memory: GuestMemoryMmap,
    device: Mmio<Vsock<MemoryHost>>,
    host: MemoryHost,
    clock: ManualClock,
    receive: DriverQueue,
    transmit: DriverQueue,
    event: DriverQueue,
    /// Buffers that the device has.
    given: u16,
    unsent: u16,
    /// Streams as the guest knows them, by its port and the host's.
    streams: BTreeMap<(u32, u32), Told>,
    programs: Vec<MemoryStream>,
    /// The host's port of the last request.
    last_port: u32,
    restores: u8,
}

fn device(
    memory: &GuestMemoryMmap,
    host: &MemoryHost,
    clock: &ManualClock,
) -> Mmio<Vsock<MemoryHost>> {
    let device = Vsock::with_limits(host.clone(), CID, STREAMS, BUFFERS).expect("possible");
    let device = device.with_clock(clock.clone());
    Mmio::new(device, memory.clone(), IrqLine::detached())
}

impl Play {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("one region");
        let (host, clock) = (MemoryHost::default(), ManualClock::default());
        host.listen(1, 2, CAPACITY);
        let [receive, transmit, event] = Self::queues(&memory);
        let mut play = Self {
            device: device(&memory, &host, &clock),
            memory,
            host,
            clock,
            receive,
            transmit,
            event,
            given: 0,
            unsent: 0,
            streams: BTreeMap::new(),
            programs: Vec::new(),
            last_port: 0,
            restores: 0,
        };
        play.start();
        play
    }

    fn queues(memory: &GuestMemoryMmap) -> [DriverQueue; 3] {
        [
            (0, queue::SIZE),
            (0x4000, queue::SIZE),
            (0x8000, queue::EVENT_SIZE),
        ]
        .map(|(at, size)| DriverQueue::new(memory, at, size))
    }

    fn start(&mut self) {
        [self.receive, self.transmit, self.event] = Self::queues(&self.memory);
        (self.given, self.unsent) = (0, 0);
        self.streams.clear();
        let queues = [&self.receive, &self.transmit, &self.event];
        initialise(
            &mut self.device,
            feature::VERSION_1 | feature::EVENT_IDX,
            &queues,
        );
        self.give_event();
    }

    fn act(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let choice: u8 = input.arbitrary()?;
        match choice & 0xf {
            0..6 => self.send(input)?,
            6 => self.give(choice >> 4, input.arbitrary()?),
            7 => {
                let program = self.host.connect(u32::from(choice >> 4), CAPACITY);
                self.programs.push(program);
                // Nobody is interested in those that were long ago.
                if self.programs.len() > 32 {
                    self.programs.remove(0);
                }
            }
            8 => self.programs.extend(self.host.accept(1)),
            9 => self.program(choice >> 4, input.arbitrary()?),
            10 => self
                .clock
                .advance(Duration::from_millis(u64::from(choice >> 4) * 700)),
            11 => self.give_event(),
            12 if choice >> 4 == 15 => self.restore(),
            13 if choice >> 4 == 15 => self.start(),
            _ => self.device.process_events(),
        }
        Ok(())
    }

    fn send(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while self.transmit.used().is_some() {
            self.unsent -= 1;
        }
        let [kind, ports, len, room]: [u8; 4] = input.arbitrary()?;
        let host_port = match ports >> 4 {
            port @ 0..8 => u32::from(port),
            back => self.last_port.wrapping_sub(u32::from(back - 8)),
        };
        let name = (u32::from(ports & 0xf), host_port);
        let sent = self.streams.get(&name).map_or(0, |told| told.sent);
        let header = Header {
            src_cid: CID + u64::from(kind == 0xfe),
            dst_cid: cid::HOST + u64::from(kind == 0xff),
            src_port: name.0,
            dst_port: name.1,
            len: u32::from(len) * 200,
            kind: if kind >= 0xf8 { kind.into() } else { 1 },
            op: u16::from(kind & 7),
            flags: u32::from(kind >> 3 & 3),
            buf_alloc: u32::from(room & 0xf) * 1500,
            fwd_cnt: match room >> 4 {
                0 => 0,
                15 => sent.wrapping_add(1),
                less => sent.saturating_sub(u32::from(less) * 100),
            },
        };
        if self.unsent >= queue::SIZE {
            return Ok(());
        }
        self.unsent += 1;
        let at = TRANSMIT;
        let bytes = header.to_bytes();
        self.memory
            .write_slice(&bytes, GuestAddress(at))
            .expect("it is RAM");
        let there = match kind {
            0xf0 => 20,
            0xf1 => 100,
            _ => 60_000,
        };
        self.transmit.add(&[Buffer::Readable(at, there)]);
        let ours = header.src_cid == CID && header.dst_cid == cid::HOST && header.kind == 1;
        if ours && there > 44 && self.unsent == 1 {
            self.note(name, &header);
        }
        notify(&mut self.device, queue::TRANSMIT);
        Ok(())
    }

    /// What a packet of the guest says, if the device takes it now.
    fn note(&mut self, name: (u32, u32), header: &Header) {
        if header.op == op::REQUEST {
            self.streams.insert(name, Told::default());
        }
        if let Some(told) = self.streams.get_mut(&name) {
            (told.buf_alloc, told.fwd_cnt) = (header.buf_alloc, header.fwd_cnt);
        }
    }

    fn give(&mut self, count: u8, len: u8) {
        for _ in 0..=count {
            if self.given == queue::SIZE {
                break;
            }
            self.given += 1;
            let slot = u64::from(self.receive.available % queue::SIZE);
            let len = 45 + u32::from(len) * 15;
            self.receive
                .add(&[Buffer::Writable(RECEIVE + slot * RECEIVE_SPACE, len)]);
        }
        notify(&mut self.device, queue::RECEIVE);
    }

    fn give_event(&mut self) {
        while self.event.used().is_some() {}
        self.event.add(&[Buffer::Writable(EVENTS, 4)]);
        notify(&mut self.device, queue::EVENT);
        // Too many, and it is not as it should be.
        if self.event.available.wrapping_sub(self.event.used_index()) >= queue::EVENT_SIZE {
            self.start_without_events();
        }
    }

    fn start_without_events(&mut self) {
        [self.receive, self.transmit, self.event] = Self::queues(&self.memory);
        (self.given, self.unsent) = (0, 0);
        self.streams.clear();
        let queues = [&self.receive, &self.transmit, &self.event];
        initialise(&mut self.device, feature::VERSION_1, &queues);
    }

    fn program(&mut self, action: u8, number: u8) {
        let Some(program) = self.programs.get(usize::from(number & 0x1f)) else {
            return;
        };
        match action {
            0..6 => program.send(&[7; 1500][..usize::from(action) * 300]),
            6..11 => drop(program.receive(usize::from(action - 5) * 1000)),
            11 => program.end_sending(),
            12 => program.end_receiving(),
            _ => program.close(),
        }
    }

    fn restore(&mut self) {
        if self.restores == 4 {
            return;
        }
        self.restores += 1;
        self.device.quiesce();
        let (host, clock) = (MemoryHost::default(), ManualClock::default());
        host.listen(1, 2, CAPACITY);
        let mut fresh = device(&self.memory, &host, &clock);
        saved::round_trip(&self.device, &mut fresh);
        (self.device, self.host, self.clock) = (fresh, host, clock);
        // It is told so; until then it may send what it likes.
        self.streams.clear();
        self.programs.clear();
    }

    /// Looks at what has come: nothing more than there is room for.
    fn take_packets(&mut self) {
        assert!(
            self.device.core().error().is_none(),
            "{:?}",
            self.device.core().error()
        );
        assert!(self.device.core().device().streams() <= STREAMS as usize);
        while let Some((head, written)) = self.receive.used() {
            self.given -= 1;
            let at = GuestAddress(RECEIVE + u64::from(head % queue::SIZE) * RECEIVE_SPACE);
            let mut bytes = [0; HEADER_SIZE];
            self.memory.read_slice(&mut bytes, at).expect("it is RAM");
            let packet = Header::from_bytes(&bytes);
            assert_eq!(written, HEADER_SIZE as u32 + packet.len);
            assert_eq!(packet.dst_cid, CID);
            assert!((op::REQUEST..=op::CREDIT_REQUEST).contains(&packet.op));
            self.take(&packet);
        }
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
    }

    fn take(&mut self, packet: &Header) {
        let name = (packet.dst_port, packet.src_port);
        match packet.op {
            op::REQUEST => {
                self.last_port = packet.src_port;
                self.streams.insert(name, Told::default());
            }
            op::RST => {
                self.streams.remove(&name);
            }
            op::RW => {
                assert!(packet.len > 0);
                if let Some(told) = self.streams.get_mut(&name) {
                    told.sent = told.sent.wrapping_add(packet.len);
                    let out = told.sent.wrapping_sub(told.fwd_cnt);
                    assert!(out <= told.buf_alloc, "{out} of {}", told.buf_alloc);
                }
            }
            _ => assert_eq!(packet.len, 0),
        }
    }

    /// Whatever has happened, a reset mends it.
    fn finish(mut self) {
        write(&mut self.device, mmio::STATUS, 0);
        assert_eq!(self.device.core().device().streams(), 0);
        self.start();
        self.give(3, 255);
        self.host.listen(2, 1, CAPACITY);
        let request = Header {
            src_cid: CID,
            dst_cid: cid::HOST,
            src_port: 77,
            dst_port: 2,
            op: op::REQUEST,
            ..Header::default()
        };
        let at = GuestAddress(TRANSMIT);
        self.memory
            .write_slice(&request.to_bytes(), at)
            .expect("it is RAM");
        self.transmit.add(&[Buffer::Readable(TRANSMIT, 44)]);
        notify(&mut self.device, queue::TRANSMIT);
        assert!(self.host.accept(2).is_some());
        assert!(self.receive.used().is_some());
    }
}
