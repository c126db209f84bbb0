//! Guest RAM as devices reach it.

use goldcrest_memory::Window;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileMemory,
    VolatileSlice,
};

use crate::QueueError;

/// Guest RAM. Copies refer to the same.
///
/// Almost all of what devices touch lies in the first region, so that it is looked up once; what does not is looked up
/// when it is touched.
#[derive(Debug, Clone, Copy)]
pub struct Ram<'m>(&'m Window);

impl<'m> Ram<'m> {
    /// All of the memory that `window` is a part of. What lies in `window` is found soonest, which should be the
    /// [first region](Window::first_region).
    #[inline]
    pub fn new(window: &'m Window) -> Self {
        Self(window)
    }

    /// The memory as rust-vmm's crates know it.
    #[inline]
    pub fn memory(&self) -> &'m GuestMemoryMmap {
        self.0.memory()
    }

    /// `len` bytes at guest-physical `address`, if they lie in one region of RAM.
    #[inline]
    pub fn slice(&self, address: u64, len: usize) -> Option<VolatileSlice<'m>> {
        match self.near(address, len) {
            None => self.far(address, len),
            slice => slice,
        }
    }

    /// As [`slice`](Self::slice), where it is found soonest only.
    #[inline]
    pub(crate) fn near(&self, address: u64, len: usize) -> Option<VolatileSlice<'m>> {
        let offset = address.checked_sub(self.0.start())?;
        self.0.slice(usize::try_from(offset).ok()?, len)
    }

    #[cold]
    fn far(&self, address: u64, len: usize) -> Option<VolatileSlice<'m>> {
        self.memory().get_slice(GuestAddress(address), len).ok()
    }

    /// The longest slice at `address` that is RAM, of up to `len` bytes: shorter where a region of RAM ends.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if there is no RAM at `address`.
    #[inline]
    pub fn slice_up_to(&self, address: u64, len: usize) -> Result<VolatileSlice<'m>, QueueError> {
        match self.near(address, len) {
            Some(slice) => Ok(slice),
            None => self.far_up_to(address, len),
        }
    }

    #[cold]
    fn far_up_to(&self, address: u64, len: usize) -> Result<VolatileSlice<'m>, QueueError> {
        if let Some(slice) = self.far(address, len) {
            return Ok(slice);
        }
        let outside = QueueError::Buffer { address, len };
        let (region, offset) = self
            .memory()
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

    /// Reads `N` bytes at `address`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[inline]
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], QueueError> {
        if let Some(slice) = self.near(address, N) {
            return Ok(array(&slice));
        }
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes one byte at `address`.
    ///
    /// # Errors
    ///
    /// [`QueueError::Buffer`] if it is not RAM.
    #[inline]
    pub fn write_byte(&self, address: u64, value: u8) -> Result<(), QueueError> {
        let slice = self.slice_up_to(address, 1)?;
        slice
            .get_ref(0)
            .map(|byte| byte.store(value))
            .map_err(|_| QueueError::Buffer { address, len: 1 })
    }
}

/// The first `N` bytes of a slice that has as many, each read once; eight at a time, which a call to copy them would
/// cost more than.
#[inline(always)]
pub(crate) fn array<const N: usize>(slice: &VolatileSlice<'_>) -> [u8; N] {
    let mut bytes = [0; N];
    let (numbers, rest) = bytes.as_chunks_mut::<8>();
    let mut offset = 0;
    for number in numbers {
        if let Ok(place) = slice.get_ref::<u64>(offset) {
            *number = place.load().to_ne_bytes();
        }
        offset += 8;
    }
    if let Ok(number) = <&mut [u8; 4]>::try_from(&mut *rest) {
        if let Ok(place) = slice.get_ref::<u32>(offset) {
            *number = place.load().to_ne_bytes();
        }
    } else if !rest.is_empty()
        && let Ok(slice) = slice.offset(offset)
    {
        slice.copy_to(rest);
    }
    bytes
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
        let window = Window::first_region(&memory);
        let ram = Ram::new(&window);
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
        let window = Window::first_region(&memory);
        let ram = Ram::new(&window);
        assert!(ram.slice(0, 0x1000).is_some());
        assert!(ram.slice(0x1000, 0x1000).is_some());
        assert!(ram.slice(0x8800, 0x800).is_some());
        for (address, len) in [(0x2000, 1), (0x8800, 0x801), (u64::MAX, 2), (0, usize::MAX)] {
            assert!(ram.slice(address, len).is_none(), "{address:#x}");
        }
    }
}
