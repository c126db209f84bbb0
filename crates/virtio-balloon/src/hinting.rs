//! Hints of free pages (§5.5.6.5): who is asked for them, and which of them count.

use crate::spec::cmd_id;

/// Where a round of hints is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hinting {
    /// The last that asked for hints.
    last: u32,
    /// The driver has begun to answer the round that goes on.
    answering: bool,
}

impl Default for Hinting {
    fn default() -> Self {
        Self {
            last: cmd_id::DONE,
            answering: false,
        }
    }
}

impl Hinting {
    /// As it is after a state was put back, in which the configuration has `current`. Hints that the driver made in that
    /// round may be old: it has run on since, elsewhere, and may have taken the pages back.
    pub(crate) fn resumed(last: u32) -> Self {
        Self {
            last: last.max(cmd_id::DONE),
            answering: false,
        }
    }

    pub(crate) fn last(self) -> u32 {
        self.last
    }

    /// A new round begins: its number.
    pub(crate) fn begin(&mut self) -> u32 {
        self.last = match self.last.checked_add(1) {
            Some(next) => next.max(cmd_id::FIRST),
            None => cmd_id::FIRST,
        };
        self.answering = false;
        self.last
    }

    /// The driver has sent a number, while the configuration has `current`. Returns whether it has ended the round.
    pub(crate) fn received(&mut self, number: u32, current: u32) -> bool {
        let asked = is_round(current);
        self.answering = asked && number == current;
        asked && number == cmd_id::STOP
    }

    /// Whether what the driver hints at now is free: it has answered the round that goes on.
    pub(crate) fn counts(self, current: u32) -> bool {
        self.answering && is_round(current)
    }

    /// The driver starts anew.
    pub(crate) fn reset(&mut self) {
        self.answering = false;
    }
}

/// Whether a number asks for hints.
pub(crate) const fn is_round(number: u32) -> bool {
    number >= cmd_id::FIRST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_have_numbers_that_are_not_reserved_and_differ() {
        let mut hinting = Hinting::default();
        assert_eq!(hinting.begin(), 2);
        assert_eq!(hinting.begin(), 3);
        let mut last = Hinting::resumed(u32::MAX);
        assert_eq!(last.begin(), 2);
        assert_eq!(Hinting::resumed(0).begin(), 2);
    }

    #[test]
    fn only_hints_of_the_round_that_goes_on_count() {
        let mut hinting = Hinting::default();
        let round = hinting.begin();
        assert!(!hinting.counts(round), "the driver has not begun");
        assert!(!hinting.received(round + 1, round));
        assert!(!hinting.counts(round));
        assert!(!hinting.received(round, round));
        assert!(hinting.counts(round));
        assert!(!hinting.counts(cmd_id::DONE) && !hinting.counts(cmd_id::STOP));
        assert!(hinting.received(cmd_id::STOP, round));
        assert!(!hinting.counts(round));
        assert!(!hinting.received(cmd_id::STOP, cmd_id::STOP));
        assert!(!hinting.received(cmd_id::DONE, cmd_id::DONE));
        assert!(!hinting.counts(cmd_id::DONE));
    }
}
