//! Memory that a driver shares with its device.
#![allow(unsafe_code, reason = "memory that somebody else writes to")]

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;

use super::Error;

/// Zeroed memory, aligned to a page. The device may read and write it at any time: it is only accessed by volatile reads
/// and writes of single integers.
#[derive(Debug)]
pub(super) struct Shared {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the value, and whoever has it may access it.
unsafe impl Send for Shared {}

impl Shared {
    /// Allocates `len` bytes.
    pub(super) fn new(len: usize) -> Result<Self, Error> {
        let layout = Layout::from_size_align(len.max(1), 4096).map_err(|_| Error::OutOfMemory)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Error::OutOfMemory)?;
        start.as_ptr().expose_provenance();
        Ok(Self { start, layout })
    }

    /// Guest-physical address of the byte at `offset`.
    pub(super) fn address(&self, offset: usize) -> u64 {
        (self.start.as_ptr().addr() + offset) as u64
    }

    /// The integer at `offset`, which has to lie within and be aligned; else 0.
    pub(super) fn read<T: Integer>(&self, offset: usize) -> T {
        match self.at::<T>(offset) {
            // SAFETY: `at` has checked it; memory holds integers of any value.
            Some(pointer) => unsafe { pointer.read_volatile() },
            None => T::default(),
        }
    }

    /// Stores an integer at `offset`, which has to lie within and be aligned; else does nothing.
    pub(super) fn write<T: Integer>(&mut self, offset: usize, value: T) {
        if let Some(pointer) = self.at::<T>(offset) {
            // SAFETY: `at` has checked it, and there are no references to this memory.
            unsafe { pointer.write_volatile(value) };
        }
    }

    fn at<T: Integer>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        let inside = end <= self.layout.size() && offset.is_multiple_of(align_of::<T>());
        // SAFETY: within the allocation, as just checked.
        inside.then(|| unsafe { self.start.byte_add(offset) }.cast())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout. Drivers keep the memory until the device is reset (`Transport::drop`).
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// What is read and written as one.
pub(super) trait Integer: Copy + Default {}

impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}
