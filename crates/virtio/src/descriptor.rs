//! Descriptors (§2.7.5): a walk along a chain of them, which reads each once and checks it.

use goldcrest_memory::io::Segment;
use vm_memory::{VolatileMemory, VolatileSlice};

use crate::spec::ring;
use crate::{QueueError, Ram};

/// `struct virtq_desc`.
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// A table of descriptors, of which it has room for nothing else: a queue's, or an indirect one.
pub(crate) struct Table<'a>(pub(crate) VolatileSlice<'a>);

/// The rules for a chain, and what it adds up to.
pub(crate) struct Walk<'a> {
    pub(crate) ram: Ram<'a>,
    /// The queue's entries: no chain is longer.
    pub(crate) size: u16,
    /// Whether indirect tables have been agreed on.
    pub(crate) indirect: bool,
}

/// What a chain adds up to.
#[derive(Default)]
pub(crate) struct Sum {
    /// Descriptors.
    pub(crate) count: usize,
    /// The first of them, which are for reading.
    pub(crate) readable: usize,
    pub(crate) bytes_readable: u64,
    pub(crate) bytes_writable: u64,
}

impl<'a> Walk<'a> {
    /// Walks from `head` in `table` and puts down in `segments`, as many as the queue has entries, what it comes by.
    #[inline(always)]
    pub(crate) fn along(
        &self,
        mut table: Table<'a>,
        head: u16,
        segments: &mut [Segment],
    ) -> Result<Sum, QueueError> {
        let (mut index, mut in_indirect) = (head, false);
        let mut sum = Sum::default();
        loop {
            let descriptor = table.read(index)?;
            if descriptor.flags & ring::DESC_F_INDIRECT != 0 {
                if !self.indirect || in_indirect || descriptor.flags & ring::DESC_F_NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                table = self.indirect_table(&descriptor)?;
                (index, in_indirect) = (0, true);
                continue;
            }
            let Some(segment) = segments.get_mut(sum.count) else {
                return Err(QueueError::ChainLength(self.size));
            };
            sum.add(&descriptor)?;
            *segment = Segment {
                address: descriptor.address,
                len: descriptor.len,
            };
            if descriptor.flags & ring::DESC_F_NEXT == 0 {
                return sum.checked();
            }
            index = descriptor.next;
        }
    }

    /// §2.7.5.3.
    #[cold]
    fn indirect_table(&self, descriptor: &Descriptor) -> Result<Table<'a>, QueueError> {
        let bytes = descriptor.len;
        let count = bytes / ring::DESCRIPTOR_SIZE;
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if bytes == 0 || !bytes.is_multiple_of(ring::DESCRIPTOR_SIZE) || count > self.size {
            return Err(QueueError::IndirectSize(bytes));
        }
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let outside = QueueError::Buffer {
            address: descriptor.address,
            len,
        };
        let table = self.ram.slice(descriptor.address, len).ok_or(outside)?;
        Ok(Table(table))
    }
}

impl Table<'_> {
    #[inline(always)]
    fn read(&self, index: u16) -> Result<Descriptor, QueueError> {
        const SIZE: usize = ring::DESCRIPTOR_SIZE as usize;
        let Ok(place) = self.0.get_ref::<u128>(usize::from(index) * SIZE) else {
            return Err(self.has_no(index));
        };
        let [rest @ .., a, b, c, d, e, f, g, h] = place.load().to_ne_bytes();
        Ok(Descriptor {
            address: u64::from_le_bytes(rest),
            len: u32::from_le_bytes([a, b, c, d]),
            flags: u16::from_le_bytes([e, f]),
            next: u16::from_le_bytes([g, h]),
        })
    }

    #[cold]
    fn has_no(&self, index: u16) -> QueueError {
        let len = self.0.len() / ring::DESCRIPTOR_SIZE as usize;
        QueueError::DescriptorIndex {
            index,
            len: u16::try_from(len).unwrap_or(u16::MAX),
        }
    }
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, descriptor: &Descriptor) -> Result<(), QueueError> {
        let len = u64::from(descriptor.len);
        if descriptor.flags & ring::DESC_F_WRITE != 0 {
            self.bytes_writable += len;
        } else if self.readable < self.count {
            return Err(QueueError::ReadableAfterWritable);
        } else {
            self.readable += 1;
            self.bytes_readable += len;
        }
        self.count += 1;
        Ok(())
    }

    /// There are up to 2^15 descriptors, whose lengths cannot add up to more than 64 bits hold.
    #[inline]
    fn checked(self) -> Result<Self, QueueError> {
        if self.bytes_readable + self.bytes_writable > 1 << 32 {
            return Err(QueueError::ChainBytes);
        }
        Ok(self)
    }
}
