//! Which streams there are.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::stream::{State, Stream};
use super::{Address, Error, StreamId};

/// All streams.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By the peer's address and our port.
    by_address: BTreeMap<(Address, u32), u32>,
    /// Those that are [`State::Closing`], the oldest first, and some that were.
    closing: VecDeque<StreamId>,
    most: u32,
}

#[derive(Debug)]
struct Slot {
    /// Tells one stream from those that had the slot before.
    generation: u32,
    stream: Option<Stream>,
}

impl Table {
    /// A table of `most` streams at most.
    pub(super) fn new(most: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_address: BTreeMap::new(),
            closing: VecDeque::new(),
            most,
        }
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        let slot = self.slots.get(id.index())?;
        slot.stream
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let slot = self.slots.get_mut(id.index())?;
        slot.stream
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// The stream between a peer and one of our ports.
    pub(super) fn find(&self, peer: Address, port: u32) -> Option<StreamId> {
        let index = *self.by_address.get(&(peer, port))?;
        let slot = self.slots.get(usize::try_from(index).ok()?)?;
        Some(StreamId {
            index,
            generation: slot.generation,
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_address.len() >= usize::try_from(self.most).unwrap_or(usize::MAX)
    }

    /// The stream that has been closing for the longest.
    pub(super) fn oldest_closing(&mut self) -> Option<StreamId> {
        while let Some(id) = self.closing.pop_front() {
            if self.is_closing(id) {
                return Some(id);
            }
        }
        None
    }

    /// Notes that a stream is closing.
    pub(super) fn note_closing(&mut self, id: StreamId) {
        if self.closing.len() > 2 * self.slots.len() {
            let mut closing = core::mem::take(&mut self.closing);
            closing.retain(|id| self.is_closing(*id));
            self.closing = closing;
        }
        self.closing.push_back(id);
    }

    fn is_closing(&self, id: StreamId) -> bool {
        self.get(id)
            .is_some_and(|stream| stream.state == State::Closing)
    }

    /// Adds a stream, whose addresses no other has.
    pub(super) fn insert(&mut self, stream: Stream) -> Result<StreamId, Error> {
        if self.is_full() {
            return Err(Error::Full);
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
                self.slots.push(Slot {
                    generation: 0,
                    stream: None,
                });
                u32::try_from(self.slots.len() - 1).map_err(|_| Error::Full)?
            }
        };
        self.by_address
            .insert((stream.peer, stream.local.port), index);
        let mut id = StreamId {
            index,
            generation: 0,
        };
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.stream = Some(stream);
            id.generation = slot.generation;
        }
        Ok(id)
    }

    /// Forgets a stream.
    pub(super) fn remove(&mut self, id: StreamId) {
        if self.get(id).is_none() {
            return;
        }
        let slot = self.slots.get_mut(id.index());
        if let Some(stream) = slot.and_then(|slot| slot.stream.take()) {
            self.by_address.remove(&(stream.peer, stream.local.port));
            self.free.push(id.index);
        }
    }

    /// All streams.
    pub(super) fn ids(&self) -> impl Iterator<Item = StreamId> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let generation = slot.generation;
            slot.stream
                .is_some()
                .then_some(StreamId { index, generation })
        })
    }
}
