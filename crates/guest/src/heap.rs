//! The heap: all free memory of the machine, for unikernels that allocate.
//!
//! [`main!`](crate::main) makes it the global allocator, so that `extern crate alloc` is all it takes. A program that
//! does not allocate has nothing of it; one that brings its own allocator switches the feature `heap` off.
//!
//! Nothing is set up in advance: the first allocation gives the allocator (`talc`) a region of free memory, and when
//! that is used up, the next. Memory is touched only where something is allocated, and where a region begins and ends.
#![allow(unsafe_code, reason = "an allocator deals in raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, Ordering};

use goldcrest_abi::boot_info::{MemoryRegion, region};
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::lock_api::{GuardSend, RawMutex};
use talc::source::Source;

use crate::boot;

/// The allocator over all free memory; there can be one in a program, which [`main!`](crate::main) defines.
pub struct Heap(TalcLock<Alone, FreeRegions>);

impl Heap {
    /// An allocator that has not taken any memory yet.
    #[doc(hidden)]
    #[allow(clippy::new_without_default, reason = "only for the macro")]
    pub const fn new() -> Self {
        Self(TalcLock::new(FreeRegions { next: 0 }))
    }
}

// SAFETY: the allocator behind it upholds the contract; it gets memory that is nobody else's (`FreeRegions`).
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the contract is the same.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the contract is the same.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

/// Bytes of memory that the host says are free, whether or not they have been allocated since.
pub fn free_bytes() -> u64 {
    usable(boot::regions()).map(|(_, len)| len as u64).sum()
}

/// Gives the allocator one region after the other.
#[derive(Debug)]
struct FreeRegions {
    /// How many have been given.
    next: usize,
}

// SAFETY: it allocates nothing itself.
unsafe impl Source for FreeRegions {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, _: Layout) -> Result<(), ()> {
        loop {
            let (start, len) = usable(boot::regions()).nth(talc.source.next).ok_or(())?;
            talc.source.next += 1;
            let base = core::ptr::with_exposed_provenance_mut(start);
            // SAFETY: the host reports the region as free and mapped, nobody but this allocator takes regions, and it
            // takes each once. A region too small to be of use is refused, and the next one is tried.
            if unsafe { talc.claim(base, len) }.is_some() {
                return Ok(());
            }
        }
    }
}

/// The regions that are free: address and bytes. Page 0 is not, whatever is said of it.
fn usable(regions: &[MemoryRegion]) -> impl Iterator<Item = (usize, usize)> {
    regions
        .iter()
        .filter(|found| found.kind == region::USABLE)
        .filter_map(|found| {
            let start = usize::try_from(found.start).ok()?;
            let end = start.checked_add(usize::try_from(found.len).ok()?)?;
            let start = start.max(4096);
            end.checked_sub(start)
                .filter(|len| *len != 0)
                .map(|len| (start, len))
        })
}

/// A lock for one processor: whoever finds it taken has interrupted its holder, so that waiting would never end.
struct Alone(AtomicBool);

// SAFETY: one holder at a time: taking it swaps the flag, and taking it twice panics.
unsafe impl RawMutex for Alone {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait wants it")]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    #[allow(clippy::panic, reason = "the only way to say so")]
    fn lock(&self) {
        if !self.try_lock() {
            panic!("a trap handler allocates memory in the middle of another allocation");
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn region(start: u64, len: u64, kind: u32) -> MemoryRegion {
        MemoryRegion {
            start,
            len,
            kind,
            reserved: 0,
        }
    }

    #[test]
    fn only_free_regions_that_can_be_are_used() {
        let regions = [
            region(0, 0x1000, region::USABLE),
            region(0, 0x8_0000, region::USABLE),
            region(0x10_0000, 0x1000, region::IMAGE),
            region(0x20_0000, 0x10_0000, region::USABLE),
            region(0x40_0000, 0, region::USABLE),
            region(u64::MAX, 2, region::USABLE),
            region(0x50_0000, 0x1000, 77),
        ];
        let found: Vec<_> = usable(&regions).collect();
        assert_eq!(found, [(0x1000, 0x7_f000), (0x20_0000, 0x10_0000)]);
    }

    #[test]
    fn without_boot_information_there_is_no_memory() {
        assert_eq!(free_bytes(), 0);
        // SAFETY: the layout is not empty.
        assert!(unsafe { Heap::new().alloc(Layout::new::<u64>()) }.is_null());
    }
}
