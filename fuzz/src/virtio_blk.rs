//! The block device: a driver that misbehaves, and a disk that fails, is full, is slow or is read-only.

use std::io;
use std::os::fd::BorrowedFd;

use goldcrest_device_fuzz::{Faults, HostileDriver, Interference};
use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::Mmio;
use goldcrest_virtio_blk::{Backend, Block, BlockConfig, MemoryDisk, Operation, Start};
use vm_memory::GuestMemoryMmap;

use crate::saved;

/// Bytes of the disk.
const CAPACITY: usize = 16 << 10;

/// Runs the target: a byte for the disk, the others for the driver.
pub fn run(data: &[u8]) {
    let Some((manner, data)) = data.split_first() else {
        return;
    };
    let driver = HostileDriver::new(data).round_trip(saved::round_trip);
    let (faults, interference) = (driver.faults(), driver.interference());
    let config = BlockConfig {
        queues: 1 + u16::from(manner & 1),
        queue_size: 16,
        id: "fuzz".into(),
        ..BlockConfig::default()
    };
    driver.run(|memory, line| {
        let mut disk = MemoryDisk::new(vec![0; CAPACITY]);
        if manner & 2 != 0 {
            disk = disk.deferred();
        }
        if manner & 4 != 0 {
            disk = disk.read_only();
        }
        let disk = Faulty {
            disk,
            faults: faults.clone(),
            interference: interference.clone(),
            pending: 0,
        };
        let block = Block::new(disk, &config).expect("the configuration is a possible one");
        Mmio::new(block.with_clock(ManualClock::default()), memory, line)
    });
}

/// A disk in memory, unless something goes wrong.
struct Faulty {
    disk: MemoryDisk,
    faults: Faults,
    interference: Interference,
    pending: u32,
}

fn failed(fault: u8) -> Option<io::Error> {
    match fault {
        1 => Some(io::ErrorKind::StorageFull.into()),
        2 => Some(io::ErrorKind::Other.into()),
        // A read that is short.
        3 => Some(io::ErrorKind::UnexpectedEof.into()),
        4 => Some(io::ErrorKind::WouldBlock.into()),
        _ => None,
    }
}

impl Backend for Faulty {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn read_only(&self) -> bool {
        Backend::read_only(&self.disk)
    }

    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32) {
        self.disk.attach(memory, depth);
    }

    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        self.interference.strike();
        let fault = self.faults.next() & 7;
        if let Some(error) = failed(fault) {
            return Start::Done(Err(error));
        }
        // It is full only if there is something that can be over.
        if fault == 5 && self.pending > 0 {
            return Start::Full;
        }
        let start = self.disk.start(operation, token);
        self.pending += u32::from(matches!(start, Start::Pending));
        start
    }

    fn submit(&mut self) -> bool {
        self.disk.submit() && self.faults.next() & 7 != 6
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        let (faults, pending) = (&self.faults, &mut self.pending);
        let whole = self.disk.completions(&mut |token, result| {
            *pending -= 1;
            complete(token, failed(faults.next() & 7).map_or(result, Err));
        });
        whole && self.faults.next() & 7 != 6
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.disk.event_fd()
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        let pending = &mut self.pending;
        self.disk.wait_all(&mut |token, result| {
            *pending -= 1;
            complete(token, result);
        })
    }

    fn reset(&mut self) {
        self.pending = 0;
        self.disk.reset();
    }
}
