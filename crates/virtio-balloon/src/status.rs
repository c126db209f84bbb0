//! What is known of a balloon.

use crate::Statistics;

/// What a balloon is, and what it has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalloonStatus {
    /// The guest has a driver that runs.
    pub running: bool,
    /// How many bytes the guest is to put into the balloon.
    pub target: u64,
    /// How many it has there, by its own word.
    pub actual: u64,
    /// The guest is being asked for all of its free pages.
    pub hinting: bool,
    /// What was counted.
    pub totals: Totals,
    /// What the guest told last of its memory. How often it has done so is in [`Totals::statistics`].
    pub statistics: Statistics,
}

/// What was counted since the device was made. None of it goes back or wraps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Pages of 4 KiB that were put into the balloon.
    pub inflated: u64,
    /// Those that were taken out of it: never more than were put in.
    pub deflated: u64,
    /// Bytes that were reported as free.
    pub reported: u64,
    /// Bytes that were hinted at as free, when the guest was asked for that.
    pub hinted: u64,
    /// Bytes that went back to the host, by any of these.
    pub returned: u64,
    /// How often the guest has told statistics.
    pub statistics: u64,
    /// What made no sense or was too much: pages that are not RAM, ranges that wrap, statistics that are not known.
    pub ignored: u64,
    /// How often the host refused to take pages.
    pub failed: u64,
}

impl Totals {
    /// Pages of 4 KiB that are in the balloon, as counted by the device.
    pub const fn held(&self) -> u64 {
        self.inflated.saturating_sub(self.deflated)
    }

    /// `pages` go into the balloon, as far as a guest with so many has them: nothing more can be in it.
    pub(crate) fn inflate(&mut self, pages: u64, of: u64) {
        let room = of.saturating_sub(self.held());
        add(&mut self.inflated, pages.min(room));
        add(&mut self.ignored, pages.saturating_sub(room));
    }

    /// `pages` come out of it, as far as they are there.
    pub(crate) fn deflate(&mut self, pages: u64) {
        let held = self.held();
        add(&mut self.deflated, pages.min(held));
        add(&mut self.ignored, pages.saturating_sub(held));
    }
}

/// Counts without wrapping.
pub(crate) fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}
