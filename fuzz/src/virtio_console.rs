//! The console: a driver that misbehaves, and other ends that take little, have nothing, break or go.

use std::io;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_virtio::Mmio;
use goldcrest_virtio_console::{Console, PortBackend, PortConfig};

use crate::saved;

/// Runs the target: a byte for the ports, the others for the driver.
pub fn run(data: &[u8]) {
    let Some((ports, data)) = data.split_first() else {
        return;
    };
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    driver.run(|memory, line| {
        let port = || Faulty {
            faults: faults.clone(),
            interference: interference.clone(),
            closed: false,
        };
        let named = (0..ports & 3).map(|number| PortConfig::named(format!("{number}"), port()));
        let ports = std::iter::once(PortConfig::console(port())).chain(named);
        let console = Console::new(ports.collect()).expect("few ports, with different names");
        Mmio::new(console, memory, line)
    });
}

/// An end that takes all and gives a byte, unless something goes wrong.
struct Faulty {
    faults: Faults,
    interference: Interference,
    closed: bool,
}

impl Faulty {
    /// What goes wrong, and how much is moved if nothing does.
    fn fault(&self, len: usize) -> io::Result<usize> {
        self.interference.strike();
        match self.faults.next() {
            1..0x10 => Err(io::ErrorKind::WouldBlock.into()),
            0x10..0x18 => Err(io::ErrorKind::BrokenPipe.into()),
            0x18..0x20 => Err(io::ErrorKind::StorageFull.into()),
            0x20..0x28 => Ok(0),
            short @ 0x28..0x80 => Ok(len.min(short.into())),
            _ => Ok(len),
        }
    }
}

impl PortBackend for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty());
        self.fault(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty());
        // A host that gives without end is not what is tested.
        if self.faults.next() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.fault(bytes.len())?;
        bytes[..len].fill(b'x');
        Ok(len)
    }

    fn poll(&mut self) {
        self.closed = self.faults.next() & 0xc1 == 0xc1;
    }

    fn is_open(&self) -> bool {
        !self.closed
    }
}
