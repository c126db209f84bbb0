//! A guest with a driver of the disk, and a disk that does what a test says.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use goldcrest_bus::Device;
use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{self, Buffer, DriverQueue};
use goldcrest_virtio::spec::{mmio, status};
use goldcrest_virtio::{Mmio, Waits};
use goldcrest_virtio_blk::{Backend, Block, BlockConfig, Operation, Start};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest RAM ends here.
pub const RAM: u64 = 1 << 20;
/// Where tests put data.
pub const DATA: u64 = 0x8_0000;
const HEADERS: u64 = 0x6_0000;
const STATUSES: u64 = 0x7_0000;
const QUEUES: u64 = 0x2000;
/// What a status byte is before it is written.
const UNWRITTEN: u8 = 0xee;

/// A guest that drives a disk.
pub struct Guest<B> {
    pub device: Mmio<Block<B>>,
    pub memory: GuestMemoryMmap,
    pub queues: Vec<DriverQueue>,
    /// By queue and head: where the status byte is.
    statuses: BTreeMap<(u16, u16), u64>,
    requests: u64,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub head: u16,
    pub written: u32,
    pub status: u8,
}

pub fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
}

impl<B: Backend> Guest<B> {
    /// All features are agreed on, one queue.
    pub fn new(backend: B) -> Self {
        Self::with(Block::new(backend, &BlockConfig::default()).unwrap(), 0)
    }

    pub fn configured(backend: B, config: &BlockConfig) -> Self {
        Self::with(Block::new(backend, config).unwrap(), 0)
    }

    /// All features but `without` are agreed on.
    pub fn with(block: Block<B>, without: u64) -> Self {
        let memory = memory();
        let mut guest = Self {
            device: Mmio::new(block, memory.clone(), IrqLine::detached()),
            memory,
            queues: Vec::new(),
            statuses: BTreeMap::new(),
            requests: 0,
        };
        guest.initialise(without);
        guest
    }

    /// Resets the device and begins anew.
    pub fn initialise(&mut self, without: u64) {
        let features = driver::offered_features(&mut self.device) & !without;
        let mut queues = Vec::new();
        for index in 0_u16.. {
            driver::write(&mut self.device, mmio::QUEUE_SEL, index.into());
            let size = driver::read(&mut self.device, mmio::QUEUE_SIZE_MAX) as u16;
            if size == 0 {
                break;
            }
            let at = QUEUES + 0x8000 * u64::from(index);
            queues.push(DriverQueue::new(&self.memory, at, size));
        }
        self.queues = queues;
        let queues: Vec<_> = self.queues.iter().collect();
        driver::initialise(&mut self.device, features, &queues);
        self.statuses.clear();
    }

    /// Writes a header somewhere.
    pub fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let at = HEADERS + 16 * (self.requests % 1024);
        self.requests += 1;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.write(at, &bytes);
        at
    }

    /// Makes a request available by a queue, in descriptors of one's own.
    pub fn offer(&mut self, queue: u16, buffers: &[Buffer], status_at: u64) -> u16 {
        self.write(status_at, &[UNWRITTEN]);
        let head = self.queues[usize::from(queue)].add(buffers);
        self.statuses.insert((queue, head), status_at);
        head
    }

    /// Makes a request available, with descriptors for header, data and status.
    pub fn submit(&mut self, queue: u16, kind: u32, sector: u64, data: &[Buffer]) -> u16 {
        let header = self.header(kind, sector);
        let status_at = STATUSES + self.requests % 1024;
        let mut buffers = vec![Buffer::Readable(header, 16)];
        buffers.extend(data);
        buffers.push(Buffer::Writable(status_at, 1));
        self.offer(queue, &buffers, status_at)
    }

    pub fn notify(&mut self, queue: u16) {
        driver::notify(&mut self.device, queue);
    }

    /// What has been answered by a queue.
    pub fn answers(&mut self, queue: u16) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some((head, written)) = self.queues[usize::from(queue)].used() {
            let status_at = self.statuses[&(queue, head)];
            answers.push(Answer {
                head,
                written,
                status: self.read(status_at, 1)[0],
            });
        }
        answers
    }

    /// Makes one request by the first queue, and waits for the answer: the status and the bytes that were written.
    pub fn run(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let head = self.submit(0, kind, sector, data);
        self.notify(0);
        let answer = self.wait(0, 1)[0];
        assert_eq!(answer.head, head);
        (answer.status, answer.written)
    }

    /// Does for the device what it waits for, until it has answered `count` requests of a queue.
    pub fn wait(&mut self, queue: u16, count: usize) -> Vec<Answer> {
        let mut answers = self.answers(queue);
        for _ in 0..1000 {
            if answers.len() >= count {
                break;
            }
            self.turn();
            answers.extend(self.answers(queue));
        }
        assert_eq!(answers.len(), count);
        answers
    }

    /// Waits as the device asks for, and calls it.
    pub fn turn(&mut self) {
        let waits = self.waits();
        assert!(!waits.is_empty(), "a device that waits for nothing");
        let event = self.disk().event_fd();
        let fds: Vec<_> = event.iter().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(waits.readable, fds);
        let mut fds: Vec<_> = event.into_iter().map(readable).collect();
        let delay = waits.delay.unwrap_or(Duration::from_secs(10));
        let delay = PollTimeout::try_from(delay).unwrap();
        let ready = poll(&mut fds, delay).unwrap();
        assert!(ready > 0 || waits.delay.is_some(), "nothing for too long");
        self.device.process_events();
    }

    pub fn waits(&self) -> Waits {
        let mut waits = Waits::default();
        self.device.waits(&mut waits);
        waits
    }

    pub fn disk(&self) -> &B {
        self.device.core().device().backend()
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    pub fn needs_reset(&mut self) -> bool {
        let bits = driver::read(&mut self.device, mmio::STATUS);
        bits & u32::from(status::DEVICE_NEEDS_RESET) != 0
    }

    pub fn config<const N: usize>(&mut self, at: usize) -> [u8; N] {
        let mut data = [0xff; N];
        self.device.read(mmio::CONFIG + at as u64, &mut data);
        data
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// Sectors with a number in every one.
pub fn numbered(sectors: usize) -> Vec<u8> {
    (1..=sectors)
        .flat_map(|n| [n as u8; 512])
        .collect::<Vec<_>>()
}

/// A disk that does what a test says, and says what was asked of it.
#[derive(Clone, Default)]
pub struct ScriptedDisk(Arc<Mutex<Script>>);

#[derive(Default)]
pub struct Script {
    /// What was asked, in order.
    pub calls: Vec<String>,
    /// Operations stay under way until [`Script::end`].
    pub pending: bool,
    /// Tokens that are under way.
    pub under_way: Vec<u32>,
    /// The most that can be under way, if there is a limit.
    pub room: Option<usize>,
    /// How operations end, if not well: by their kind's name.
    pub errors: BTreeMap<&'static str, i32>,
    /// The host is short of something.
    pub short: bool,
    /// Waiting fails.
    pub cannot_wait: bool,
    ended: Vec<(u32, Result<(), i32>)>,
}

impl ScriptedDisk {
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }
}

impl Script {
    /// Ends an operation that is under way, by its number in the order of their starts.
    pub fn end(&mut self, number: usize, result: Result<(), i32>) {
        let token = self.under_way.remove(number);
        self.ended.push((token, result));
    }

    fn take_ended(&mut self) -> Vec<(u32, io::Result<()>)> {
        let result = |(token, result): (u32, Result<(), i32>)| {
            (token, result.map_err(io::Error::from_raw_os_error))
        };
        self.ended.drain(..).map(result).collect()
    }
}

impl Backend for ScriptedDisk {
    fn capacity(&self) -> u64 {
        1 << 20
    }

    fn read_only(&self) -> bool {
        false
    }

    fn attach(&mut self, _memory: &GuestMemoryMmap, _depth: u32) {}

    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        let mut script = self.script();
        let (name, durability) = match *operation {
            Operation::Read { .. } => ("read", None),
            Operation::Write { durability, .. } => ("write", Some(durability)),
            Operation::Flush => ("flush", None),
            Operation::Discard { .. } => ("discard", None),
            Operation::WriteZeroes { durability, .. } => ("zero", Some(durability)),
        };
        if script
            .room
            .is_some_and(|room| script.under_way.len() >= room)
        {
            return Start::Full;
        }
        let durable = durability == Some(goldcrest_memory::io::Durability::WriteThrough);
        let call = format!("{name}{}", if durable { " through" } else { "" });
        script.calls.push(call);
        if script.pending {
            script.under_way.push(token);
            return Start::Pending;
        }
        let error = script.errors.get(name).copied();
        Start::Done(error.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))))
    }

    fn submit(&mut self) -> bool {
        !self.script().short
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        let ended = self.script().take_ended();
        ended
            .into_iter()
            .for_each(|(token, end)| complete(token, end));
        true
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        if self.script().cannot_wait {
            return Err(io::ErrorKind::Other.into());
        }
        self.script().calls.push("wait".into());
        while !self.script().under_way.is_empty() {
            self.script().end(0, Ok(()));
        }
        self.completions(complete);
        Ok(())
    }

    fn reset(&mut self) {
        let mut script = self.script();
        script.calls.push("reset".into());
        script.under_way.clear();
        script.ended.clear();
    }
}
