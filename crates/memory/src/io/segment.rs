//! Parts of guest RAM.

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// A part of guest RAM that takes part in a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first byte's guest-physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

/// The slices of `segments`, in their order. A segment that runs from one region of RAM into the next gives several,
/// an empty one none, and one that is not all RAM an error.
pub(crate) fn slices<'m>(
    memory: &'m GuestMemoryMmap,
    segments: &[Segment],
) -> impl Iterator<Item = io::Result<VolatileSlice<'m>>> {
    segments.iter().flat_map(move |segment| {
        // Where `usize` is smaller than that, so is RAM.
        let len = usize::try_from(segment.len).unwrap_or(usize::MAX);
        memory
            .get_slices(GuestAddress(segment.address), len)
            .map(|slice| slice.map_err(|_| io::Error::from_raw_os_error(libc::EFAULT)))
    })
}
