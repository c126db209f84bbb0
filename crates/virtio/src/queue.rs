//! Split virtqueues (§2.7), from the device's side.
//!
//! A queue's rings are looked up in RAM once, when it is made ready; after that, an access is a comparison with a
//! length. Descriptors are read once, so that a driver that changes them meanwhile changes nothing that was checked.

use std::sync::atomic::{Ordering, fence};

use goldcrest_memory::io::Segment;

use crate::chain::Chain;
use crate::descriptor::{Table, Walk};
use crate::rings::Rings;
use crate::spec::ring;
use crate::{QueueError, Ram, Served, Work};

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
    /// Bytes of the chains that were taken in it.
    turn_bytes: u64,
    /// What was done so far.
    pub(crate) served: Served,
    /// The turn was over before the queue was empty.
    pub(crate) backlog: bool,
    /// Empty if it is not in use.
    rings: Rings,
    /// For each head, whether the device has it.
    in_use: Vec<bool>,
    /// The chain that was taken last, with room for the longest.
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
            turn_bytes: 0,
            served: Served::default(),
            backlog: false,
            rings: Rings::default(),
            in_use: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Takes the queue out of use: the device has given up the chains that it had.
    pub(crate) fn stop(&mut self) {
        self.ready = false;
        self.backlog = false;
        self.rings = Rings::default();
        self.in_use.clear();
    }

    /// As after a reset.
    pub(crate) fn reset(&mut self) {
        self.stop();
        let (in_use, segments, served) = (
            std::mem::take(&mut self.in_use),
            std::mem::take(&mut self.segments),
            self.served,
        );
        *self = Self::new(self.max_size);
        (self.in_use, self.segments, self.served) = (in_use, segments, served);
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
        self.rings = Rings::find(&self.layout, size, ram)?;
        self.size = size;
        self.event_idx = event_idx;
        self.indirect = indirect;
        self.in_use.clear();
        self.in_use.resize(size.into(), false);
        let nothing = Segment { address: 0, len: 0 };
        self.segments.resize(size.into(), nothing);
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
        self.in_use.iter().filter(|in_use| **in_use).count()
    }

    /// What was taken in this turn.
    pub(crate) fn taken(&self) -> Work {
        Work {
            chains: self.size.saturating_sub(self.turn),
            bytes: self.turn_bytes,
        }
    }

    pub(crate) fn begin_turn(&mut self) {
        self.turn = self.size;
        self.turn_bytes = 0;
        self.backlog = false;
    }

    /// Whether the driver is to be interrupted, for what was used since this was last asked (§2.7.7.2, §2.7.10).
    #[inline]
    pub(crate) fn take_signal(&mut self) -> bool {
        let (old, new) = (self.signalled, self.next_used);
        if old == new {
            return false;
        }
        self.signalled = new;
        if !self.ready {
            return false;
        }
        // The index must be seen by the driver before it is looked what the driver wants to be told of.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.rings.used_event();
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.rings.available_flags() & ring::AVAIL_F_NO_INTERRUPT == 0
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

/// A queue that is in use, with its rings.
#[derive(Debug)]
pub struct ActiveQueue<'a> {
    queue: &'a mut Queue,
    ram: Ram<'a>,
}

impl<'a> ActiveQueue<'a> {
    /// Nothing if the driver has not made the queue ready.
    #[inline]
    pub(crate) fn new(queue: &'a mut Queue, ram: Ram<'a>) -> Option<Self> {
        queue.ready.then_some(Self { queue, ram })
    }

    /// Takes the next chain that the driver has made available.
    ///
    /// If there is none, the driver will notify of the next. There is also none after as many as the queue has entries;
    /// then the device is called again. So a driver that adds without end does not keep the caller.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the driver misused the queue.
    // Chains are large: without this they are moved, which costs more than to take them does.
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Chain<'_>>, QueueError> {
        let Some(head) = self.next_head()? else {
            return Ok(None);
        };
        let queue = &mut *self.queue;
        let walk = Walk {
            ram: self.ram,
            size: queue.size,
            indirect: queue.indirect,
        };
        let table = Table(queue.rings.descriptors.as_slice());
        let sum = walk.along(table, head, &mut queue.segments)?;
        // A chain has less than 4 GiB, a turn 32,768 chains.
        queue.turn_bytes += sum.bytes_readable + sum.bytes_writable;
        let read = &mut queue.served.bytes_read;
        *read = read.wrapping_add(sum.bytes_readable);
        Ok(Some(Chain::new(
            head,
            self.ram,
            queue.segments.get_mut(..sum.count).unwrap_or_default(),
            sum.readable,
            (sum.bytes_readable, sum.bytes_writable),
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
        self.push_together([(head, written)]);
    }

    /// Gives several chains back, each with so many bytes written to it, of which the driver sees all or none: what they
    /// hold belongs together. Else as [`push`](Self::push).
    #[inline]
    pub fn push_together(&mut self, chains: impl IntoIterator<Item = (u16, u32)>) {
        for (head, written) in chains {
            if !self.release(head) {
                debug_assert!(false, "head {head} is given back twice");
                continue;
            }
            let queue = &mut *self.queue;
            queue.rings.set_used_entry(queue.next_used, head, written);
            queue.next_used = queue.next_used.wrapping_add(1);
            let served = &mut queue.served;
            served.chains = served.chains.wrapping_add(1);
            served.bytes_written = served.bytes_written.wrapping_add(written.into());
        }
        self.queue.rings.set_used_index(self.queue.next_used);
    }

    /// Entries: the most chains that the device can have.
    #[inline]
    pub fn size(&self) -> u16 {
        self.queue.size
    }

    /// Guest RAM.
    #[inline]
    pub fn ram(&self) -> Ram<'a> {
        self.ram
    }

    #[inline]
    fn release(&mut self, head: u16) -> bool {
        match self.queue.in_use.get_mut(usize::from(head)) {
            Some(in_use) => std::mem::take(in_use),
            None => false,
        }
    }

    #[inline(always)]
    fn next_head(&mut self) -> Result<Option<u16>, QueueError> {
        let (size, next) = (self.queue.size, self.queue.next_available);
        let mut ahead = self.available_ahead();
        if ahead == 0 {
            if !self.queue.event_idx {
                return Ok(None);
            }
            // "Tell me of the next one": then look again, as it may have come before that was seen (§2.7.10).
            self.queue.rings.set_available_event(next);
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
        let head = self.queue.rings.available_head(next);
        match self.queue.in_use.get_mut(usize::from(head)) {
            Some(in_use) if !*in_use => *in_use = true,
            Some(_) => return Err(QueueError::HeadInUse(head)),
            None => {
                return Err(QueueError::DescriptorIndex {
                    index: head,
                    len: size,
                });
            }
        }
        self.queue.turn = turn;
        self.queue.next_available = next.wrapping_add(1);
        Ok(Some(head))
    }

    #[inline]
    fn available_ahead(&self) -> u16 {
        let index = self.queue.rings.available_index();
        index.wrapping_sub(self.queue.next_available)
    }
}
