//! The entropy device: a driver that misbehaves, and a source that has nothing or breaks.

use std::io;
use std::time::Duration;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_rate_limiter::{ManualClock, RateConfig};
use goldcrest_virtio::Mmio;
use goldcrest_virtio_rng::{Entropy, Source};

use crate::saved;

/// Runs the target.
pub fn run(data: &[u8]) {
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    let clock = ManualClock::default();
    driver.run(|memory, line| {
        let source = Faulty {
            faults: faults.clone(),
            interference: interference.clone(),
            clock: clock.clone(),
        };
        let device = Entropy::with_rate(source, RateConfig::default(), clock.clone());
        Mmio::new(device, memory, line)
    });
}

/// Gives bytes that are easy to guess, unless something goes wrong.
struct Faulty {
    faults: Faults,
    interference: Interference,
    clock: ManualClock,
}

impl Source for Faulty {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.interference.strike();
        let fault = self.faults.next();
        self.clock
            .advance(Duration::from_millis((fault >> 3).into()));
        match fault & 7 {
            1 => Err(io::ErrorKind::WouldBlock.into()),
            2 => Err(io::ErrorKind::Interrupted.into()),
            3 => Err(io::ErrorKind::Other.into()),
            _ => {
                bytes.fill(0x5a);
                Ok(())
            }
        }
    }
}
