//! When something is to happen: one time at most for each flow.

use std::time::Duration;

/// A heap of times, in which everyone who has one knows his place: setting, moving and dropping one is a matter of a
/// few steps, and there are never more than there are flows.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Duration, u32)>,
    /// By number: the place in the heap.
    places: Vec<Option<usize>>,
}

impl Timers {
    /// Sets the time of `id`, or drops it.
    pub(crate) fn set(&mut self, id: u32, at: Option<Duration>) {
        match (self.place(id), at) {
            (None, None) => {}
            (Some(place), None) => self.remove(place),
            (None, Some(at)) => {
                self.heap.push((at, id));
                self.up(self.heap.len() - 1);
            }
            (Some(place), Some(at)) => {
                if let Some(entry) = self.heap.get_mut(place) {
                    entry.0 = at;
                }
                self.up(place);
                self.down(self.place(id).unwrap_or(place));
            }
        }
    }

    /// The first time of all.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// The time of `id`.
    pub(crate) fn get(&self, id: u32) -> Option<Duration> {
        let place = self.place(id)?;
        self.heap.get(place).map(|(at, _)| *at)
    }

    /// Whose time has come: it is dropped.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<u32> {
        let (at, id) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(id)
    }

    fn place(&self, id: u32) -> Option<usize> {
        *self.places.get(usize::try_from(id).ok()?)?
    }

    fn remove(&mut self, place: usize) {
        let Some((_, id)) = self.heap.get(place).copied() else {
            return;
        };
        self.heap.swap_remove(place);
        self.note(id, None);
        if let Some((_, moved)) = self.heap.get(place).copied() {
            self.note(moved, Some(place));
            self.up(place);
            self.down(self.place(moved).unwrap_or(place));
        }
    }

    fn note(&mut self, id: u32, place: Option<usize>) {
        let Ok(index) = usize::try_from(id) else {
            return;
        };
        if index >= self.places.len() {
            self.places.resize(index + 1, None);
        }
        if let Some(entry) = self.places.get_mut(index) {
            *entry = place;
        }
    }

    fn at(&self, place: usize) -> Option<Duration> {
        self.heap.get(place).map(|(at, _)| *at)
    }

    /// Moves what is at `place` towards the top.
    fn up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.at(parent) <= self.at(place) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        self.settle(place);
    }

    /// Moves what is at `place` towards the leaves.
    fn down(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let earlier = |a: usize, b: usize| matches!((self.at(a), self.at(b)), (Some(a), Some(b)) if a < b);
            let child = if earlier(right, left) { right } else { left };
            if !earlier(child, place) {
                break;
            }
            self.swap(place, child);
            place = child;
        }
        self.settle(place);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    fn settle(&mut self, place: usize) {
        if let Some((_, id)) = self.heap.get(place).copied() {
            self.note(id, Some(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_come_in_their_order(steps in prop::collection::vec((0..12_u32, prop::option::of(0..50_u64)), 0..80)) {
            let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
            for (id, at) in steps {
                let at = at.map(Duration::from_millis);
                timers.set(id, at);
                match at {
                    Some(at) => model.insert(id, at),
                    None => model.remove(&id),
                };
                prop_assert_eq!(timers.first(), model.values().min().copied());
                prop_assert_eq!(timers.get(id), at);
            }
            for now in (0..60).map(Duration::from_millis) {
                while let Some(id) = timers.pop(now) {
                    prop_assert!(model.remove(&id).is_some_and(|at| at <= now));
                }
                prop_assert!(model.values().all(|at| *at > now));
            }
        }
    }
}
