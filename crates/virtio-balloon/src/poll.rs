//! When statistics are asked for.

use std::time::Duration;

/// Whether and when to ask, on the device's clock.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    interval: Option<Duration>,
    /// Somebody has asked for them.
    asked: bool,
    /// There is a buffer to ask by.
    possible: bool,
    /// There may be one that nobody has looked at.
    unseen: bool,
    /// When it is time to.
    at: Option<Duration>,
}

impl Poll {
    /// So often, if at all.
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            ..Self::default()
        }
    }

    /// From now on so often, if at all.
    pub(crate) fn set(&mut self, interval: Option<Duration>, now: Duration) {
        if self.interval != interval {
            self.interval = interval;
            self.at = interval.map(|interval| now.saturating_add(interval));
        }
    }

    /// The driver is ready. It may have added its first buffer before it was: Linux does, and notifies then, when no
    /// device may listen, and not again.
    pub(crate) fn begin(&mut self) {
        self.unseen = true;
    }

    /// Whether the first buffer is to be looked for now.
    pub(crate) fn is_unseen(&self) -> bool {
        self.unseen
    }

    /// As soon as possible.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// The driver has told, by a buffer that it can be asked by again.
    pub(crate) fn told(&mut self, now: Duration) {
        self.possible = true;
        self.at = self.interval.map(|interval| now.saturating_add(interval));
    }

    /// There is no buffer any more, because of a question or not, or none that is known.
    pub(crate) fn used(&mut self, asked: bool) {
        (self.possible, self.unseen) = (false, false);
        self.asked &= !asked;
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.interval);
    }

    /// How long until the driver is to be asked, or its buffer looked for; nothing if it cannot be, or is not to be.
    pub(crate) fn due_in(&self, now: Duration) -> Option<Duration> {
        match (self.possible, self.asked, self.at) {
            (false, ..) => self.unseen.then_some(Duration::ZERO),
            (true, true, _) => Some(Duration::ZERO),
            (true, false, at) => at.map(|at| at.saturating_sub(now)),
        }
    }
}
