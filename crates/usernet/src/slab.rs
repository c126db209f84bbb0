//! Flows by number.

/// Entries by number; the number of one that is gone is used again, with another generation.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    /// How many there may be.
    limit: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// An entry's number and its generation, by which those who speak of an older one are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The number of the next entry, or none if it is full.
    pub(crate) fn next_id(&mut self) -> Option<Id> {
        if self.is_full() {
            return None;
        }
        if self.free.is_empty() {
            self.free.push(u32::try_from(self.entries.len()).ok()?);
            self.entries.push(Entry {
                generation: 0,
                value: None,
            });
        }
        let index = *self.free.last()?;
        let generation = self.entry(index)?.generation;
        Some(Id { index, generation })
    }

    /// Fills the entry that [`next_id`](Self::next_id) has named last.
    pub(crate) fn insert(&mut self, id: Id, value: T) {
        if self.free.last() != Some(&id.index) {
            return;
        }
        self.free.pop();
        if let Some(entry) = self.entry_mut(id.index) {
            entry.value = Some(value);
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entry_mut(index)?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1) & GENERATIONS;
        self.free.push(index);
        Some(value)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entry(index)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entry_mut(index)?.value.as_mut()
    }

    /// Whether the entry of that number is still the same one.
    pub(crate) fn is_current(&self, id: Id) -> bool {
        self.entry(id.index)
            .is_some_and(|entry| entry.value.is_some() && entry.generation == id.generation)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.entries)
            .filter_map(|(index, entry)| Some((index, entry.value.as_ref()?)))
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        self.entries.get_mut(usize::try_from(index).ok()?)
    }
}

/// As many bits of a generation as fit into a socket's number.
const GENERATIONS: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_took_the_place_of_another_is_told_apart() {
        let mut slab = Slab::new(2);
        let first = slab.next_id().unwrap();
        slab.insert(first, 'a');
        let second = slab.next_id().unwrap();
        slab.insert(second, 'b');
        assert_eq!(slab.next_id(), None);
        assert_eq!(slab.remove(first.index), Some('a'));
        assert_eq!(slab.remove(first.index), None);

        let third = slab.next_id().unwrap();
        assert_eq!(third.index, first.index);
        slab.insert(third, 'c');
        assert!(!slab.is_current(first) && slab.is_current(third));
        assert_eq!(
            slab.iter().map(|(_, value)| *value).collect::<String>(),
            "cb"
        );
    }
}
