//! Address ranges.

use std::fmt;

use crate::BusError;

/// A non-empty range of addresses that does not wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// The range of `len` addresses from `first`.
    ///
    /// # Errors
    ///
    /// [`BusError::BadRange`] if `len` is 0 or the range would wrap.
    pub const fn new(first: u64, len: u64) -> Result<Self, BusError> {
        match len.checked_sub(1) {
            Some(more) => match first.checked_add(more) {
                Some(last) => Ok(Self { first, last }),
                None => Err(BusError::BadRange { first, len }),
            },
            None => Err(BusError::BadRange { first, len }),
        }
    }

    /// `len` ports from `first`, at least one and none above the highest.
    pub const fn ports(first: u16, len: u16) -> Self {
        let last = first.saturating_add(len.saturating_sub(1));
        Self {
            first: first as u64,
            last: last as u64,
        }
    }

    /// The lowest address.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The highest address, inclusive.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The offset of an access of `len` bytes at `address`, if all of it lies inside.
    pub(crate) fn offset_of(&self, address: u64, len: usize) -> Option<u64> {
        let more = u64::try_from(len).ok()?.checked_sub(1)?;
        let last = address.checked_add(more)?;
        (last <= self.last).then(|| address.checked_sub(self.first))?
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}
