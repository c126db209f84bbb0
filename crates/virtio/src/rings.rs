//! The three parts of a queue in RAM (§2.7), found when the queue is made ready.

use goldcrest_memory::Window;
use vm_memory::VolatileMemory;

use crate::queue::QueueLayout;
use crate::spec::ring;
use crate::{QueueError, Ram};

/// A queue's parts, of a queue that is in use; otherwise empty, with nothing to read and nowhere to write.
///
/// Positions in a ring are taken modulo the size.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    /// One less than the entries, which are a power of two.
    mask: u16,
    pub(crate) descriptors: Window,
    available: Window,
    used: Window,
}

impl Rings {
    /// Finds the parts of a queue of `size` entries, a power of two.
    pub(crate) fn find(layout: &QueueLayout, size: u16, ram: Ram<'_>) -> Result<Self, QueueError> {
        let find = |part, address: u64, len, align| {
            if !address.is_multiple_of(align) {
                return Err(QueueError::Misaligned {
                    part,
                    address,
                    align,
                });
            }
            Window::new(ram.memory(), address, len).ok_or(QueueError::OutsideRam {
                part,
                address,
                len,
            })
        };
        let entries = usize::from(size);
        Ok(Self {
            mask: size.wrapping_sub(1),
            descriptors: find(
                "descriptor table",
                layout.descriptors,
                ring::DESCRIPTOR_SIZE as usize * entries,
                ring::DESCRIPTORS_ALIGN,
            )?,
            available: find(
                "available ring",
                layout.available,
                available_len(entries),
                ring::AVAILABLE_ALIGN,
            )?,
            used: find(
                "used ring",
                layout.used,
                used_len(entries),
                ring::USED_ALIGN,
            )?,
        })
    }

    #[inline]
    fn slot(&self, position: u16) -> usize {
        usize::from(position & self.mask)
    }

    #[inline]
    fn size(&self) -> usize {
        usize::from(self.mask) + 1
    }

    /// The flags of the available ring.
    #[inline]
    pub(crate) fn available_flags(&self) -> u16 {
        load(&self.available, ring::FLAGS)
    }

    /// How many chains the driver has made available, modulo 2^16; they are seen as they were then.
    #[inline]
    pub(crate) fn available_index(&self) -> u16 {
        load(&self.available, ring::INDEX)
    }

    /// The head in the available ring at `position`.
    #[inline]
    pub(crate) fn available_head(&self, position: u16) -> u16 {
        let slot = self.slot(position);
        load(&self.available, ring::ENTRIES + ring::AVAIL_ENTRY * slot)
    }

    /// Which used index the driver wants to be interrupted for (§2.7.10).
    #[inline]
    pub(crate) fn used_event(&self) -> u16 {
        load(&self.available, used_event(self.size()))
    }

    /// Writes an entry of the used ring.
    #[inline]
    pub(crate) fn set_used_entry(&self, position: u16, head: u16, written: u32) {
        let at = ring::ENTRIES + ring::USED_ENTRY * self.slot(position);
        let entry = u64::from(head) | u64::from(written) << 32;
        if let Ok(place) = self.used.as_slice().get_ref::<u64>(at) {
            place.store(entry.to_le());
        }
    }

    /// Sets how many chains the device has used, modulo 2^16: after their entries.
    #[inline]
    pub(crate) fn set_used_index(&self, index: u16) {
        store(&self.used, ring::INDEX, index);
    }

    /// Sets which available index the device wants to be notified of (§2.7.10).
    #[inline]
    pub(crate) fn set_available_event(&self, index: u16) {
        store(&self.used, available_event(self.size()), index);
    }
}

/// The number at `offset` of a part, 0 if there is none, which is so for no part of a queue that is in use.
#[inline]
fn load(part: &Window, offset: usize) -> u16 {
    part.load_u16(offset / 2).unwrap_or(0)
}

#[inline]
fn store(part: &Window, offset: usize, value: u16) {
    let stored = part.store_u16(offset / 2, value);
    debug_assert!(stored, "queues are aligned and long enough");
}

/// Bytes of the available ring: flags, index, entries, `used_event` (§2.7.6).
const fn available_len(size: usize) -> usize {
    used_event(size) + 2
}

/// Bytes of the used ring: flags, index, entries, `avail_event` (§2.7.8).
const fn used_len(size: usize) -> usize {
    available_event(size) + 2
}

const fn used_event(size: usize) -> usize {
    ring::ENTRIES + ring::AVAIL_ENTRY * size
}

const fn available_event(size: usize) -> usize {
    ring::ENTRIES + ring::USED_ENTRY * size
}
