//! A guest that makes hypercalls, and a host that is played.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::{Capture, Output};
use goldcrest_memory::io::Segment;
use goldcrest_solo5::{Attached, Host, Hypercalls, Link, Net, Storage, Wake};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const RAM: u64 = 0x20_0000;
/// Where the guest has its arguments.
pub const ARG: u64 = 0x11_0000;
/// Where the guest has its data.
pub const DATA: u64 = 0x12_0000;
/// What the guest cannot write: low memory, and its code.
pub const TEXT: u64 = 0x10_0000;

/// A clock that only waiting moves.
#[derive(Debug, Clone, Default)]
pub struct Time(pub Arc<Mutex<Script>>);

#[derive(Debug, Default)]
pub struct Script {
    pub now: Duration,
    pub stopped: bool,
    /// What each wait takes at most, and how it ends; then it takes as long as was asked for.
    pub waits: VecDeque<(Duration, Result<Wake, io::ErrorKind>)>,
    /// How long each was to be, and for how many descriptors.
    pub asked: Vec<(Duration, usize)>,
}

impl Host for Time {
    fn wall_clock(&self) -> Duration {
        Duration::from_nanos(1_234_567_890_123_456_789)
    }

    fn now(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    fn is_stopped(&self) -> bool {
        self.0.lock().unwrap().stopped
    }

    fn wait(&mut self, readable: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Wake> {
        let mut script = self.0.lock().unwrap();
        script.asked.push((timeout, readable.len()));
        let next = script.waits.pop_front();
        let (most, end) = next.unwrap_or((Duration::MAX, Ok(Wake::Look)));
        script.now = script.now.saturating_add(timeout.min(most));
        end.map_err(io::Error::from)
    }
}

/// A network that keeps what it is sent, and gives what it is given.
#[derive(Debug, Clone, Default)]
pub struct Wire(pub Arc<Mutex<Frames>>);

#[derive(Debug, Default)]
pub struct Frames {
    pub sent: Vec<Vec<u8>>,
    pub coming: VecDeque<Vec<u8>>,
    pub fails: Option<io::ErrorKind>,
    pub due: Option<Duration>,
}

impl Link for Wire {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut frames = self.0.lock().unwrap();
        if let Some(kind) = frames.fails {
            return Err(kind.into());
        }
        frames.sent.push(frame.to_vec());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut frames = self.0.lock().unwrap();
        if let Some(kind) = frames.fails {
            return Err(kind.into());
        }
        let Some(frame) = frames.coming.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let len = frame.len().min(buffer.len());
        buffer[..len].copy_from_slice(&frame[..len]);
        Ok(len)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn timeout(&self) -> Option<Duration> {
        self.0.lock().unwrap().due
    }
}

/// A disk in memory.
#[derive(Debug, Clone)]
pub struct Bytes4K(pub Arc<Mutex<Vec<u8>>>);

impl Storage for Bytes4K {
    fn capacity(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn block_size(&self) -> u16 {
        512
    }

    fn read(&mut self, memory: &GuestMemoryMmap, to: Segment, offset: u64) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let part = &bytes[from..from + to.len as usize];
        memory.write_slice(part, GuestAddress(to.address)).unwrap();
        Ok(())
    }

    fn write(&mut self, memory: &GuestMemoryMmap, from: Segment, offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        if bytes.last() == Some(&0xee) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let to = usize::try_from(offset).unwrap();
        let part = &mut bytes[to..to + from.len as usize];
        memory.read_slice(part, GuestAddress(from.address)).unwrap();
        Ok(())
    }
}

pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub hypercalls: Hypercalls<Time>,
    pub console: Capture,
    pub time: Time,
    pub disk: Bytes4K,
    /// Those of handles 2 and 5.
    pub wires: [Wire; 2],
    pub said: Arc<Mutex<Vec<String>>>,
}

impl Guest {
    /// A disk of 8 blocks at handle 1, networks at handles 2 and 5.
    pub fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let (output, console) = Output::capture();
        let time = Time::default();
        let disk = Bytes4K(Arc::new(Mutex::new(vec![0xdd; 4096])));
        let wires = [Wire::default(), Wire::default()];
        let [first, second] = wires.clone();
        let net = |wire: Wire| Attached::Net(Net::new(wire, 1500));
        let devices = vec![
            Attached::None,
            Attached::Block(Box::new(disk.clone())),
            net(first),
            Attached::None,
            Attached::None,
            net(second),
        ];
        let said = Arc::new(Mutex::new(Vec::new()));
        let says = said.clone();
        let hypercalls = Hypercalls::new(memory.clone(), output, time.clone())
            .with_devices(devices)
            .with_read_only(vec![0..TEXT, TEXT..TEXT + 0x2000])
            .on_abort(move |line| says.lock().unwrap().push(line.into()));
        Self {
            memory,
            hypercalls,
            console,
            time,
            disk,
            wires,
            said,
        }
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    pub fn get_u64(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    pub fn get_i32(&self, at: u64) -> i32 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Makes a hypercall with an argument of these words at `ARG`.
    pub fn call(&mut self, number: u64, words: &[u64]) -> Effect {
        for (word, at) in words.iter().zip((ARG..).step_by(8)) {
            self.put(at, &word.to_le_bytes());
        }
        self.call_at(number, ARG)
    }

    pub fn call_at(&mut self, number: u64, at: u64) -> Effect {
        let at = u32::try_from(at).unwrap();
        self.hypercalls.write(number, &at.to_le_bytes())
    }

    /// The answer of a call that the guest survives.
    #[track_caller]
    pub fn block(&mut self, number: u64, handle: u64, offset: u64, data: u64, len: u64) -> i32 {
        let effect = self.call(number, &[handle, offset, data, len, u64::MAX]);
        assert!(matches!(effect, Effect::None), "{effect:?}");
        assert_eq!(self.get(ARG + 36, 4), [0xff; 4], "the padding stays");
        self.get_i32(ARG + 32)
    }

    #[track_caller]
    pub fn net(&mut self, number: u64, handle: u64, data: u64, len: u64) -> i32 {
        let effect = self.call(number, &[handle, data, len, u64::MAX]);
        assert!(matches!(effect, Effect::None), "{effect:?}");
        assert_eq!(self.get(ARG + 28, 4), [0xff; 4], "the padding stays");
        self.get_i32(ARG + 24)
    }

    /// How many handles are ready, and which.
    #[track_caller]
    pub fn poll(&mut self, timeout: u64) -> (i32, u64) {
        let effect = self.call(3, &[timeout, u64::MAX, u64::MAX]);
        assert!(matches!(effect, Effect::None), "{effect:?}");
        (self.get_i32(ARG + 16), self.get_u64(ARG + 8))
    }
}

/// What the guest is told that does not survive.
#[track_caller]
pub fn violation(effect: Effect) -> String {
    match effect {
        Effect::Violation(what) => what,
        effect => panic!("{effect:?}"),
    }
}
