//! Disks (virtio 1.3 §5.2).
#![allow(unsafe_code, reason = "buffers are lent to the device")]

mod in_flight;
mod request;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::memory::Shared;
use super::queue::{Queue, Segment};
use super::transport::Transport;
use super::{Device, Error, Mmio, Registers, first, id};
pub use in_flight::{Completion, Rejected, Ticket};
use request::{Kind, Range, SLOT, feature, offset};

/// Descriptors that are asked for.
const QUEUE_SIZE: u16 = 64;
/// Descriptors of a request: header, data, status.
const MAX_SEGMENTS: u16 = 3;
/// The most bytes that one request moves; more are moved by several.
const MAX_REQUEST: u32 = 1 << 20;

/// A disk.
///
/// Sectors are of [`SECTOR`](Self::SECTOR) bytes, whatever the disk's blocks are; but what is read and written has to
/// consist of whole blocks ([`block_size`](Self::block_size)). Buffers may lie anywhere.
///
/// [`read`](Self::read) and its kin return when the device is done. To keep a device busy with several requests, hand
/// buffers over by [`submit_read`](Self::submit_read) and [`submit_write`](Self::submit_write), and take them back by
/// [`wait`](Self::wait):
///
/// ```no_run
/// # use goldcrest_guest::virtio::{Block, Error};
/// # extern crate alloc;
/// fn sum(disk: &mut Block) -> Result<u64, Error> {
///     for number in 0..8 {
///         let buffer = alloc::vec![0; 4096];
///         disk.submit_read(number * 8, buffer).map_err(|rejected| rejected.error)?;
///     }
///     let mut sum = 0;
///     for _ in 0..8 {
///         let completion = disk.wait()?;
///         completion.result?;
///         sum += completion.buffer.iter().map(|byte| u64::from(*byte)).sum::<u64>();
///     }
///     Ok(sum)
/// }
/// ```
#[derive(Debug)]
pub struct Block<R: Registers = Mmio> {
    /// First, so that the device is reset before memory that it uses is freed.
    transport: Transport<R>,
    queue: Queue,
    /// A [`SLOT`] for each request.
    requests: Shared,
    /// The buffers of the requests in flight that own theirs, by the request's number.
    lent: Vec<Option<(Ticket, Vec<u8>)>>,
    completed: VecDeque<Completion>,
    next_ticket: u64,
    block_size: u32,
    /// Bytes.
    max_request: u32,
}

impl Block {
    /// Bytes of a sector, the unit of addresses.
    pub const SECTOR: u32 = 512;

    /// Drives the machine's first disk.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and those of [`new`](Self::new).
    pub fn first() -> Result<Self, Error> {
        Self::new(first(id::BLOCK)?)
    }

    /// Drives a disk. It is reset first.
    ///
    /// # Errors
    ///
    /// If the device is no disk, or none that this driver can drive.
    pub fn new(device: Device) -> Result<Self, Error> {
        Self::with_registers(Mmio::new(device))
    }
}

impl<R: Registers> Block<R> {
    /// Drives the disk with these registers.
    ///
    /// # Errors
    ///
    /// Those of [`Block::new`].
    pub fn with_registers(registers: R) -> Result<Self, Error> {
        let mut transport = Transport::start(registers, id::BLOCK, feature::WANTED)?;
        let block_size = if transport.has(feature::BLK_SIZE) {
            transport.config(offset::BLK_SIZE)
        } else {
            Block::SECTOR
        };
        let max_request = if transport.has(feature::SIZE_MAX) {
            transport.config(offset::SIZE_MAX).min(MAX_REQUEST)
        } else {
            MAX_REQUEST
        };
        if block_size == 0 || !block_size.is_multiple_of(Block::SECTOR) || block_size > max_request
        {
            return Err(Error::Answer { found: block_size });
        }
        let queue = transport.queue(0, QUEUE_SIZE)?;
        if queue.size() < MAX_SEGMENTS {
            return Err(Error::Queue { index: 0 });
        }
        let requests = Shared::new(SLOT * usize::from(queue.size()))?;
        transport.run();
        Ok(Self {
            transport,
            requests,
            lent: (0..queue.size()).map(|_| None).collect(),
            queue,
            completed: VecDeque::new(),
            next_ticket: 0,
            block_size,
            max_request: max_request - max_request % block_size,
        })
    }

    /// Sectors that the disk has.
    pub fn capacity(&self) -> u64 {
        self.transport.config_u64(offset::CAPACITY)
    }

    /// Bytes of a block: what is read and written at once at least.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Whether the disk cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.transport.has(feature::RO)
    }

    /// Whether [`discard`](Self::discard) is offered.
    pub fn can_discard(&self) -> bool {
        self.transport.has(feature::DISCARD)
    }

    /// Whether [`write_zeroes`](Self::write_zeroes) is offered.
    pub fn can_write_zeroes(&self) -> bool {
        self.transport.has(feature::WRITE_ZEROES)
    }

    /// Reads from `sector` on.
    ///
    /// # Errors
    ///
    /// If the buffer is not of whole blocks or reaches beyond the end, or the device fails.
    pub fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.check(sector, buffer.len())?;
        let mut sector = sector;
        for part in buffer.chunks_mut(self.max_request()) {
            let data = Segment::to_write(part);
            // SAFETY: the part is borrowed until this returns.
            unsafe { self.perform(Kind::In, sector, Some(data))? };
            sector += sectors(part.len());
        }
        Ok(())
    }

    /// Writes from `sector` on.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read), and [`Error::ReadOnly`].
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Error> {
        self.check_writable()?;
        self.check(sector, data.len())?;
        let mut sector = sector;
        for part in data.chunks(self.max_request()) {
            let data = Segment::to_read(part);
            // SAFETY: the part is borrowed until this returns.
            unsafe { self.perform(Kind::Out, sector, Some(data))? };
            sector += sectors(part.len());
        }
        Ok(())
    }

    /// Has the device put all that was written where it survives. Without this feature there is nothing to do: every
    /// write does (§5.2.6.2).
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn flush(&mut self) -> Result<(), Error> {
        if !self.transport.has(feature::FLUSH) {
            return self.transport.check();
        }
        // SAFETY: there is no buffer.
        unsafe { self.perform(Kind::Flush, 0, None) }
    }

    /// Says that the content of `count` sectors from `sector` on is no longer needed; what they hold then is up to the
    /// device.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write), and [`Error::Unsupported`].
    pub fn discard(&mut self, sector: u64, count: u64) -> Result<(), Error> {
        if !self.can_discard() {
            return Err(Error::Unsupported);
        }
        let most = self.transport.config(offset::MAX_DISCARD_SECTORS);
        self.perform_on(Kind::Discard, sector, count, most, false)
    }

    /// Fills `count` sectors from `sector` on with zeroes. If `unmap`, the device may free what backs them.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write), and [`Error::Unsupported`].
    pub fn write_zeroes(&mut self, sector: u64, count: u64, unmap: bool) -> Result<(), Error> {
        if !self.can_write_zeroes() {
            return Err(Error::Unsupported);
        }
        let most = self.transport.config(offset::MAX_WRITE_ZEROES_SECTORS);
        self.perform_on(Kind::WriteZeroes, sector, count, most, unmap)
    }

    /// The name that the host gave to the disk: up to 20 bytes, filled up by zeroes.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it gave none, and if the device fails.
    pub fn id(&mut self) -> Result<[u8; 20], Error> {
        let mut name = [0; 20];
        let data = Segment::to_write(&mut name);
        // SAFETY: the array is not accessed before this has returned.
        unsafe { self.perform(Kind::GetId, 0, Some(data))? };
        Ok(name)
    }

    fn max_request(&self) -> usize {
        usize::try_from(self.max_request).unwrap_or(usize::MAX)
    }

    fn check_writable(&self) -> Result<(), Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    fn check(&self, sector: u64, len: usize) -> Result<(), Error> {
        let block = self.block_size;
        let bytes = [len as u64, sector.wrapping_mul(Block::SECTOR.into())];
        if bytes
            .iter()
            .any(|bytes| !bytes.is_multiple_of(block.into()))
        {
            return Err(Error::Unaligned { len, block });
        }
        self.check_range(sector, sectors(len))
    }

    fn check_range(&self, sector: u64, count: u64) -> Result<(), Error> {
        let capacity = self.capacity();
        match sector.checked_add(count) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(Error::OutOfRange {
                sector,
                count,
                capacity,
            }),
        }
    }

    /// Discards or zeroes sectors, `most` at once.
    fn perform_on(
        &mut self,
        kind: Kind,
        sector: u64,
        count: u64,
        most: u32,
        unmap: bool,
    ) -> Result<(), Error> {
        self.check_writable()?;
        self.check_range(sector, count)?;
        let block = u64::from(self.block_size / Block::SECTOR);
        let most = u64::from(most) / block * block;
        if most == 0 {
            return Err(Error::Answer { found: 0 });
        }
        let (mut sector, mut left) = (sector, count);
        while left > 0 {
            let now = left.min(most);
            let range = Range {
                sector,
                count: u32::try_from(now).unwrap_or(u32::MAX),
                unmap,
            }
            .to_bytes();
            // SAFETY: the range lives until this returns.
            unsafe { self.perform(kind, 0, Some(Segment::to_read(&range)))? };
            sector += now;
            left -= now;
        }
        Ok(())
    }

    /// Has the device do something, and waits until it is done.
    ///
    /// # Safety
    ///
    /// The data stays valid until this returns, and nobody else accesses it.
    unsafe fn perform(
        &mut self,
        kind: Kind,
        sector: u64,
        data: Option<Segment>,
    ) -> Result<(), Error> {
        let number = loop {
            // SAFETY: this returns when the request is completed, or the device was reset by `Transport::wait`.
            match unsafe { self.submit(kind, sector, data) } {
                Err(Error::Full) => {
                    let used = self.transport.wait(&mut self.queue)?;
                    self.collect(used);
                }
                submitted => break submitted?,
            }
        };
        self.transport.publish(&mut self.queue);
        loop {
            let used = self.transport.wait(&mut self.queue)?;
            if used.head == number {
                return request::result(&self.requests, number);
            }
            self.collect(used);
        }
    }

    /// Puts a request into the queue; gives its number.
    ///
    /// # Safety
    ///
    /// The data stays valid, and nobody accesses it, until the request is completed or the device is reset.
    unsafe fn submit(
        &mut self,
        kind: Kind,
        sector: u64,
        data: Option<Segment>,
    ) -> Result<u16, Error> {
        self.transport.check()?;
        let count = 2 + u16::from(data.is_some());
        let number = self.queue.next_head(count).ok_or(Error::Full)?;
        let [header, status] = request::prepare(&mut self.requests, number, kind, sector);
        // SAFETY: header and status are in `requests`, of which this number's slot is not in use; it is kept until the
        // device is reset, as `transport` is dropped first. The caller answers for the data.
        unsafe {
            match data {
                Some(data) => self.queue.add(&[header, data, status]),
                None => self.queue.add(&[header, status]),
            }
        }
    }
}

/// Whole sectors of so many bytes.
fn sectors(len: usize) -> u64 {
    len as u64 / u64::from(Block::SECTOR)
}
