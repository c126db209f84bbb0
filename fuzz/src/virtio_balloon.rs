//! The balloon: a driver that misbehaves, a host that refuses pages, and somebody who changes his mind.

use std::io;
use std::time::Duration;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_rate_limiter::{Clock, ManualClock};
use goldcrest_snapshot::{RestoreError, Snapshot};
use goldcrest_virtio::{
    ActivateError, DeviceError, DeviceIo, DeviceSpec, Features, Mmio, Ram, VirtioDevice, Waits,
};
use goldcrest_virtio_balloon::{
    Balloon, BalloonConfig, BalloonState, Contents, HostPages, Pages, Totals,
};

use crate::saved;

/// Runs the target: a byte for what the balloon offers, the others for the driver.
pub fn run(data: &[u8]) {
    let Some((manner, data)) = data.split_first() else {
        return;
    };
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    let config = BalloonConfig {
        target: 8192,
        deflate_on_oom: manner & 1 != 0,
        free_page_reporting: manner & 2 != 0,
        free_page_hinting: manner & 4 != 0,
        statistics: (manner & 8 != 0).then_some(Duration::from_secs((manner >> 4 & 1).into())),
    };
    let clock = ManualClock::default();
    driver.run(|memory, line| {
        let pages = Faulty {
            faults: faults.clone(),
            interference: interference.clone(),
        };
        let balloon = Balloon::with_clock(pages, &config, clock.clone());
        let hosted = Hosted {
            balloon: balloon.expect("the configuration is a possible one"),
            faults: faults.clone(),
            clock: clock.clone(),
            totals: Totals::default(),
        };
        Mmio::new(hosted, memory, line)
    });
}

/// Takes pages, unless something goes wrong.
struct Faulty {
    faults: Faults,
    interference: Interference,
}

impl Pages for Faulty {
    fn discard(
        &mut self,
        ram: Ram<'_>,
        start: u64,
        len: u64,
        contents: Contents,
    ) -> io::Result<u64> {
        assert!(len > 0 && start.checked_add(len).is_some());
        self.interference.strike();
        match self.faults.next() & 7 {
            1 => Err(io::ErrorKind::OutOfMemory.into()),
            2 => Ok(0),
            _ => {
                let taken = HostPages.discard(ram, start, len, contents)?;
                assert!(taken <= len);
                Ok(taken)
            }
        }
    }
}

/// A balloon with somebody at the host's side.
struct Hosted {
    balloon: Balloon<Faulty, ManualClock>,
    faults: Faults,
    clock: ManualClock,
    totals: Totals,
}

impl Hosted {
    fn meddle(&mut self) {
        let fault = self.faults.next();
        let pages = u64::from(fault >> 4) * 4096;
        match fault & 15 {
            1 => self.balloon.start_hinting(),
            2 => self.balloon.stop_hinting(),
            3 => self.balloon.ask_statistics(),
            4 => self.clock.advance(Duration::from_millis(pages)),
            5 => self.balloon.set_target(pages).expect("few pages"),
            _ => {}
        }
    }

    /// What was counted grows, and makes sense.
    fn check(&mut self) {
        let (before, now) = (self.totals, self.balloon.status().totals);
        let pairs = [
            (before.inflated, now.inflated),
            (before.deflated, now.deflated),
            (before.reported, now.reported),
            (before.hinted, now.hinted),
            (before.returned, now.returned),
            (before.statistics, now.statistics),
            (before.ignored, now.ignored),
            (before.failed, now.failed),
            (now.deflated, now.inflated),
        ];
        assert!(pairs.iter().all(|(a, b)| a <= b), "{before:?} {now:?}");
        assert!(now.held() <= 9, "there are nine pages: {now:?}");
        self.totals = now;
    }
}

impl VirtioDevice for Hosted {
    fn spec(&self) -> DeviceSpec {
        self.balloon.spec()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.balloon.read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.balloon.write_config(offset, data);
    }

    fn activate(&mut self, features: Features, ram: Ram<'_>) -> Result<(), ActivateError> {
        self.balloon.activate(features, ram)
    }

    fn process_queue(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.meddle();
        let result = self.balloon.process_queue(index, io);
        self.check();
        result
    }

    fn process_events(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.meddle();
        let result = self.balloon.process_events(io);
        self.check();
        let mut waits = Waits::default();
        self.balloon.waits(&mut waits);
        let spins = waits.delay == Some(Duration::ZERO);
        assert!(result.is_err() || !spins, "at {:?}", self.clock.now());
        result
    }

    fn waits(&self, waits: &mut Waits) {
        self.balloon.waits(waits);
    }

    fn quiesce(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        self.balloon.quiesce(io)
    }

    fn reset_queue(&mut self, index: u16) {
        self.balloon.reset_queue(index);
    }

    fn reset(&mut self) {
        self.balloon.reset();
        self.check();
    }
}

impl Snapshot for Hosted {
    type State = BalloonState;
    const KIND: &'static str = "virtio-balloon";
    const VERSION: u16 = 1;

    fn save(&self) -> BalloonState {
        self.balloon.save()
    }

    fn restore(&mut self, state: BalloonState) -> Result<(), RestoreError> {
        self.balloon.restore(state)
    }
}
