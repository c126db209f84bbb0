//! What the host does not take right now.

use std::collections::VecDeque;

use vm_memory::VolatileSlice;

/// Empty buffers that are kept for the next stream that needs one.
const SPARE: usize = 4;

/// Bytes of one stream that wait for the host. A stream has room for few, which is told to the guest.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<u8>);

/// Memory for those who need some again and again.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<VecDeque<u8>>);

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the bytes of a slice.
    pub(crate) fn push(&mut self, slice: &VolatileSlice<'_>, spare: &mut Spare) {
        if self.0.capacity() == 0 {
            self.0 = spare.0.pop().unwrap_or_default();
        }
        let (before, len) = (self.0.len(), slice.len());
        self.0.resize(before.saturating_add(len), 0);
        let (first, second) = self.0.as_mut_slices();
        let (at, beyond) = match before.checked_sub(first.len()) {
            None => (first.get_mut(before..).unwrap_or_default(), second),
            Some(at) => (second.get_mut(at..).unwrap_or_default(), Default::default()),
        };
        let whole = at.len().min(len);
        slice.copy_to(at);
        if let Ok(rest) = slice.offset(whole) {
            rest.copy_to(beyond);
        }
    }

    /// The next bytes.
    pub(crate) fn front(&self) -> &[u8] {
        self.0.as_slices().0
    }

    /// The host has taken `count` of them.
    pub(crate) fn consume(&mut self, count: usize, spare: &mut Spare) {
        self.0.drain(..count.min(self.0.len()));
        if self.0.is_empty() {
            self.clear(spare);
        }
    }

    /// Drops all, and gives back the memory.
    pub(crate) fn clear(&mut self, spare: &mut Spare) {
        self.0.clear();
        let buffer = std::mem::take(&mut self.0);
        if buffer.capacity() > 0 && spare.0.len() < SPARE {
            spare.0.push(buffer);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::VolatileMemory;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_however_the_buffer_wraps() {
        let (mut backlog, mut spare) = (Backlog::default(), Spare::default());
        let mut source: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let source = VolatileSlice::from(source.as_mut_slice());
        let (mut pushed, mut taken) = (0_usize, 0_usize);
        for step in 1..400 {
            let len = step * 7 % 97;
            let at = pushed % 256;
            backlog.push(&source.get_slice(at, len).unwrap(), &mut spare);
            pushed += len;
            while backlog.len() > 150 {
                let front = backlog.front();
                let count = front.len().min(step % 31 + 1);
                for (byte, index) in front.iter().take(count).zip(taken..) {
                    assert_eq!(usize::from(*byte), index % 256);
                }
                backlog.consume(count, &mut spare);
                taken += count;
            }
        }
        assert_eq!(backlog.len(), pushed - taken);
    }

    #[test]
    fn an_empty_one_holds_no_memory_and_little_is_spared() {
        let mut spare = Spare::default();
        let mut byte = [1];
        let byte = VolatileSlice::from(byte.as_mut_slice());
        let mut all: Vec<_> = (0..SPARE + 2).map(|_| Backlog::default()).collect();
        for backlog in &mut all {
            backlog.push(&byte, &mut spare);
        }
        for backlog in &mut all {
            backlog.consume(1, &mut spare);
            assert_eq!(backlog.0.capacity(), 0);
        }
        assert_eq!(spare.0.len(), SPARE);
    }
}
