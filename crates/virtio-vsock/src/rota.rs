//! Who is next: streams by number, each at most once.

/// A list of small numbers, first in, first out. Adding and removing take the same time however many there are, and
/// nothing is allocated but for a number that is greater than all before.
#[derive(Debug, Default)]
pub(crate) struct Rota {
    links: Vec<Link>,
    first: Option<u32>,
    last: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    listed: bool,
    before: Option<u32>,
    after: Option<u32>,
}

impl Rota {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn first(&self) -> Option<u32> {
        self.first
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.last
    }

    /// Who follows `number`.
    pub(crate) fn after(&self, number: u32) -> Option<u32> {
        self.links.get(place(number)).and_then(|link| link.after)
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.links.get(place(number)).is_some_and(|l| l.listed)
    }

    /// Adds a number at the end, unless it is listed. Returns whether it was not.
    pub(crate) fn push(&mut self, number: u32) -> bool {
        if self.contains(number) {
            return false;
        }
        let place = place(number);
        if self.links.len() <= place {
            self.links.resize(place.saturating_add(1), Link::default());
        }
        let before = self.last.replace(number);
        self.set(Some(number), |link| {
            *link = Link {
                listed: true,
                before,
                after: None,
            };
        });
        match before {
            None => self.first = Some(number),
            some => self.set(some, |link| link.after = Some(number)),
        }
        true
    }

    /// Takes a number off, if it is listed.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(link) = self.links.get_mut(place(number)) else {
            return;
        };
        let Link {
            listed: true,
            before,
            after,
        } = std::mem::take(link)
        else {
            return;
        };
        match before {
            None => self.first = after,
            some => self.set(some, |link| link.after = after),
        }
        match after {
            None => self.last = before,
            some => self.set(some, |link| link.before = before),
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn set(&mut self, number: Option<u32>, change: impl FnOnce(&mut Link)) {
        if let Some(link) = number.and_then(|number| self.links.get_mut(place(number))) {
            change(link);
        }
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_a_plain_list_would_be(steps in prop::collection::vec((0..3_u8, 0..8_u32), 0..200)) {
            let (mut rota, mut list) = (Rota::default(), Vec::new());
            for (step, number) in steps {
                match step {
                    0 => {
                        let new = !list.contains(&number);
                        prop_assert_eq!(rota.push(number), new);
                        if new {
                            list.push(number);
                        }
                    }
                    1 => {
                        rota.remove(number);
                        list.retain(|other| *other != number);
                    }
                    _ => {
                        if let Some(first) = rota.first() {
                            rota.remove(first);
                            prop_assert_eq!(list.remove(0), first);
                        }
                    }
                }
                let all: Vec<_> = std::iter::successors(rota.first(), |n| rota.after(*n)).collect();
                prop_assert_eq!(&all, &list);
                prop_assert_eq!(rota.is_empty(), list.is_empty());
                prop_assert_eq!(rota.last(), list.last().copied());
                prop_assert_eq!(rota.contains(number), list.contains(&number));
            }
        }
    }
}
