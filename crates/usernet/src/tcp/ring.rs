//! Bytes of a stream on their way.

use std::mem;

/// A ring of bytes that grows when it is asked to.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    /// Where the first byte is.
    start: usize,
    len: usize,
}

impl Ring {
    /// How many bytes are in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it can hold now.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Makes it hold `capacity` bytes at least.
    pub(crate) fn grow(&mut self, capacity: usize) {
        if capacity <= self.capacity() {
            return;
        }
        // Zeroed memory is not touched before it is used.
        let mut bytes = vec![0; capacity];
        let mut at = 0;
        for piece in self.slices(0, self.len) {
            if let Some(to) = bytes.get_mut(at..at + piece.len()) {
                to.copy_from_slice(piece);
            }
            at += piece.len();
        }
        self.bytes = bytes;
        self.start = 0;
    }

    /// Gives its memory back, and what is in it up.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    /// `len` bytes from `offset` on, in two pieces, the second of which may be empty. Fewer if there are no more.
    pub(crate) fn slices(&self, offset: usize, len: usize) -> [&[u8]; 2] {
        let offset = offset.min(self.len);
        let len = len.min(self.len - offset);
        let from = self.wrap(self.start + offset);
        let first = len.min(self.capacity() - from);
        [
            self.bytes.get(from..from + first).unwrap_or_default(),
            self.bytes.get(..len - first).unwrap_or_default(),
        ]
    }

    /// Room for `len` bytes behind those in it, in two pieces. Less if there is no more. What is written there belongs
    /// to the ring after [`commit`](Self::commit).
    pub(crate) fn room(&mut self, len: usize) -> [&mut [u8]; 2] {
        let len = len.min(self.capacity() - self.len);
        let from = self.wrap(self.start + self.len);
        let first = len.min(self.capacity() - from);
        let (low, high) = mem::take(&mut self.bytes.as_mut_slice())
            .split_at_mut_checked(from)
            .unwrap_or_default();
        [
            high.get_mut(..first).unwrap_or_default(),
            low.get_mut(..len - first).unwrap_or_default(),
        ]
    }

    /// What has been written to the room: all of it, to be looked at.
    pub(crate) fn staged(&self, len: usize) -> [&[u8]; 2] {
        let len = len.min(self.capacity() - self.len);
        let from = self.wrap(self.start + self.len);
        let first = len.min(self.capacity() - from);
        [
            self.bytes.get(from..from + first).unwrap_or_default(),
            self.bytes.get(..len - first).unwrap_or_default(),
        ]
    }

    /// Takes `len` bytes that have been written to its room.
    pub(crate) fn commit(&mut self, len: usize) {
        self.len += len.min(self.capacity() - self.len);
    }

    /// Adds bytes, as many as there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for room in self.room(bytes.len()) {
            let piece = bytes.get(taken..taken + room.len()).unwrap_or_default();
            room.copy_from_slice(piece);
            taken += piece.len();
        }
        self.commit(taken);
        taken
    }

    /// Drops the first `len` bytes.
    pub(crate) fn consume(&mut self, len: usize) {
        let len = len.min(self.len);
        self.len -= len;
        // An empty ring starts over, so that what comes next is in one piece.
        self.start = match self.len {
            0 => 0,
            _ => self.wrap(self.start + len),
        };
    }

    fn wrap(&self, at: usize) -> usize {
        if at >= self.capacity() {
            at - self.capacity()
        } else {
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Consume(usize),
        Grow(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..40_usize).prop_map(Step::Push),
            (0..40_usize).prop_map(Step::Consume),
            (0..100_usize).prop_map(Step::Grow),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn it_does_what_a_deque_would(steps in steps()) {
            let (mut ring, mut model, mut next) = (Ring::default(), VecDeque::new(), 0_u8);
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                        let taken = ring.push(&bytes);
                        prop_assert_eq!(taken, len.min(ring.capacity() - model.len()));
                        model.extend(&bytes[..taken]);
                    }
                    Step::Consume(len) => {
                        ring.consume(len);
                        model.drain(..len.min(model.len()));
                    }
                    Step::Grow(capacity) => ring.grow(capacity),
                }
                prop_assert_eq!(ring.len(), model.len());
                for offset in [0, 1, 7] {
                    let expected: Vec<u8> = model.iter().skip(offset).take(20).copied().collect();
                    prop_assert_eq!(ring.slices(offset, 20).concat(), expected);
                }
            }
        }
    }

    #[test]
    fn what_is_staged_is_not_in_it_before_it_is_committed() {
        let mut ring = Ring::default();
        ring.grow(8);
        ring.push(&[1, 2, 3, 4, 5, 6]);
        ring.consume(5);
        let [first, second] = ring.room(4);
        first.copy_from_slice(&[7, 8]);
        second.copy_from_slice(&[9, 10]);
        assert_eq!(ring.staged(4).concat(), [7, 8, 9, 10]);
        assert_eq!(ring.slices(0, 9).concat(), [6]);
        ring.commit(4);
        assert_eq!(ring.slices(0, 9).concat(), [6, 7, 8, 9, 10]);
    }
}
