//! The socket device: a driver that misbehaves, packets that make no sense, and programs that stall, break and leave.

mod packets;

use std::io;
use std::time::Duration;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::Mmio;
use goldcrest_virtio_vsock::{Backend, Event, Parts, Vsock};

use crate::saved;

/// The guest's CID: a driver's packets mostly begin with small numbers.
const CID: u64 = 3;
/// Few, so that there are soon too many.
const STREAMS: u32 = 8;
const BUFFERS: u64 = 1 << 20;

/// Runs the target: a byte chooses between rings that are wrong and packets that are.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((choice, data)) if choice & 1 == 0 => rings(data),
        Some((_, data)) => packets::run(data),
        None => {}
    }
}

fn rings(data: &[u8]) {
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    driver.run(|memory, line| {
        let host = Faulty {
            faults: faults.clone(),
            interference: interference.clone(),
            watched: Vec::new(),
            events: 0,
        };
        let device = Vsock::with_limits(host, CID, STREAMS, BUFFERS).expect("they are possible");
        Mmio::new(device.with_clock(ManualClock::default()), memory, line)
    });
}

/// Takes all and gives a few bytes, unless something goes wrong.
struct Faulty {
    faults: Faults,
    interference: Interference,
    watched: Vec<u64>,
    /// How many events there were, since there were none.
    events: u8,
}

impl Faulty {
    fn fault(&self, len: usize) -> io::Result<usize> {
        self.interference.strike();
        match self.faults.next() {
            1..0x20 => Err(io::ErrorKind::WouldBlock.into()),
            0x20..0x28 => Err(io::ErrorKind::BrokenPipe.into()),
            0x28..0x30 => Err(io::ErrorKind::Interrupted.into()),
            0x30..0x38 => Ok(0),
            short @ 0x38..0x80 => Ok(len.min(short.into())),
            _ => Ok(len),
        }
    }
}

impl Backend for Faulty {
    type Stream = ();

    fn next_event(&mut self, _: Duration) -> Option<Event<()>> {
        self.events += 1;
        let fault = self.faults.next();
        if self.events > 16 || fault == 0 {
            self.events = 0;
            return None;
        }
        let token = self.watched.get(usize::from(fault & 7)).copied();
        Some(match token {
            Some(token) if fault & 0x80 == 0 => Event::Stream {
                token,
                readable: fault & 8 != 0,
                writable: fault & 0x10 != 0,
                ended: fault & 0x20 != 0,
                hung_up: fault & 0x40 != 0,
            },
            // One that never was, or is gone.
            _ if fault & 0x80 != 0 => Event::Connect((), u32::from(fault & 7)),
            _ => Event::Stream {
                token: u64::from(fault) << 28,
                readable: true,
                writable: true,
                ended: true,
                hung_up: true,
            },
        })
    }

    fn connect(&mut self, _: u32) -> io::Result<()> {
        self.fault(1).map(|_| ())
    }

    fn watch(&mut self, (): &mut (), token: u64) -> io::Result<()> {
        assert!(token < 1 << 63);
        self.watched.insert(0, token);
        self.watched.truncate(8);
        match self.faults.next() {
            0x7f => Err(io::ErrorKind::OutOfMemory.into()),
            _ => Ok(()),
        }
    }

    fn accepted(&mut self, (): &mut (), port: u32) {
        assert!(port >= 1 << 30);
    }

    fn receive(&mut self, (): &mut (), parts: Parts<'_>) -> io::Result<usize> {
        assert!(parts.left() > 0);
        // A program that sends without end is not what is tested.
        if self.faults.next() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut left = self.fault(parts.left() as usize)?;
        let mut moved = 0;
        for slice in parts {
            let slice = slice?;
            let len = left.min(slice.len());
            slice.copy_from(&vec![b'x'; len]);
            (left, moved) = (left - len, moved + len);
        }
        Ok(moved)
    }

    fn send(&mut self, (): &mut (), parts: Parts<'_>) -> io::Result<usize> {
        assert!(parts.left() > 0);
        let most = self.fault(parts.left() as usize)?;
        let mut there = 0;
        for slice in parts {
            there += slice?.len();
        }
        Ok(most.min(there))
    }

    fn send_bytes(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty());
        self.fault(bytes.len())
    }

    fn end_sending(&mut self, (): &mut ()) {}

    fn end_receiving(&mut self, (): &mut ()) {}
}
