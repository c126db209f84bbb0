//! The machine's virtio disks, as the library reads them.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;

use goldcrest_firmware::{BlockRead, DeviceError, Disk};
use goldcrest_guest::time;
use goldcrest_guest::virtio::{self, Block, id};

/// The most disks that are looked at.
const MAX_DISKS: usize = 26;

/// What was read, and how long that took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics(Rc<[Cell<u64>; 3]>);

impl Statistics {
    fn add(&self, ticks: u64, bytes: usize) {
        let values = [ticks, 1, u64::try_from(bytes).unwrap_or(u64::MAX)];
        for (cell, value) in self.0.iter().zip(values) {
            cell.set(cell.get().saturating_add(value));
        }
    }

    /// Ticks of the time-stamp counter.
    pub(crate) fn ticks(&self) -> u64 {
        let [ticks, ..] = &*self.0;
        ticks.get()
    }

    pub(crate) fn requests(&self) -> u64 {
        let [_, requests, _] = &*self.0;
        requests.get()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let [.., bytes] = &*self.0;
        bytes.get()
    }
}

/// The disks, by the names that Linux gives them, and why others cannot be used.
pub(crate) fn disks(statistics: &Statistics) -> (Vec<Disk>, Vec<String>) {
    let (mut disks, mut faults) = (Vec::new(), Vec::new());
    let devices = virtio::devices().filter(|device| device.id() == id::BLOCK);
    for (letter, device) in ('a'..).zip(devices).take(MAX_DISKS) {
        let name = format!("vd{letter}");
        match Block::new(device) {
            Ok(block) => {
                let statistics = statistics.clone();
                disks.push(Disk::new(name, Box::new(VirtioDisk { block, statistics })));
            }
            Err(error) => faults.push(format!("disk {name}: {error}")),
        }
    }
    (disks, faults)
}

struct VirtioDisk {
    block: Block,
    statistics: Statistics,
}

impl BlockRead for VirtioDisk {
    fn blocks(&self) -> u64 {
        let sectors = u64::from(self.block.block_size() / Block::SECTOR).max(1);
        self.block.capacity() / sectors
    }

    fn block_size(&self) -> u32 {
        self.block.block_size()
    }

    fn read_blocks(&mut self, block: u64, buffer: &mut [u8]) -> Result<(), DeviceError> {
        let begun = time::tsc();
        let sectors = u64::from(self.block.block_size() / Block::SECTOR);
        let result = self.block.read(block.saturating_mul(sectors), buffer);
        self.statistics
            .add(time::tsc().saturating_sub(begun), buffer.len());
        result.map_err(|error| DeviceError(error.to_string()))
    }
}
