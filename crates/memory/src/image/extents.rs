//! Which pages an image has of its own, where it is the difference to another.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{MemoryError, PAGE_SIZE, layout};

/// The most runs of pages that are told apart.
pub const MAX_EXTENTS: usize = 1 << 20;

/// A run of pages: offsets and lengths in an image, in bytes, both multiples of the page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte.
    pub start: u64,
    /// Bytes: at least a page.
    pub len: u64,
}

impl Extent {
    /// Offset of the byte after the last.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Runs of pages, ascending, with other pages between each two of them.
///
/// They are saved as pairs of numbers of pages: how many there are between a run and the one before it, and how many it
/// has. What is not such a list, or has more than [`MAX_EXTENTS`], is refused before it is in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// Adds `len` bytes from `start`, which lie behind all that there are.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Extents`] if they do not, are not whole pages, or there are too many runs.
    pub fn push(&mut self, start: u64, len: u64) -> Result<(), MemoryError> {
        let refuse = |limit| Err(MemoryError::Extents { start, len, limit });
        if !start.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) || len == 0 {
            return refuse("must be whole pages");
        }
        if start
            .checked_add(len)
            .is_none_or(|end| end > layout::MAX_SIZE)
        {
            return refuse("must end within 4 TiB");
        }
        let full = self.0.len() >= MAX_EXTENTS;
        match self.0.last_mut() {
            Some(last) if start < last.end() => return refuse("must lie behind the run before"),
            Some(last) if start == last.end() => last.len += len,
            _ if full => return refuse("are one run more than 1048576"),
            _ => self.0.push(Extent { start, len }),
        }
        Ok(())
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.0.iter().copied()
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all runs.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|extent| extent.len).sum()
    }

    /// Looks whether all lie within an image of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Extents`] with the last one if it does not.
    pub fn check(&self, size: u64) -> Result<(), MemoryError> {
        match self.0.last() {
            Some(last) if last.end() > size => Err(MemoryError::Extents {
                start: last.start,
                len: last.len,
                limit: "must lie within RAM",
            }),
            _ => Ok(()),
        }
    }
}

impl Serialize for Extents {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut end = 0;
        to.collect_seq(self.0.iter().map(|extent| {
            let between = extent.start.saturating_sub(end) / PAGE_SIZE;
            end = extent.end();
            (between, extent.len / PAGE_SIZE)
        }))
    }
}

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Runs)
    }
}

struct Runs;

impl<'de> Visitor<'de> for Runs {
    type Value = Extents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("runs of pages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut runs: A) -> Result<Extents, A::Error> {
        let mut extents = Extents::default();
        while let Some((between, pages)) = runs.next_element::<(u64, u64)>()? {
            let end = extents.0.last().map(|last| last.end());
            if end.is_some() && between == 0 {
                return Err(A::Error::custom("runs of pages touch"));
            }
            let start = between
                .checked_mul(PAGE_SIZE)
                .and_then(|bytes| bytes.checked_add(end.unwrap_or(0)));
            let (Some(start), Some(len)) = (start, pages.checked_mul(PAGE_SIZE)) else {
                return Err(A::Error::custom("a run of pages ends nowhere"));
            };
            extents.push(start, len).map_err(A::Error::custom)?;
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runs: &[(u64, u64)]) -> Result<Extents, MemoryError> {
        let mut extents = Extents::default();
        for (page, pages) in runs {
            extents.push(page * PAGE_SIZE, pages * PAGE_SIZE)?;
        }
        Ok(extents)
    }

    #[test]
    fn runs_that_touch_are_one() {
        let extents = of(&[(0, 1), (1, 2), (5, 1)]).unwrap();
        assert_eq!((extents.len(), extents.bytes()), (2, 4 * PAGE_SIZE));
        assert!(extents.check(6 * PAGE_SIZE).is_ok());
        let error = extents.check(6 * PAGE_SIZE - 1).unwrap_err().to_string();
        assert!(
            error.contains("0x5000") && error.contains("within RAM"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_list_of_runs_is_refused() {
        assert!(of(&[(3, 2), (4, 1)]).is_err());
        assert!(of(&[(3, 0)]).is_err());
        assert!(of(&[(1 << 30, 1)]).is_err());
        let mut extents = Extents::default();
        assert!(extents.push(1, PAGE_SIZE).is_err());
        assert!(extents.push(0, 1).is_err());
        assert!(extents.push(u64::MAX - 4095, PAGE_SIZE).is_err());
    }

    #[test]
    fn there_are_no_more_than_can_be() {
        let mut extents = Extents::default();
        for run in 0..MAX_EXTENTS as u64 {
            extents.push(2 * run * PAGE_SIZE, PAGE_SIZE).unwrap();
        }
        let next = 2 * MAX_EXTENTS as u64 * PAGE_SIZE;
        assert!(extents.push(next, PAGE_SIZE).is_err());
        assert!(extents.push(next - PAGE_SIZE, PAGE_SIZE).is_ok());
    }
}
