//! A disk that is bytes in memory: for tests, fuzz targets, and tools that look at an image.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::disk::{BlockRead, DeviceError, Disk, SECTOR};
use crate::fields::{in_memory, on_disk};

/// Bytes as a disk, in blocks of 512 bytes or another size. What does not fill a block is left out.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    block_size: u32,
    requests: Rc<RefCell<Vec<(u64, u64)>>>,
}

impl MemoryDisk {
    /// A disk with blocks of 512 bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::with_block_size(bytes, 512)
    }

    /// A disk with blocks of this size.
    pub fn with_block_size(bytes: Vec<u8>, block_size: u32) -> Self {
        Self {
            bytes,
            block_size,
            requests: Rc::default(),
        }
    }

    /// Offset and bytes of every request that reaches the disk, now and later.
    pub fn requests(&self) -> Rc<RefCell<Vec<(u64, u64)>>> {
        self.requests.clone()
    }

    /// The disk, by a name.
    pub fn into_disk(self, name: &str) -> Disk {
        Disk::new(name, Box::new(self))
    }
}

impl BlockRead for MemoryDisk {
    fn blocks(&self) -> u64 {
        on_disk(self.bytes.len()) / u64::from(self.block_size).max(SECTOR)
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read_blocks(&mut self, block: u64, buffer: &mut [u8]) -> Result<(), DeviceError> {
        let start = block.saturating_mul(self.block_size.into());
        let len = buffer.len();
        self.requests.borrow_mut().push((start, on_disk(len)));
        let from = in_memory(start);
        let there = from
            .checked_add(len)
            .and_then(|end| self.bytes.get(from..end));
        let there = there.ok_or_else(|| DeviceError("the image ends before".to_owned()))?;
        buffer.copy_from_slice(there);
        Ok(())
    }
}

/// For messages.
impl From<&str> for DeviceError {
    fn from(why: &str) -> Self {
        Self(String::from(why))
    }
}
