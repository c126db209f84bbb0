//! All streams of a device.

use std::collections::HashMap;

use crate::rota::Rota;
use crate::stream::{Key, Stream};

/// Streams by number and by key, up to some number of them.
#[derive(Debug)]
pub(crate) struct Streams<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    keys: HashMap<Key, u32>,
    /// What was found last, which is mostly what is looked for next.
    last: Option<(Key, u32)>,
    max: usize,
    rooms: Rooms,
    /// Those who owe the guest packets.
    pub(crate) owing: Rota,
    /// Those with bytes for the guest, and with its leave to send them.
    pub(crate) ready: Rota,
    /// Those without its leave.
    pub(crate) held: Rota,
    /// Those who wait for somebody's answer, who has the same time to give it, the first the least of it left.
    pub(crate) timed: Rota,
    /// Those who wait for room at a host's socket.
    pub(crate) dialing: Rota,
}

#[derive(Debug)]
struct Slot<S> {
    /// How many streams this place has had, modulo 2^31.
    generation: u32,
    stream: Option<Stream<S>>,
}

/// How much is held for the host. What has been told to the guest as room of a stream is set aside for it, so that all
/// streams together never hold more than the sum.
#[derive(Debug)]
struct Rooms {
    /// Set aside for each stream.
    least: u32,
    most: u32,
    /// What is left for those who get more than that.
    left: u64,
}

impl Rooms {
    /// Up to `most`, by a part of what is left; the same if that is not twice as much.
    fn more(&mut self, room: u32) -> u32 {
        let part = u32::try_from(self.left / PART).unwrap_or(u32::MAX) & !(PAGE - 1);
        let more = self.most.saturating_sub(room).min(part);
        if more < room.min(self.most / 2) {
            return room;
        }
        self.left = self.left.saturating_sub(more.into());
        room.saturating_add(more)
    }

    fn give_back(&mut self, room: u32) {
        let more = u64::from(room.saturating_sub(self.least));
        self.left = self.left.saturating_add(more);
    }
}

/// The part of what is left that a stream gets.
const PART: u64 = 64;
/// Room comes in multiples of it.
const PAGE: u32 = 4096;
/// The most room of a stream.
pub(crate) const MOST_ROOM: u32 = 256 << 10;
/// The least.
pub(crate) const LEAST_ROOM: u32 = 8 << 10;

impl<S> Streams<S> {
    /// Up to `max` streams, who hold up to `buffers` bytes for the host: at least [`LEAST_ROOM`] for each.
    pub(crate) fn new(max: u32, buffers: u64) -> Self {
        let least = u64::from(max).saturating_mul(LEAST_ROOM.into());
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
            last: None,
            max: usize::try_from(max).unwrap_or(usize::MAX),
            rooms: Rooms {
                least: LEAST_ROOM,
                most: MOST_ROOM,
                left: buffers.saturating_sub(least),
            },
            owing: Rota::default(),
            ready: Rota::default(),
            held: Rota::default(),
            timed: Rota::default(),
            dialing: Rota::default(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// The number of the stream that the guest knows by `key`.
    #[inline]
    pub(crate) fn find(&mut self, key: Key) -> Option<u32> {
        match self.last {
            Some((last, number)) if last == key => Some(number),
            _ => {
                let number = *self.keys.get(&key)?;
                self.last = Some((key, number));
                Some(number)
            }
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Stream<S>> {
        let slot = self.slots.get_mut(usize::try_from(number).ok()?)?;
        slot.stream.as_mut()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Stream<S>> {
        let slot = self.slots.get(usize::try_from(number).ok()?)?;
        slot.stream.as_ref()
    }

    /// A name for the stream with this number, which no other has for a long time; below 2^63.
    pub(crate) fn token(&self, number: u32) -> u64 {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let generation = self.slots.get(place).map_or(0, |slot| slot.generation);
        u64::from(generation) << 32 | u64::from(number)
    }

    /// The stream with this name, if it is still there.
    pub(crate) fn by_token(&self, token: u64) -> Option<u32> {
        let number = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        self.get(number)?;
        (self.token(number) == token).then_some(number)
    }

    /// Adds a stream that the guest knows by `key`. Returns its number; nothing if there are too many or the key is in
    /// use.
    pub(crate) fn insert(&mut self, key: Key, make: impl FnOnce(u32) -> Stream<S>) -> Option<u32> {
        if self.is_full() || self.keys.contains_key(&key) {
            return None;
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 0,
                    stream: None,
                });
                number
            }
        };
        let room = self.rooms.more(self.rooms.least);
        let slot = self.slots.get_mut(usize::try_from(number).ok()?)?;
        slot.generation = slot.generation.wrapping_add(1) & (u32::MAX >> 1);
        slot.stream = Some(make(room));
        self.keys.insert(key, number);
        Some(number)
    }

    /// More room for a stream, if there is some now.
    #[inline]
    pub(crate) fn grow(&mut self, number: u32) {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let slot = self.slots.get_mut(place);
        if let Some(stream) = slot.and_then(|slot| slot.stream.as_mut())
            && stream.inbound.room() < self.rooms.most
        {
            let room = self.rooms.more(stream.inbound.room());
            stream.inbound.grow(room);
        }
    }

    /// The guest knows the stream no longer by its key, which may be another stream's from now on.
    pub(crate) fn forget(&mut self, number: u32) {
        let Some(stream) = self.get_mut(number) else {
            return;
        };
        let key = stream.key;
        if std::mem::take(&mut stream.known) {
            self.keys.remove(&key);
            self.last = None;
        }
    }

    /// Takes the stream out.
    pub(crate) fn remove(&mut self, number: u32) -> Option<Stream<S>> {
        self.forget(number);
        let slot = self.slots.get_mut(usize::try_from(number).ok()?)?;
        let stream = slot.stream.take()?;
        for rota in [
            &mut self.owing,
            &mut self.ready,
            &mut self.held,
            &mut self.timed,
            &mut self.dialing,
        ] {
            rota.remove(number);
        }
        self.rooms.give_back(stream.inbound.room());
        self.free.push(number);
        Some(stream)
    }

    /// Takes all out. Those who come next have other names.
    pub(crate) fn clear(&mut self) {
        for number in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            self.remove(number);
        }
        for rota in [
            &mut self.owing,
            &mut self.ready,
            &mut self.held,
            &mut self.timed,
            &mut self.dialing,
        ] {
            rota.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Phase;

    fn add(streams: &mut Streams<()>, port: u32) -> Option<u32> {
        let key = Key {
            host: port,
            guest: 1,
        };
        streams.insert(key, |room| Stream::new(key, Phase::Open, room))
    }

    fn rooms(streams: &Streams<()>) -> u64 {
        let all = (0..4096).filter_map(|number| streams.get(number));
        all.map(|stream| u64::from(stream.inbound.room())).sum()
    }

    #[test]
    fn rooms_of_all_streams_together_keep_to_their_sum() {
        let sum = 64 << 20;
        let mut streams = Streams::new(4096, sum);
        let mut count = 0;
        while add(&mut streams, count).is_some() {
            count += 1;
            assert!(rooms(&streams) <= sum);
        }
        assert_eq!(count, 4096);
        assert_eq!(streams.get(0).unwrap().inbound.room(), MOST_ROOM);
        assert_eq!(streams.get(4095).unwrap().inbound.room(), LEAST_ROOM);
        // What some give back others get.
        for number in 0..100 {
            streams.remove(number).unwrap();
        }
        streams.grow(4095);
        assert_eq!(streams.get(4095).unwrap().inbound.room(), MOST_ROOM);
        assert!(rooms(&streams) <= sum);
        streams.clear();
        assert_eq!(streams.len(), 0);
        assert!(add(&mut streams, 0).is_some());
    }

    #[test]
    fn a_place_has_another_name_for_each_stream() {
        let mut streams = Streams::new(2, 0);
        let first = add(&mut streams, 1).unwrap();
        let token = streams.token(first);
        assert_eq!(streams.by_token(token), Some(first));
        streams.remove(first);
        assert_eq!(streams.by_token(token), None);
        let second = add(&mut streams, 2).unwrap();
        assert_eq!(second, first);
        assert_eq!(streams.by_token(token), None);
        let token = streams.token(second);
        streams.clear();
        let third = add(&mut streams, 2).unwrap();
        assert_ne!(streams.token(third), token);
    }

    #[test]
    fn a_key_is_one_streams_until_it_is_forgotten() {
        let mut streams = Streams::new(10, 0);
        let first = add(&mut streams, 1).unwrap();
        let key = streams.get(first).unwrap().key;
        assert_eq!(streams.find(key), Some(first));
        assert_eq!(add(&mut streams, 1), None);
        streams.forget(first);
        assert_eq!(streams.find(key), None);
        let second = add(&mut streams, 1).unwrap();
        assert_ne!(first, second);
        streams.remove(first);
        assert_eq!(streams.find(key), Some(second));
    }
}
