//! The driver's side of a split virtqueue (virtio 1.3 §2.7).
//!
//! What the device writes is believed only after a look at what it was given: that is kept in memory of the driver's.
#![allow(unsafe_code, reason = "buffers are lent to the device by address")]

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use super::Error;
use super::memory::Shared;
use super::spec::ring;

/// Bytes of a descriptor, and of an element of the used ring.
const DESCRIPTOR: usize = 16;
const USED_ELEMENT: usize = 8;
/// Bytes of a ring before its first element: flags and index.
const RING_HEADER: usize = 4;

/// Memory lent to the device for one request, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Guest-physical.
    pub(super) address: u64,
    pub(super) len: u32,
    /// The device writes to it, else reads it.
    pub(super) write: bool,
}

impl Segment {
    /// Bytes for the device to read: the first 4 GiB of them.
    pub(super) fn to_read(bytes: &[u8]) -> Self {
        Self {
            address: bytes.as_ptr().expose_provenance() as u64,
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            write: false,
        }
    }

    /// Bytes for the device to write: the first 4 GiB of them.
    pub(super) fn to_write(bytes: &mut [u8]) -> Self {
        Self {
            address: bytes.as_mut_ptr().expose_provenance() as u64,
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            write: true,
        }
    }
}

/// A request that the device has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    /// What [`Queue::add`] gave.
    pub(super) head: u16,
    /// Bytes that the device says it wrote: no more than there was room for.
    pub(super) len: u32,
}

/// What the driver knows of a descriptor.
#[derive(Debug, Clone, Copy, Default)]
struct Descriptor {
    /// The next one of the chain, or of the free ones.
    next: u16,
    /// Of the first of a chain that was given to the device: how many descriptors follow it.
    chain: Option<u16>,
    /// Of the same: bytes of the chain that the device may write.
    room: u32,
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    index: u16,
    /// A power of two.
    size: u16,
    event_idx: bool,
    /// Descriptor table, available ring and used ring.
    shared: Shared,
    descriptors: Vec<Descriptor>,
    first_free: u16,
    free: u16,
    in_flight: u16,
    /// Requests added since the beginning, and those of them that the device was told of; both wrap around.
    added: u16,
    published: u16,
    /// Completed requests that were taken since the beginning; wraps around.
    taken: u16,
}

impl Queue {
    /// The queue `index` of a device with `size` descriptors, a power of two.
    pub(super) fn new(index: u16, size: u16, event_idx: bool) -> Result<Self, Error> {
        let mut descriptors = Vec::new();
        descriptors
            .try_reserve_exact(size.into())
            .map_err(|_| Error::OutOfMemory)?;
        descriptors.extend((0..size).map(|number| Descriptor {
            next: number.wrapping_add(1) % size.max(1),
            ..Descriptor::default()
        }));
        let mut queue = Self {
            index,
            size,
            event_idx,
            shared: Shared::new(used_offset(size) + used_bytes(size))?,
            descriptors,
            first_free: 0,
            free: size,
            in_flight: 0,
            added: 0,
            published: 0,
            taken: 0,
        };
        queue.set_interrupts(false);
        Ok(queue)
    }

    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// How many descriptors there are.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Requests that the device has and has not completed.
    pub(super) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Descriptors that are in no request.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Guest-physical address of the descriptor table.
    pub(super) fn descriptors(&self) -> u64 {
        self.shared.address(0)
    }

    /// Guest-physical address of the available ring.
    pub(super) fn available_ring(&self) -> u64 {
        self.shared.address(available_offset(self.size))
    }

    /// Guest-physical address of the used ring.
    pub(super) fn used_ring(&self) -> u64 {
        self.shared.address(used_offset(self.size))
    }

    /// The number that the next request has, if there is room for one of `segments` segments.
    pub(super) fn next_head(&self, segments: u16) -> Option<u16> {
        (self.free >= segments).then_some(self.first_free)
    }

    /// Puts a request into the queue; the device learns of it by [`publish`](Self::publish). Gives its number, or
    /// [`Error::Full`].
    ///
    /// # Safety
    ///
    /// The memory of every segment stays valid until [`pop`](Self::pop) has given this request back or the device was
    /// reset, and nobody accesses it meanwhile: at all where the device writes, to write where it reads.
    pub(super) unsafe fn add(&mut self, segments: &[Segment]) -> Result<u16, Error> {
        let count = u16::try_from(segments.len()).map_err(|_| Error::Full)?;
        let head = self.next_head(count).ok_or(Error::Full)?;
        let mut number = head;
        let mut room = 0_u32;
        for (at, segment) in segments.iter().enumerate() {
            let next = self.next(number);
            let more = at + 1 < segments.len();
            self.write_descriptor(number, segment, more.then_some(next));
            if segment.write {
                room = room.saturating_add(segment.len);
            }
            number = next;
        }
        self.first_free = number;
        self.free -= count;
        if let Some(first) = self.descriptors.get_mut(usize::from(head)) {
            first.chain = Some(count.saturating_sub(1));
            first.room = room;
        }
        let slot = usize::from(self.added % self.size);
        let at = available_offset(self.size) + RING_HEADER + 2 * slot;
        self.shared.write(at, head);
        self.added = self.added.wrapping_add(1);
        self.in_flight += 1;
        Ok(head)
    }

    /// Lets the device see what was added. Says whether it has to be notified (§2.7.10).
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.added);
        // The requests and their memory are there before the index that covers them (§2.7.13.3).
        fence(Ordering::Release);
        self.shared.write(available_offset(self.size) + 2, new);
        self.published = new;
        // The index is seen before it is looked whether the device wants to hear of it (§2.7.13.4).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event: u16 = self
                .shared
                .read(used_offset(self.size) + used_bytes(self.size) - 2);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            let flags: u16 = self.shared.read(used_offset(self.size));
            old != new && flags & ring::USED_F_NO_NOTIFY == 0
        }
    }

    /// Has the device interrupt when it completes the next request, or keeps it from doing so (§2.7.7): what it
    /// completed before needs a look after this.
    pub(super) fn set_interrupts(&mut self, wanted: bool) {
        if self.event_idx {
            // An index that has just been passed is reached again after all others only.
            let event = if wanted {
                self.taken
            } else {
                self.taken.wrapping_sub(1)
            };
            self.shared.write(used_event_offset(self.size), event);
        } else {
            let flags = if wanted {
                0
            } else {
                ring::AVAIL_F_NO_INTERRUPT
            };
            self.shared.write(available_offset(self.size), flags);
        }
        fence(Ordering::SeqCst);
    }

    /// Requests that were added and not published.
    pub(super) fn unpublished(&self) -> u16 {
        self.added.wrapping_sub(self.published)
    }

    /// Whether the device has completed something that was not taken.
    pub(super) fn has_used(&self) -> bool {
        self.shared.read::<u16>(used_offset(self.size) + 2) != self.taken
    }

    /// Takes the next request that the device has completed.
    ///
    /// # Errors
    ///
    /// If the device completes what it was not given, or claims to have written more than it could.
    pub(super) fn pop(&mut self) -> Result<Option<Used>, Error> {
        let used = used_offset(self.size);
        let index: u16 = self.shared.read(used + 2);
        let claimed = index.wrapping_sub(self.taken);
        if claimed == 0 {
            return Ok(None);
        }
        let given = self.in_flight;
        if claimed > given {
            return Err(Error::UsedIndex { claimed, given });
        }
        // What the index covers is read after it.
        fence(Ordering::Acquire);
        let slot = usize::from(self.taken % self.size);
        let at = used + RING_HEADER + USED_ELEMENT * slot;
        let (id, len): (u32, u32) = (self.shared.read(at), self.shared.read(at + 4));
        let head = self.release(id, len)?;
        self.taken = self.taken.wrapping_add(1);
        self.in_flight -= 1;
        Ok(Some(Used { head, len }))
    }

    /// Frees the descriptors of a request.
    fn release(&mut self, id: u32, len: u32) -> Result<u16, Error> {
        let unknown = Error::UsedId { id };
        let head = u16::try_from(id).map_err(|_| unknown)?;
        let first = self.descriptors.get_mut(usize::from(head)).ok_or(unknown)?;
        let following = first.chain.ok_or(unknown)?;
        if len > first.room {
            let limit = first.room;
            return Err(Error::UsedLength { len, limit });
        }
        first.chain = None;
        let last = (0..following).fold(head, |number, _| self.next(number));
        if let Some(last) = self.descriptors.get_mut(usize::from(last)) {
            last.next = self.first_free;
        }
        self.first_free = head;
        self.free += following + 1;
        Ok(head)
    }

    fn next(&self, number: u16) -> u16 {
        let descriptor = self.descriptors.get(usize::from(number));
        descriptor.map_or(0, |descriptor| descriptor.next)
    }

    fn write_descriptor(&mut self, number: u16, segment: &Segment, next: Option<u16>) {
        let write = if segment.write { ring::DESC_F_WRITE } else { 0 };
        let more = if next.is_some() { ring::DESC_F_NEXT } else { 0 };
        let at = DESCRIPTOR * usize::from(number);
        self.shared.write(at, segment.address);
        self.shared.write(at + 8, segment.len);
        self.shared.write(at + 12, write | more);
        self.shared.write(at + 14, next.unwrap_or(0));
    }
}

/// Where the available ring begins: after the descriptor table.
fn available_offset(size: u16) -> usize {
    DESCRIPTOR * usize::from(size)
}

/// Where the available ring has `used_event`, its last field.
fn used_event_offset(size: u16) -> usize {
    available_offset(size) + RING_HEADER + 2 * usize::from(size)
}

/// Where the used ring begins, aligned to 4 bytes.
fn used_offset(size: u16) -> usize {
    (used_event_offset(size) + 2).next_multiple_of(4)
}

/// Bytes of the used ring, `avail_event` included.
fn used_bytes(size: u16) -> usize {
    RING_HEADER + USED_ELEMENT * usize::from(size) + 2
}
