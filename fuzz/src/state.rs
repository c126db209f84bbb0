//! Forged snapshots, whose checksum is right: a state that is believed must be one that the device can live with.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use goldcrest_bus::Device;
use goldcrest_chipset::{I8042, Output, Rtc, Serial};
use goldcrest_irq::{Ioapic, IrqLine, Pic};
use goldcrest_rate_limiter::{ManualClock, RateConfig};
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::{Mmio, VirtioDevice};
use goldcrest_virtio_balloon::{Balloon, BalloonConfig, RecordedPages};
use goldcrest_virtio_blk::{Block, BlockConfig, MemoryDisk};
use goldcrest_virtio_console::{Console, PortBackend, PortConfig};
use goldcrest_virtio_net::{Loopback, MacAddress, Net, NetConfig};
use goldcrest_virtio_rng::{Entropy, SeededSource};
use goldcrest_virtio_vsock::{MemoryHost, Vsock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::rtc::Clock;
use crate::{i8042, ioapic, pic, rtc, saved, serial};

/// The bytes that choose the balloon, the socket device and the network card; others choose one of eight by their lowest bits.
pub const BALLOON: u8 = 0xf0;
/// See [`BALLOON`].
pub const VSOCK: u8 = 0xf1;
/// See [`BALLOON`].
pub const NET: u8 = 0xf2;

/// Runs the target: a byte chooses the device, a byte is the length of the state, then come the state and what the
/// device goes through after it.
pub fn run(data: &[u8]) {
    let _ = restore_and_use(&mut Unstructured::new(data));
}

fn restore_and_use(input: &mut Unstructured<'_>) -> Result<()> {
    let choice: u8 = input.arbitrary()?;
    let len = usize::from(input.arbitrary::<u8>()?);
    let payload = input.bytes(len.min(input.len()))?;
    let line = IrqLine::detached();
    if choice == BALLOON {
        return virtio(payload, input, balloon);
    }
    if choice == VSOCK {
        return virtio(payload, input, vsock);
    }
    if choice == NET {
        return virtio(payload, input, net);
    }
    match choice % 8 {
        0 => {
            let new = || Serial::new(line.clone(), Output::discard());
            let port = believed(new(), new(), payload)?;
            serial::drive(port, line.clone(), input)
        }
        1 => {
            let clock = Clock::default();
            let new = || Rtc::new(clock.clone());
            rtc::drive(believed(new(), new(), payload)?, &clock, input)
        }
        2 => i8042::drive(
            believed(I8042::default(), I8042::default(), payload)?,
            input,
        ),
        3 => {
            let pic = believed(
                Pic::new(line.clone()),
                Pic::new(IrqLine::detached()),
                payload,
            )?;
            pic::drive(pic, line, input)
        }
        4 => {
            let sink = ioapic::sink();
            let new = || Ioapic::new(sink.clone());
            ioapic::drive(believed(new(), new(), payload)?, &sink, input)
        }
        5 => virtio(payload, input, disk),
        6 => virtio(payload, input, console),
        _ => virtio(payload, input, entropy),
    }
}

/// A disk of a few sectors.
pub fn disk() -> Block<MemoryDisk> {
    Block::new(MemoryDisk::new(vec![0; 4096]), &BlockConfig::default())
        .expect("the configuration is a possible one")
}

/// A console that nobody is at.
pub fn console() -> Console {
    Console::new(vec![PortConfig::console(Silent)]).expect("there is a port")
}

/// A source of numbers that are always the same.
pub fn entropy() -> Entropy<SeededSource, ManualClock> {
    let rate = RateConfig::default();
    Entropy::with_rate(SeededSource::new(0), rate, ManualClock::default())
}

/// A balloon with all that it can have.
pub fn balloon() -> Balloon<RecordedPages, ManualClock> {
    let config = BalloonConfig {
        free_page_hinting: true,
        statistics: Some(Duration::from_secs(1)),
        ..BalloonConfig::default()
    };
    Balloon::with_clock(RecordedPages::default(), &config, ManualClock::default())
        .expect("the configuration is a possible one")
}

/// A socket device on a host without programs.
pub fn vsock() -> Vsock<MemoryHost> {
    let device = Vsock::new(MemoryHost::default(), 3).expect("the CID is a possible one");
    device.with_clock(ManualClock::default())
}

/// A network card with two pairs of queues and rates, on a network that echoes.
pub fn net() -> Net<Loopback> {
    let backend = Loopback::new(1).with_pairs(2);
    let config = NetConfig {
        mac: MacAddress::try_from([2, 0, 0, 0, 0, 1]).ok(),
        queue_pairs: 2,
        rx_rate: "1M".parse().expect("a rate"),
        ..NetConfig::default()
    };
    let device = Net::new(backend, &config).expect("the configuration is a possible one");
    device.with_clock(ManualClock::default())
}

/// The memory of the guest that a device with a forged state is in.
pub fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 10)]).expect("there is memory")
}

/// Restores a device behind the MMIO transport, and has a driver go on with it that writes anything anywhere.
fn virtio<D>(payload: &[u8], input: &mut Unstructured<'_>, device: impl Fn() -> D) -> Result<()>
where
    D: VirtioDevice + Snapshot,
    D::State: PartialEq + Debug,
{
    let memory = memory();
    let new = || Mmio::new(device(), memory.clone(), IrqLine::detached());
    let mut restored = believed(new(), new(), payload)?;
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let at = u64::from(input.arbitrary::<u16>()?);
        let value: [u8; 4] = input.arbitrary()?;
        match input.arbitrary::<u8>()? % 4 {
            0 => {
                let _ = restored.write(at % 0x200, &value);
            }
            1 => restored.read(at % 0x200, &mut [0; 4]),
            2 => restored.process_events(),
            // What does not fit in RAM is not written.
            _ => drop(memory.write_slice(&value, GuestAddress(at))),
        }
    }
    restored.quiesce();
    saved::round_trip(&restored, &mut new());
    Ok(())
}

/// Nobody at the host's end of a console.
struct Silent;

impl PortBackend for Silent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The device with the forged state, if it believes it: then the state can be saved and restored again.
fn believed<S>(mut device: S, mut fresh: S, payload: &[u8]) -> Result<S>
where
    S: Snapshot,
    S::State: PartialEq + Debug,
{
    if !saved::open_or_unchanged(&mut device, &saved::forge::<S>(payload)) {
        return Err(arbitrary::Error::IncorrectFormat);
    }
    // A state with something behind it is none.
    let longer = saved::forge::<S>(&[payload, &[0]].concat());
    assert!(!saved::open_or_unchanged(&mut fresh, &longer));
    saved::round_trip(&device, &mut fresh);
    Ok(device)
}
