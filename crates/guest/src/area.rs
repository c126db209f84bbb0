//! Large pieces of memory at addresses of one's choice: what a program loads for somebody else to run.
#![allow(unsafe_code, reason = "memory whose content nobody has set")]

use alloc::alloc::{Layout, alloc, dealloc};
use core::arch::asm;
use core::ptr::NonNull;

/// Memory from the heap, aligned as asked for. What it holds at first is whatever was there: to zero it would touch every
/// page.
#[derive(Debug)]
pub struct Area {
    start: NonNull<u8>,
    layout: Layout,
}

impl Area {
    /// Takes `len` bytes at a multiple of `align`, a power of two; `None` if there is not so much memory.
    pub fn new(len: usize, align: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), align).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        start.as_ptr().expose_provenance();
        // SAFETY: does nothing. To the compiler it may have written to all memory that the pointer reaches, so that the
        // content is one that it does not know, but one: RAM holds what was stored last, and never nothing.
        unsafe { asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags)) };
        Some(Self { start, layout })
    }

    /// Its guest-physical address.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, written to as far as the compiler knows, and borrowed as `self` is.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_lies_where_it_was_asked_for() {
        let mut area = Area::new(5000, 1 << 20).expect("a mebibyte is there");
        assert!(area.address().is_multiple_of(1 << 20));
        area.bytes().fill(7);
        assert_eq!((area.bytes().len(), area.bytes()[4999]), (5000, 7));
        assert!(Area::new(usize::MAX, 1).is_none());
        assert!(Area::new(1, 3).is_none());
    }
}
