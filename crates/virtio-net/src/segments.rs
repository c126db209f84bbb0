//! Bytes between guest RAM and the host, for backends that keep frames in memory.

use std::io;

use goldcrest_virtio::{QueueError, Ram, Segment};
use vm_memory::VolatileSlice;

/// How many bytes `segments` have.
pub fn total(segments: &[Segment]) -> usize {
    segments.iter().fold(0, |sum: usize, segment| {
        sum.saturating_add(usize::try_from(segment.len).unwrap_or(usize::MAX))
    })
}

/// Copies what lies in `segments` to the beginning of `bytes`, as far as it fits. Returns how many bytes that were.
///
/// # Errors
///
/// [`QueueError::Buffer`] if it does not lie in RAM.
#[inline]
pub fn gather(ram: Ram<'_>, segments: &[Segment], bytes: &mut [u8]) -> Result<usize, QueueError> {
    let mut done = 0;
    each(ram, segments, 0, bytes.len(), |slice| {
        if let Some(to) = bytes.get_mut(done..) {
            done += slice.copy_to(to);
        }
    })?;
    Ok(done)
}

/// Copies `bytes` to `segments`, from `offset` in them on, as far as they fit. Returns how many bytes that were.
///
/// # Errors
///
/// [`QueueError::Buffer`] if `segments` do not lie in RAM; some may have been written.
#[inline]
pub fn scatter(
    ram: Ram<'_>,
    segments: &[Segment],
    offset: usize,
    bytes: &[u8],
) -> Result<usize, QueueError> {
    let mut done = 0;
    each(ram, segments, offset, bytes.len(), |slice| {
        if let Some(from) = bytes.get(done..) {
            slice.copy_from(from);
            done += slice.len();
        }
    })?;
    Ok(done)
}

/// Calls `work` with up to `left` bytes of `segments` from `skip` on, piece by piece.
#[inline]
fn each<'m>(
    ram: Ram<'m>,
    segments: &[Segment],
    mut skip: usize,
    mut left: usize,
    mut work: impl FnMut(VolatileSlice<'m>),
) -> Result<(), QueueError> {
    for segment in segments {
        let len = usize::try_from(segment.len).unwrap_or(usize::MAX);
        if skip >= len {
            skip -= len;
            continue;
        }
        let mut address = segment.address.wrapping_add(skip as u64);
        let mut here = (len - skip).min(left);
        skip = 0;
        left -= here;
        while here > 0 {
            let slice = ram.slice_up_to(address, here)?;
            work(slice);
            here -= slice.len();
            address = address.wrapping_add(slice.len() as u64);
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// What of `segments` is not RAM, if anything is not.
pub(crate) fn outside(ram: Ram<'_>, segments: &[Segment]) -> Option<QueueError> {
    each(ram, segments, 0, usize::MAX, |_| {}).err()
}

/// As an error of a backend's.
#[cold]
pub(crate) fn invalid(error: QueueError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// The slices of `segments`: of one that runs from one region of RAM into the next, several.
pub(crate) fn slices<'a, 'm: 'a>(
    ram: Ram<'m>,
    segments: &'a [Segment],
) -> impl Iterator<Item = io::Result<VolatileSlice<'m>>> + 'a {
    segments.iter().flat_map(move |segment| {
        let mut address = segment.address;
        let mut left = usize::try_from(segment.len).unwrap_or(usize::MAX);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            match ram.slice_up_to(address, left) {
                Ok(slice) => {
                    left -= slice.len();
                    address = address.wrapping_add(slice.len() as u64);
                    Some(Ok(slice))
                }
                Err(error) => {
                    left = 0;
                    Some(Err(invalid(error)))
                }
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use goldcrest_virtio::Window;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    /// Two regions side by side.
    fn memory() -> GuestMemoryMmap {
        let ranges = [0, 0x1000].map(|start| (GuestAddress(start), 0x1000));
        GuestMemoryMmap::from_ranges(&ranges).unwrap()
    }

    fn segment(address: u64, len: u32) -> Segment {
        Segment { address, len }
    }

    #[test]
    fn what_is_scattered_is_gathered_again() {
        let window = Window::first_region(&memory());
        let ram = Ram::new(&window);
        let parts = [
            segment(0x10, 3),
            segment(0, 0),
            segment(0xffe, 5),
            segment(0x100, 2),
        ];
        assert_eq!(total(&parts), 10);
        assert_eq!(scatter(ram, &parts, 0, b"0123456789ab").unwrap(), 10);
        let mut bytes = [0; 12];
        assert_eq!(gather(ram, &parts, &mut bytes).unwrap(), 10);
        assert_eq!(&bytes, b"0123456789\0\0");
        assert_eq!(scatter(ram, &parts, 2, b"xyz").unwrap(), 3);
        assert_eq!(gather(ram, &parts, &mut bytes[..6]).unwrap(), 6);
        assert_eq!(&bytes[..6], b"01xyz5");
        let lens: Vec<_> = slices(ram, &parts)
            .map(|slice| slice.unwrap().len())
            .collect();
        assert_eq!(lens, [3, 2, 3, 2]);
    }

    #[test]
    fn what_is_not_ram_is_an_error() {
        let window = Window::first_region(&memory());
        let ram = Ram::new(&window);
        for bad in [segment(0x1fff, 2), segment(u64::MAX, 2), segment(0x8000, 1)] {
            assert!(scatter(ram, &[bad], 0, b"abc").is_err());
            assert!(gather(ram, &[bad], &mut [0; 3]).is_err());
            let last = slices(ram, &[bad]).last().unwrap();
            assert_eq!(last.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
