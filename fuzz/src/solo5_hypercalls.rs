//! The hypercalls of Solo5, whose arguments lie in guest memory that the guest fills as it likes, on devices that fail.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use goldcrest_bus::{Device, Effect};
use goldcrest_chipset::Output;
use goldcrest_memory::io::Segment;
use goldcrest_solo5::spec::{self, HALT_COOKIE_MAX, NET_HLEN};
use goldcrest_solo5::{Attached, Host, Hypercalls, Link, Net, Storage, Wake};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::access::Access;

/// What the guest cannot write, two regions that touch, a hole, and a third.
const READ_ONLY: std::ops::Range<u64> = 0..0x1000;
const REGIONS: [(u64, usize); 3] = [(0, 0x2000), (0x2000, 0x3000), (0x8000, 0x1000)];
const END: u64 = 0x9000;
/// The longest argument.
const ARGUMENT: usize = 40;
const CAPACITY: u64 = 0x2000;
const MTU: u16 = 300;

thread_local! {
    static MEMORY: GuestMemoryMmap = {
        let regions = REGIONS.map(|(start, len)| (GuestAddress(start), len));
        GuestMemoryMmap::from_ranges(&regions).expect("it is small")
    };
}

/// Runs the target.
pub fn run(data: &[u8]) {
    MEMORY.with(|memory| {
        for (start, len) in REGIONS {
            let zeros = vec![0; len];
            memory
                .write_slice(&zeros, GuestAddress(start))
                .expect("it is RAM");
        }
        let _ = drive(memory, &mut Unstructured::new(data));
    });
}

/// What the devices do next, and what was done with them.
#[derive(Default)]
struct Script {
    /// A byte for each call of a device.
    choices: Vec<u8>,
    now: Duration,
    printed: usize,
}

type Shared = Arc<Mutex<Script>>;

fn choose(script: &Shared) -> u8 {
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    script.choices.pop().unwrap_or(0)
}

struct Disk(Shared);

impl Disk {
    /// What was checked before it came here, must be so.
    fn transfer(&self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<u64> {
        let len = u64::from(segment.len);
        assert!(len > 0 && len.is_multiple_of(512) && offset.is_multiple_of(512));
        assert!(offset + len <= CAPACITY);
        let mut bytes = vec![0; segment.len as usize];
        let is_ram = memory.read_slice(&mut bytes, GuestAddress(segment.address));
        assert!(is_ram.is_ok());
        match choose(&self.0) {
            1 => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(segment.address),
        }
    }
}

impl Storage for Disk {
    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn block_size(&self) -> u16 {
        512
    }

    fn read(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()> {
        let at = self.transfer(memory, segment, offset)?;
        assert!(at >= READ_ONLY.end);
        let bytes = vec![0xdd; segment.len as usize];
        memory
            .write_slice(&bytes, GuestAddress(at))
            .map_err(io::Error::other)
    }

    fn write(&mut self, memory: &GuestMemoryMmap, segment: Segment, offset: u64) -> io::Result<()> {
        self.transfer(memory, segment, offset).map(|_| ())
    }
}

struct Wire(Shared);

impl Link for Wire {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        assert!((NET_HLEN..=usize::from(MTU) + NET_HLEN).contains(&frame.len()));
        match choose(&self.0) {
            1 => Err(io::ErrorKind::WouldBlock.into()),
            2 => Err(io::ErrorKind::NetworkDown.into()),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match choose(&self.0) {
            0..0x60 => Err(io::ErrorKind::WouldBlock.into()),
            0x60 => Err(io::ErrorKind::NetworkDown.into()),
            len => {
                let len = usize::from(len) * 4;
                buffer[..len].fill(0xee);
                Ok(len)
            }
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn timeout(&self) -> Option<Duration> {
        match choose(&self.0) {
            choice @ 1..0x20 => Some(Duration::from_micros(choice.into())),
            _ => None,
        }
    }
}

/// A clock that waiting moves.
struct Time(Shared);

impl Host for Time {
    fn wall_clock(&self) -> Duration {
        Duration::from_secs(choose(&self.0).into())
    }

    fn now(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    fn is_stopped(&self) -> bool {
        choose(&self.0) == 0xff
    }

    fn wait(&mut self, _: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Wake> {
        let choice = choose(&self.0);
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // When there is nothing left to choose, each wait is as long as it may be.
        let part = u32::from(choice) + 1;
        script.now = script.now.saturating_add(timeout / part.min(4));
        match choice {
            0xfe => Ok(Wake::Return),
            0xfd => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(Wake::Look),
        }
    }
}

struct Console(Shared);

impl io::Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.printed += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drive(memory: &GuestMemoryMmap, input: &mut Unstructured<'_>) -> Result<()> {
    let script = Shared::default();
    let devices = vec![
        Attached::None,
        Attached::Block(Box::new(Disk(script.clone()))),
        Attached::Net(Net::new(Wire(script.clone()), MTU)),
        Attached::Net(Net::new(Wire(script.clone()), MTU)),
    ];
    let output = Output::new(Console(script.clone()));
    let mut hypercalls = Hypercalls::new(memory.clone(), output, Time(script.clone()))
        .with_devices(devices)
        .with_read_only(vec![READ_ONLY])
        .on_abort(|line| assert!(!line.contains('\n')));
    while !input.is_empty() {
        match input.arbitrary::<u8>()? {
            // An argument, or a part of one: a handle or address, then numbers that are small or at the ends.
            0xa0.. => {
                let at = u64::from(input.arbitrary::<u16>()?) % END;
                let mut words = [0u64; ARGUMENT / 8];
                for word in &mut words {
                    *word = number(input)?;
                }
                let bytes = words.map(u64::to_le_bytes);
                let at = GuestAddress(at.max(READ_ONLY.end));
                let _ = memory.write(bytes.as_flattened(), at);
            }
            0x90.. => {
                let count = usize::from(input.arbitrary::<u8>()? & 0x1f).min(input.len());
                let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                script.choices = input.bytes(count)?.to_vec();
            }
            0x80.. => {
                let access = Access::take(input, spec::LEN.into())?;
                let outcome = access.apply(&mut hypercalls);
                assert!(outcome.read().iter().all(|byte| *byte == 0xff));
                check(&script, &outcome.effect);
            }
            call => {
                let at = u32::from(input.arbitrary::<u16>()?);
                let number = u64::from(call % 12);
                let effect = hypercalls.write(number, &at.to_le_bytes());
                check(&script, &effect);
                check_call(memory, number, at.into(), &effect);
            }
        }
    }
    let mut low = vec![0; 0x1000];
    memory
        .read_slice(&mut low, GuestAddress(0))
        .expect("it is RAM");
    assert!(low.iter().all(|byte| *byte == 0), "what cannot be written");
    Ok(())
}

fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.arbitrary::<u8>()? {
        small @ 0..0x40 => u64::from(small % 5),
        blocks @ 0x40..0x80 => u64::from(blocks - 0x40) * 512,
        0x80..0xe0 => u64::from(input.arbitrary::<u16>()?),
        0xe0..0xf0 => input.arbitrary()?,
        end => (u64::MAX - u64::from(end & 0xf) * 512).wrapping_add(1),
    })
}

/// A guest of these regions prints no more than they have; effects are those that hypercalls have.
fn check(script: &Shared, effect: &Effect) {
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(script.printed <= 0x5000);
    script.printed = 0;
    match effect {
        Effect::None | Effect::HostFailed(_) => {}
        Effect::Exit(status) => assert!(*status < 256),
        Effect::Violation(what) => assert!(!what.is_empty() && !what.contains('\n')),
        effect => panic!("{effect:?}"),
    }
}

/// A call that has an answer has given it; one whose argument is not RAM has none.
fn check_call(memory: &GuestMemoryMmap, number: u64, at: u64, effect: &Effect) {
    let len = match number {
        spec::hypercall::WALLTIME => 8,
        spec::hypercall::PUTS | spec::hypercall::HALT => 16,
        spec::hypercall::POLL => 24,
        spec::hypercall::BLOCK_READ | spec::hypercall::BLOCK_WRITE => 40,
        spec::hypercall::NET_READ | spec::hypercall::NET_WRITE => 32,
        _ => {
            assert!(matches!(effect, Effect::Violation(_)));
            return;
        }
    };
    let mut argument = vec![0; len];
    if memory.read_slice(&mut argument, GuestAddress(at)).is_err() {
        assert!(matches!(effect, Effect::Violation(_)));
        return;
    }
    let ret = |offset: usize| {
        let field = argument[offset..].first_chunk().expect("it has that");
        i32::from_le_bytes(*field)
    };
    match (number, effect) {
        (spec::hypercall::BLOCK_READ | spec::hypercall::BLOCK_WRITE, Effect::None) => {
            // A disk may have read over the answer; not over this one, which comes last.
            assert!((0..=3).contains(&ret(32)));
        }
        (spec::hypercall::NET_READ | spec::hypercall::NET_WRITE, Effect::None) => {
            assert!((0..=3).contains(&ret(24)));
        }
        (spec::hypercall::POLL, Effect::None) => {
            assert!((0..=2).contains(&ret(16)));
        }
        (spec::hypercall::HALT, Effect::Exit(_)) => {
            let cookie = u64::from_le_bytes(*argument.first_chunk().expect("it has that"));
            let mut bytes = vec![0; usize::try_from(HALT_COOKIE_MAX).unwrap_or(0)];
            assert!(cookie == 0 || memory.read_slice(&mut bytes, GuestAddress(cookie)).is_ok());
        }
        (spec::hypercall::HALT, effect) => assert!(matches!(effect, Effect::Violation(_))),
        _ => {}
    }
}
