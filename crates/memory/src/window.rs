//! Guest RAM that was found once and is accessed often.
#![allow(
    unsafe_code,
    reason = "what keeps the memory that it points to alive cannot be borrowed by itself"
)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice,
};

/// A range of guest-physical addresses in one region of RAM, which stays mapped for as long as this lives.
///
/// An access is a comparison with the length. Offsets are bytes from the range's start, numbers little-endian; what
/// does not lie in the range is not accessed. The guest may write at any time, so that nothing is read twice.
#[derive(Debug, Clone)]
pub struct Window {
    /// Keeps the mapping alive.
    memory: GuestMemoryMmap,
    start: u64,
    pointer: NonNull<u8>,
    len: usize,
    /// The same bytes as 16-bit numbers; nothing, elsewhere, if the first would not be aligned in the host.
    numbers: NonNull<[AtomicU16]>,
}

// SAFETY: `pointer` and `numbers` are all that keep this from being Send and Sync by itself. What they point to is guest
// RAM, which belongs to no thread: it is accessed as volatile bytes and as atomics only, and its mapping, which
// `memory` holds, may be used and dropped by any thread.
unsafe impl Send for Window {}
// SAFETY: as above; a shared reference gives the same accesses, none of which relies on being the only one.
unsafe impl Sync for Window {}

impl Window {
    /// `len` bytes from guest-physical `start`, if they lie in one region.
    pub fn new(memory: &GuestMemoryMmap, start: u64, len: usize) -> Option<Self> {
        let slice = memory.get_slice(GuestAddress(start), len).ok()?;
        Some(Self::of(memory, start, &slice))
    }

    /// The first region, by address; nothing if there is none.
    pub fn first_region(memory: &GuestMemoryMmap) -> Self {
        let window = memory.iter().next().and_then(|region| {
            let slice = region.as_volatile_slice().ok()?;
            Some(Self::of(memory, region.start_addr().0, &slice))
        });
        window.unwrap_or_else(|| Self {
            memory: memory.clone(),
            ..Self::default()
        })
    }

    /// `slice` is what `memory` has at `start`.
    fn of(memory: &GuestMemoryMmap, start: u64, slice: &VolatileSlice<'_>) -> Self {
        match NonNull::new(slice.ptr_guard_mut().as_ptr()) {
            Some(pointer) => Self {
                memory: memory.clone(),
                start,
                pointer,
                len: slice.len(),
                numbers: numbers(pointer, slice.len()),
            },
            // No mapping is at address 0 of the host.
            None => Self::default(),
        }
    }

    /// All of the memory that it is a part of.
    #[inline]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Guest-physical address of the first byte.
    #[inline]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it.
    #[inline]
    pub fn as_slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `len` bytes from `pointer` are a slice that `memory` gave (or none), and `memory` holds a reference
        // to the region that it gave it from, which stays mapped, and where it is, until `self` is dropped, which the
        // slice borrows. Files are mapped over parts of it, never is a part unmapped. Everybody accesses guest RAM by
        // volatile means.
        unsafe { VolatileSlice::new(self.pointer.as_ptr(), self.len) }
    }

    /// `len` bytes from `offset`.
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.as_slice().subslice(offset, len).ok()
    }

    /// Reads the 16-bit number with this index, before all that is read afterwards (acquire). Nothing if it does not lie
    /// in the range, or if that begins at an odd address.
    #[inline]
    pub fn load_u16(&self, index: usize) -> Option<u16> {
        let number = self.numbers().get(index)?;
        Some(u16::from_le(number.load(Ordering::Acquire)))
    }

    /// Writes the 16-bit number with this index, after all that was written before (release). Returns whether there is
    /// one, as for [`load_u16`](Self::load_u16).
    #[inline]
    pub fn store_u16(&self, index: usize, value: u16) -> bool {
        match self.numbers().get(index) {
            Some(number) => {
                number.store(value.to_le(), Ordering::Release);
                true
            }
            None => false,
        }
    }

    #[inline]
    fn numbers(&self) -> &[AtomicU16] {
        // SAFETY: it is either empty, aligned and not null, or what `numbers()` made of the `len` bytes from `pointer`:
        // aligned for numbers, and no longer than those bytes, which are mapped for reading and writing while `self` is
        // borrowed (see `as_slice`). Any bytes are a number, and that the guest and others change them at the same time
        // is what atomics are for.
        unsafe { self.numbers.as_ref() }
    }
}

/// As many numbers as `len` bytes from `pointer` are, if it is aligned for them.
fn numbers(pointer: NonNull<u8>, len: usize) -> NonNull<[AtomicU16]> {
    let first = pointer.cast::<AtomicU16>();
    match first.is_aligned() {
        true => NonNull::slice_from_raw_parts(first, len / size_of::<AtomicU16>()),
        false => nothing(),
    }
}

fn nothing() -> NonNull<[AtomicU16]> {
    NonNull::slice_from_raw_parts(NonNull::dangling(), 0)
}

/// Nowhere: no bytes at all.
impl Default for Window {
    fn default() -> Self {
        Self {
            memory: GuestMemoryMmap::default(),
            start: 0,
            pointer: NonNull::dangling(),
            len: 0,
            numbers: nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    /// Two regions side by side.
    fn memory() -> GuestMemoryMmap {
        let ranges = [0x1000, 0x2000].map(|start| (GuestAddress(start), 0x1000));
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    #[test]
    fn a_window_lies_in_one_region() {
        let memory = memory();
        for (start, len, possible) in [
            (0x1000, 0x1000, true),
            (0x2ff0, 0x10, true),
            (0x1fff, 2, false),
            (0xfff, 2, false),
            (0x2fff, 2, false),
            (0x3000, 1, false),
            (u64::MAX, 2, false),
            (0x1000, usize::MAX, false),
        ] {
            let window = Window::new(&memory, start, len);
            assert_eq!(window.is_some(), possible, "{start:#x} {len:#x}");
        }
        let first = Window::first_region(&memory);
        assert_eq!((first.start(), first.len()), (0x1000, 0x1000));
        assert!(Window::first_region(&GuestMemoryMmap::default()).is_empty());
    }

    #[test]
    fn nothing_outside_of_it_is_accessed() {
        let memory = memory();
        let start = GuestAddress(0x1000);
        memory.write_slice(&[0xff; 32], start).unwrap();
        let window = Window::new(&memory, 0x1008, 9).unwrap();
        for index in [4, 5, usize::MAX / 2, usize::MAX] {
            assert_eq!(window.load_u16(index), None, "{index}");
            assert!(!window.store_u16(index, 0), "{index}");
            assert!(window.slice(index, 6).is_none(), "{index}");
        }
        assert!(window.slice(0, 9).is_some() && window.slice(9, 0).is_some());
        assert_eq!(memory.read_obj::<[u8; 32]>(start).unwrap(), [0xff; 32]);
        let nowhere = Window::default();
        assert!(nowhere.load_u16(0).is_none() && nowhere.slice(0, 1).is_none());
        assert!(!nowhere.store_u16(0, 1));
    }

    #[test]
    fn numbers_are_little_endian_and_at_even_addresses() {
        let memory = memory();
        let window = Window::new(&memory, 0x1002, 8).unwrap();
        assert!(window.store_u16(1, 0x0102));
        assert_eq!(window.load_u16(1), Some(0x0102));
        let bytes: [u8; 4] = memory.read_obj(GuestAddress(0x1002)).unwrap();
        assert_eq!(bytes, [0, 0, 2, 1]);
        let odd = Window::new(&memory, 0x1003, 8).unwrap();
        assert_eq!(odd.load_u16(0), None);
        assert!(!odd.store_u16(0, 1));
    }

    #[test]
    fn it_keeps_the_memory_alive() {
        let window = Window::first_region(&memory());
        assert!(window.store_u16(0, 7));
        let copy = window.clone();
        drop(window);
        let other = std::thread::spawn(move || copy.load_u16(0));
        assert_eq!(other.join().unwrap(), Some(7));
    }
}
