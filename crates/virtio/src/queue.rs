//! Split virtqueues (§2.7), from the device's side.
//!
//! A queue's rings are looked up in RAM once for each turn of work ([`ActiveQueue`]); after that, an access is a
//! comparison with a length. Descriptors are read once, so that a driver that changes them meanwhile changes nothing
//! that was checked.

use std::sync::atomic::{Ordering, fence};

use goldcrest_memory::io::Segment;
use vm_memory::VolatileSlice;

use crate::chain::Chain;
use crate::ram::{load_u16, store_u16};
use crate::spec::ring;
use crate::{QueueError, Ram};

/// What a driver sets of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Entries.
    pub size: u32,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring ("driver area").
    pub available: u64,
    /// Guest-physical address of the used ring ("device area").
    pub used: u64,
}

/// A queue: what the driver has set, and how far the device is.
#[derive(Debug)]
pub struct Queue {
    pub(crate) max_size: u16,
    pub(crate) layout: QueueLayout,
    pub(crate) ready: bool,
    /// It was in use, or was not when the device began: only a reset makes it ready again.
    pub(crate) stopped: bool,
    /// Entries, when ready: a power of two.
    size: u16,
    event_idx: bool,
    indirect: bool,
    pub(crate) next_available: u16,
    pub(crate) next_used: u16,
    /// `next_used` when it was last decided whether to interrupt.
    signalled: u16,
    /// Chains that may still be taken in this turn.
    turn: u16,
    /// The turn was over before the queue was empty.
    pub(crate) backlog: bool,
    /// A bit for each head that the device has.
    in_use: Vec<u64>,
    /// The chain that was taken last.
    segments: Vec<Segment>,
}

impl Queue {
    pub(crate) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            layout: QueueLayout {
                size: max_size.into(),
                ..QueueLayout::default()
            },
            ready: false,
            stopped: false,
            size: 0,
            event_idx: false,
            indirect: false,
            next_available: 0,
            next_used: 0,
            signalled: 0,
            turn: 0,
            backlog: false,
            in_use: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Takes the queue out of use: the device has given up the chains that it had.
    pub(crate) fn stop(&mut self) {
        self.ready = false;
        self.backlog = false;
        self.in_use.clear();
    }

    /// As after a reset.
    pub(crate) fn reset(&mut self) {
        self.stop();
        let (in_use, segments) = (
            std::mem::take(&mut self.in_use),
            std::mem::take(&mut self.segments),
        );
        *self = Self::new(self.max_size);
        (self.in_use, self.segments) = (in_use, segments);
    }

    /// Puts the queue to use, if it is a possible one.
    pub(crate) fn start(
        &mut self,
        ram: Ram<'_>,
        event_idx: bool,
        indirect: bool,
    ) -> Result<(), QueueError> {
        let size = match u16::try_from(self.layout.size) {
            Ok(size) if size.is_power_of_two() && size <= self.max_size => size,
            _ => {
                return Err(QueueError::Size {
                    size: self.layout.size,
                    max: self.max_size,
                });
            }
        };
        Rings::find(&self.layout, size, ram)?;
        self.size = size;
        self.event_idx = event_idx;
        self.indirect = indirect;
        self.in_use.clear();
        self.in_use.resize(usize::from(size).div_ceil(64), 0);
        self.segments.clear();
        self.segments.reserve(size.into());
        self.turn = size;
        self.ready = true;
        Ok(())
    }

    /// Entries, 0 if the queue is not in use.
    pub fn size(&self) -> u16 {
        if self.ready { self.size } else { 0 }
    }

    /// How many chains the device has.
    pub fn in_flight(&self) -> usize {
        let ones = self.in_use.iter().map(|word| word.count_ones() as usize);
        ones.sum()
    }

    pub(crate) fn begin_turn(&mut self) {
        self.turn = self.size;
        self.backlog = false;
    }

    /// Whether the driver is to be interrupted, for what was used since this was last asked (§2.7.7.2, §2.7.10).
    pub(crate) fn take_signal(&mut self, ram: Ram<'_>) -> bool {
        let (old, new) = (self.signalled, self.next_used);
        if old == new {
            return false;
        }
        self.signalled = new;
        let Some(available) = part(ram, self.layout.available, available_len(self.size)) else {
            return false;
        };
        // The index must be seen by the driver before it is looked what the driver wants to be told of.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = load_u16(&available, used_event(self.size), Ordering::Relaxed);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            load_u16(&available, ring::FLAGS, Ordering::Relaxed) & ring::AVAIL_F_NO_INTERRUPT == 0
        }
    }

    /// Puts back where the device was, and that it has nothing in flight.
    pub(crate) fn restore_indexes(&mut self, next_available: u16, next_used: u16, signalled: u16) {
        self.next_available = next_available;
        self.next_used = next_used;
        self.signalled = signalled;
    }

    pub(crate) fn signalled(&self) -> u16 {
        self.signalled
    }
}

/// A queue's parts in RAM.
#[derive(Debug, Clone, Copy)]
struct Rings<'a> {
    descriptors: VolatileSlice<'a>,
    available: VolatileSlice<'a>,
    used: VolatileSlice<'a>,
}

impl<'a> Rings<'a> {
    fn find(layout: &QueueLayout, size: u16, ram: Ram<'a>) -> Result<Self, QueueError> {
        let find = |what, address: u64, len, align| {
            if !address.is_multiple_of(align) {
                return Err(QueueError::Misaligned {
                    part: what,
                    address,
                    align,
                });
            }
            part(ram, address, len).ok_or(QueueError::OutsideRam {
                part: what,
                address,
                len,
            })
        };
        let entries = usize::from(size);
        Ok(Self {
            descriptors: find(
                "descriptor table",
                layout.descriptors,
                ring::DESCRIPTOR_SIZE as usize * entries,
                ring::DESCRIPTORS_ALIGN,
            )?,
            available: find(
                "available ring",
                layout.available,
                available_len(size),
                ring::AVAILABLE_ALIGN,
            )?,
            used: find("used ring", layout.used, used_len(size), ring::USED_ALIGN)?,
        })
    }
}

fn part(ram: Ram<'_>, address: u64, len: usize) -> Option<VolatileSlice<'_>> {
    ram.slice(address, len)
}

/// Bytes of the available ring: flags, index, entries, `used_event` (§2.7.6).
const fn available_len(size: u16) -> usize {
    used_event(size) + 2
}

/// Bytes of the used ring: flags, index, entries, `avail_event` (§2.7.8).
const fn used_len(size: u16) -> usize {
    avail_event(size) + 2
}

const fn used_event(size: u16) -> usize {
    ring::ENTRIES + ring::AVAIL_ENTRY * size as usize
}

const fn avail_event(size: u16) -> usize {
    ring::ENTRIES + ring::USED_ENTRY * size as usize
}

/// A queue that is in use, with its rings.
#[derive(Debug)]
pub struct ActiveQueue<'a> {
    queue: &'a mut Queue,
    ram: Ram<'a>,
    rings: Rings<'a>,
}

impl<'a> ActiveQueue<'a> {
    /// Nothing if the driver has not made the queue ready.
    pub(crate) fn new(queue: &'a mut Queue, ram: Ram<'a>) -> Option<Self> {
        if !queue.ready {
            return None;
        }
        // They were found when the queue was started, and RAM stays where it is.
        let rings = Rings::find(&queue.layout, queue.size, ram).ok()?;
        Some(Self { queue, ram, rings })
    }

    /// Takes the next chain that the driver has made available.
    ///
    /// If there is none, the driver will notify of the next. There is also none after as many as the queue has entries;
    /// then the device is called again. So a driver that adds without end does not keep the caller.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the driver misused the queue.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Chain<'_>>, QueueError> {
        let Some(head) = self.next_head()? else {
            return Ok(None);
        };
        let mut walk = Walk::default();
        self.walk(head, &mut walk)?;
        Ok(Some(Chain::new(
            head,
            self.ram,
            &mut self.queue.segments,
            walk.readable,
            (walk.bytes_readable, walk.bytes_writable),
        )))
    }

    /// Makes the chain that was taken last available again: it will be the next.
    pub fn undo_pop(&mut self, head: u16) {
        if self.release(head) {
            self.queue.next_available = self.queue.next_available.wrapping_sub(1);
        }
    }

    /// Gives a chain back, with `written` bytes written to it from the first writable one on.
    ///
    /// A head that the device does not have is not given back, which a debug build takes for a mistake in the device.
    #[inline]
    pub fn push(&mut self, head: u16, written: u32) {
        if !self.release(head) {
            debug_assert!(false, "head {head} is given back twice");
            return;
        }
        let mask = self.queue.size - 1;
        let slot = usize::from(self.queue.next_used & mask);
        let at = ring::ENTRIES + ring::USED_ENTRY * slot;
        let entry = u64::from(head) | u64::from(written) << 32;
        if let Ok(slot) = self.rings.used.subslice(at, ring::USED_ENTRY) {
            slot.copy_from(&entry.to_le_bytes());
        }
        self.queue.next_used = self.queue.next_used.wrapping_add(1);
        store_u16(
            &self.rings.used,
            ring::INDEX,
            self.queue.next_used,
            Ordering::Release,
        );
    }

    /// Guest RAM.
    pub fn ram(&self) -> Ram<'a> {
        self.ram
    }

    fn release(&mut self, head: u16) -> bool {
        let bit = 1_u64 << (head % 64);
        match self.queue.in_use.get_mut(usize::from(head / 64)) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn next_head(&mut self) -> Result<Option<u16>, QueueError> {
        let (size, next) = (self.queue.size, self.queue.next_available);
        let mut ahead = self.available_ahead();
        if ahead == 0 {
            if !self.queue.event_idx {
                return Ok(None);
            }
            // "Tell me of the next one": then look again, as it may have come before that was seen (§2.7.10).
            store_u16(&self.rings.used, avail_event(size), next, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            ahead = self.available_ahead();
            if ahead == 0 {
                return Ok(None);
            }
        }
        if ahead > size {
            return Err(QueueError::AvailableIndex { ahead, size });
        }
        let Some(turn) = self.queue.turn.checked_sub(1) else {
            self.queue.backlog = true;
            return Ok(None);
        };
        let slot = usize::from(next & (size - 1));
        let head = load_u16(
            &self.rings.available,
            ring::ENTRIES + ring::AVAIL_ENTRY * slot,
            Ordering::Relaxed,
        );
        let bit = 1_u64 << (head % 64);
        match self.queue.in_use.get_mut(usize::from(head / 64)) {
            _ if head >= size => {
                return Err(QueueError::DescriptorIndex {
                    index: head,
                    len: size,
                });
            }
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => return Err(QueueError::HeadInUse(head)),
        }
        self.queue.turn = turn;
        self.queue.next_available = next.wrapping_add(1);
        Ok(Some(head))
    }

    #[inline]
    fn available_ahead(&self) -> u16 {
        load_u16(&self.rings.available, ring::INDEX, Ordering::Acquire)
            .wrapping_sub(self.queue.next_available)
    }

    /// Reads the descriptors from `head` on, each once.
    #[inline]
    fn walk(&mut self, head: u16, walk: &mut Walk) -> Result<(), QueueError> {
        let size = self.queue.size;
        self.queue.segments.clear();
        let (mut table, mut len, mut index) = (self.rings.descriptors, size, head);
        let mut in_indirect = false;
        loop {
            let descriptor = Descriptor::read(&table, index, len)?;
            if descriptor.flags & ring::DESC_F_INDIRECT != 0 {
                if !self.queue.indirect || in_indirect || descriptor.flags & ring::DESC_F_NEXT != 0
                {
                    return Err(QueueError::Indirect);
                }
                (table, len) = self.indirect_table(&descriptor)?;
                (index, in_indirect) = (0, true);
                continue;
            }
            if self.queue.segments.len() >= usize::from(size) {
                return Err(QueueError::ChainLength(size));
            }
            walk.add(&descriptor)?;
            self.queue.segments.push(Segment {
                address: descriptor.address,
                len: descriptor.len,
            });
            if descriptor.flags & ring::DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    /// §2.7.5.3.
    fn indirect_table(
        &self,
        descriptor: &Descriptor,
    ) -> Result<(VolatileSlice<'a>, u16), QueueError> {
        let bytes = descriptor.len;
        let count = bytes / ring::DESCRIPTOR_SIZE;
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        if bytes == 0 || !bytes.is_multiple_of(ring::DESCRIPTOR_SIZE) || count > self.queue.size {
            return Err(QueueError::IndirectSize(bytes));
        }
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let outside = QueueError::Buffer {
            address: descriptor.address,
            len,
        };
        let table = self.ram.slice(descriptor.address, len).ok_or(outside)?;
        Ok((table, count))
    }
}

/// `struct virtq_desc` (§2.7.5).
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    #[inline]
    fn read(table: &VolatileSlice<'_>, index: u16, len: u16) -> Result<Self, QueueError> {
        const SIZE: usize = ring::DESCRIPTOR_SIZE as usize;
        let beyond = QueueError::DescriptorIndex { index, len };
        if index >= len {
            return Err(beyond);
        }
        let slice = table
            .subslice(usize::from(index) * SIZE, SIZE)
            .map_err(|_| beyond)?;
        let mut bytes = [0; SIZE];
        slice.copy_to(&mut bytes);
        let address = bytes.first_chunk().copied().unwrap_or_default();
        let [a, b, c, d, e, f, g, h] = bytes.last_chunk().copied().unwrap_or_default();
        Ok(Self {
            address: u64::from_le_bytes(address),
            len: u32::from_le_bytes([a, b, c, d]),
            flags: u16::from_le_bytes([e, f]),
            next: u16::from_le_bytes([g, h]),
        })
    }
}

/// What a walk along a chain adds up.
#[derive(Default)]
struct Walk {
    readable: usize,
    bytes_readable: u64,
    bytes_writable: u64,
    writable: bool,
}

impl Walk {
    #[inline]
    fn add(&mut self, descriptor: &Descriptor) -> Result<(), QueueError> {
        let len = u64::from(descriptor.len);
        if descriptor.flags & ring::DESC_F_WRITE != 0 {
            self.writable = true;
            self.bytes_writable += len;
        } else if self.writable {
            return Err(QueueError::ReadableAfterWritable);
        } else {
            self.readable += 1;
            self.bytes_readable += len;
        }
        if self.bytes_readable + self.bytes_writable > 1 << 32 {
            return Err(QueueError::ChainBytes);
        }
        Ok(())
    }
}
