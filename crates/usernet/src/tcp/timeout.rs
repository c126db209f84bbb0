//! What time brings (RFC 9293 §3.8).

use std::time::Duration;

use super::flow::{Flow, State};
use super::splice::Budget;

/// How long an acknowledgement may take before the segment is sent again. RFC 6298's second is for networks of unknown
/// length.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(200);
/// How long our SYN may take: a guest that is just starting drops it until it knows its own address.
const FIRST_SYN: Duration = Duration::from_millis(50);
/// The longest times between tries.
const MAX_RETRY: Duration = Duration::from_secs(60);
const MAX_SYN: Duration = Duration::from_secs(1);
/// How often nothing may be answered: RFC 9293 §3.8.3 wants 100 s at least, and by doubling this is more.
const MAX_UNANSWERED: u8 = 10;
/// Between questions whether an idle guest is there.
const KEEPALIVE: Duration = Duration::from_secs(75);
/// The shortest time between them, however short an idle time is set.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
/// How long a connection is quiet before its empty buffers are given back.
const QUIET: Duration = Duration::from_secs(10);
/// How long the guest is waited for that is to be told that its connection is broken.
const BROKEN: Duration = Duration::from_secs(60);
/// How long the end of a connection is remembered, so that the guest's FIN can be acknowledged again.
pub(super) const TIME_WAIT: Duration = Duration::from_millis(300);

/// What time has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing, or something to send.
    Goes,
    /// The connection is over.
    Over,
    /// The host did not connect.
    NotConnected,
    /// The guest does not answer.
    Unanswered,
}

impl<S> Flow<S> {
    /// When time has something to say next.
    pub(crate) fn deadline(&self) -> Duration {
        let quiet = match self.state {
            State::Connecting | State::SynSent | State::SynReceived => self.give_up_at,
            State::Broken => self.active_at.saturating_add(BROKEN),
            _ if self.holds_buffers() => self.active_at.saturating_add(QUIET),
            _ => self.active_at.saturating_add(self.idle),
        };
        self.retry_at.map_or(quiet, |at| at.min(quiet))
    }

    /// Time has come.
    pub(crate) fn expire(&mut self, budget: &mut Budget, now: Duration) -> Expiry {
        match self.state {
            State::Connecting if now >= self.give_up_at => return Expiry::NotConnected,
            State::SynSent | State::SynReceived if now >= self.give_up_at => {
                return Expiry::Unanswered;
            }
            State::Broken if now >= self.deadline() => return Expiry::Over,
            _ => {}
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            return self.retry();
        }
        if self.state == State::Established {
            return self.quiet(budget, now);
        }
        Expiry::Goes
    }

    /// An answer is missing: all that is not acknowledged is sent again.
    fn retry(&mut self) -> Expiry {
        self.retry_at = None;
        self.retries = self.retries.saturating_add(1);
        match self.state {
            State::TimeWait => return Expiry::Over,
            State::SynSent | State::SynReceived => self.owed.syn = true,
            State::Established => {
                self.unanswered += 1;
                if self.unanswered > MAX_UNANSWERED {
                    return Expiry::Unanswered;
                }
                self.sender.go_back();
                self.owed.again = false;
                let waits = self.sender.unsent() > 0 && self.can_send() == 0;
                // A window that is small is used nevertheless (RFC 9293 §3.8.6.2.1). Of one that is closed it is asked
                // whether it still is, as Linux does: a byte beyond it, as in §3.8.6.1, not everyone takes well.
                self.owed.probe = waits && self.sender.usable() > 0;
                self.owed.keepalive = waits && self.sender.usable() == 0;
            }
            State::Connecting | State::Broken => {}
        }
        Expiry::Goes
    }

    /// Nothing has been heard for a while.
    fn quiet(&mut self, budget: &mut Budget, now: Duration) -> Expiry {
        if self.holds_buffers() && now >= self.active_at.saturating_add(QUIET) {
            self.shrink(budget);
        }
        if now >= self.active_at.saturating_add(self.idle) {
            if self.unanswered >= MAX_UNANSWERED {
                return Expiry::Unanswered;
            }
            // It is asked again only if it could have read the question.
            self.unanswered += u8::from(!self.owed.keepalive);
            self.owed.keepalive = true;
            self.active_at = now
                .saturating_sub(self.idle)
                .saturating_add(KEEPALIVE.min(self.idle).max(MIN_KEEPALIVE));
        }
        Expiry::Goes
    }

    /// Waits for a window in which there is room for what is to be sent, while nothing is under way that would be
    /// answered.
    pub(crate) fn arm(&mut self, now: Duration) {
        let waits = self.state == State::Established
            && self.retry_at.is_none()
            && !self.owed.probe
            && !self.owed.keepalive
            && self.sender.in_flight() == 0
            && self.sender.unsent() > 0
            && self.can_send() == 0;
        if waits {
            self.retry_at = Some(now.saturating_add(self.wait()));
        }
    }

    /// The guest's place on the link is not known: our SYN is owed later.
    pub(crate) fn defer_syn(&mut self, now: Duration) {
        self.owed.syn = false;
        if self.retry_at.is_none() {
            self.retry_at = Some(now.saturating_add(self.wait()));
        }
    }

    /// The guest has just shown itself: our SYN is owed now.
    pub(crate) fn hurry(&mut self) {
        self.owed.syn = true;
        self.retries = 0;
        self.retry_at = None;
    }

    /// How long to wait for an answer.
    pub(super) fn wait(&self) -> Duration {
        let (first, most) = match self.state {
            State::SynSent => (FIRST_SYN, MAX_SYN),
            _ => (FIRST_RETRY, MAX_RETRY),
        };
        first.saturating_mul(1 << self.retries.min(16)).min(most)
    }
}
