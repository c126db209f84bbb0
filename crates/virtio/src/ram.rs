//! Guest RAM as devices reach it.

use std::sync::atomic::Ordering;

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice,
};

use crate::QueueError;

/// Guest RAM. Copies refer to the same.
///
/// Almost all of what devices touch lies in the first region, so that it is looked up once; what does not is looked up
/// when it is touched.
#[derive(Debug, Clone, Copy)]
pub struct Ram<'m> {
    memory: &'m GuestMemoryMmap,
    first: Option<(u64, VolatileSlice<'m>)>,
}

impl<'m> Ram<'m> {
    /// All of `memory`.
    pub fn new(memory: &'m GuestMemoryMmap) -> Self {
        let first = memory.iter().next().and_then(|region| {
            let slice = region.as_volatile_slice().ok()?;
            Some((region.start_addr().0, slice))
        });
        Self { memory, first }
    }

    /// The memory as rust-vmm's crates know it.
    pub fn memory(&self) -> &'m GuestMemoryMmap {
        self.memory
    }

    /// `len` bytes at guest-physical `address`, if they lie in one region of RAM.
    #[inline]
    pub fn slice(&self, address: u64, len: usize) -> Option<VolatileSlice<'m>> {
        if let Some((base, first)) = &self.first
            && let Some(offset) = address.checked_sub(*base)
            && let Ok(offset) = usize::try_from(offset)
            && let Ok(slice) = first.subslice(offset, len)
        {
            return Some(slice);
        }
        self.memory.get_slice(GuestAddress(address), len).ok()
    }

    /// The longest slice at `address` that is RAM, of up to `len` bytes: shorter where a region of RAM ends.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if there is no RAM at `address`.
    #[inline]
    pub fn slice_up_to(&self, address: u64, len: usize) -> Result<VolatileSlice<'m>, QueueError> {
        match self.slice(address, len) {
            Some(slice) => Ok(slice),
            None => self.slice_to_end(address, len),
        }
    }

    #[cold]
    fn slice_to_end(&self, address: u64, len: usize) -> Result<VolatileSlice<'m>, QueueError> {
        let outside = QueueError::Buffer { address, len };
        let (region, offset) = self
            .memory
            .to_region_addr(GuestAddress(address))
            .ok_or(outside)?;
        let left = usize::try_from(region.len() - offset.0).unwrap_or(usize::MAX);
        region.get_slice(offset, left.min(len)).map_err(|_| outside)
    }

    /// Reads all of `bytes` at `address`.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if not all of it is RAM.
    pub fn read(&self, mut address: u64, bytes: &mut [u8]) -> Result<(), QueueError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.slice_up_to(address, rest.len())?;
            let (now, later) = rest.split_at_mut(slice.len());
            slice.copy_to(now);
            address = address.wrapping_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    /// Writes all of `bytes` at `address`.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if not all of it is RAM; a part may have been written.
    pub fn write(&self, mut address: u64, bytes: &[u8]) -> Result<(), QueueError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let slice = self.slice_up_to(address, rest.len())?;
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            address = address.wrapping_add(now.len() as u64);
            rest = later;
        }
        Ok(())
    }
}

/// A little-endian number in a part of a queue that was checked to hold it; 0 where it was not.
#[inline]
pub(crate) fn load_u16(slice: &VolatileSlice<'_>, offset: usize, order: Ordering) -> u16 {
    slice.load(offset, order).map_or(0, u16::from_le)
}

/// Stores a little-endian number in a part of a queue that was checked to hold it.
#[inline]
pub(crate) fn store_u16(slice: &VolatileSlice<'_>, offset: usize, value: u16, order: Ordering) {
    // Cannot fail: queues are aligned and long enough, or they are not used.
    let _ = slice.store(value.to_le(), offset, order);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two regions side by side, and one behind a hole.
    fn memory() -> GuestMemoryMmap {
        let ranges = [0, 0x1000, 0x8000].map(|start| (GuestAddress(start), 0x1000));
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    #[test]
    fn bytes_may_span_regions_but_not_leave_ram() {
        let memory = memory();
        let ram = Ram::new(&memory);
        ram.write(0xffe, &[1, 2, 3, 4]).unwrap();
        let mut bytes = [0; 4];
        ram.read(0xffe, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert_eq!(ram.slice_up_to(0xffe, 4).unwrap().len(), 2);
        assert_eq!(ram.slice_up_to(0x8ffe, 4).unwrap().len(), 2);
        for address in [0x1ffd, 0x2000, 0x7fff, 0x8ffd, u64::MAX - 1] {
            assert!(ram.read(address, &mut bytes).is_err(), "{address:#x}");
            assert!(ram.write(address, &bytes).is_err(), "{address:#x}");
        }
    }

    #[test]
    fn slices_lie_in_one_region() {
        let memory = memory();
        let ram = Ram::new(&memory);
        assert!(ram.slice(0, 0x1000).is_some());
        assert!(ram.slice(0x1000, 0x1000).is_some());
        assert!(ram.slice(0x8800, 0x800).is_some());
        for (address, len) in [(0x2000, 1), (0x8800, 0x801), (u64::MAX, 2), (0, usize::MAX)] {
            assert!(ram.slice(address, len).is_none(), "{address:#x}");
        }
    }
}
