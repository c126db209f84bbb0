//! One stream.

use std::time::Duration;

use crate::backlog::Backlog;
use crate::credit::{Inbound, Outbound};
use crate::spec::{op, shutdown};

/// What a stream is known by, between this guest and its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The host's port.
    pub(crate) host: u32,
    /// The guest's.
    pub(crate) guest: u32,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The guest has asked for it, and the host's socket has no room for another connection yet.
    Dialing,
    /// The host has asked for it, the guest has not answered.
    Requested,
    /// Both have agreed.
    Open,
    /// The guest was told that the host will neither send nor receive any more, and has not answered.
    Closing,
    /// It is over; the guest may have to be told so, and what it has sent may not have been taken by the host yet.
    Over,
}

/// The packets that are owed to the guest, each once or not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owed(u8);

impl Owed {
    /// Of this stream nothing is to follow it.
    pub(crate) const RESET: u8 = 1 << 0;
    pub(crate) const REQUEST: u8 = 1 << 1;
    pub(crate) const RESPONSE: u8 = 1 << 2;
    /// The guest has asked how much room there is.
    pub(crate) const ANSWER: u8 = 1 << 3;
    /// It should know of the room by any packet.
    pub(crate) const UPDATE: u8 = 1 << 4;
    /// It should say how much room it has.
    pub(crate) const QUESTION: u8 = 1 << 5;
    pub(crate) const SHUTDOWN: u8 = 1 << 6;
    /// What each is, in the order in which they are sent.
    const OPS: [(u8, u16); 7] = [
        (Self::RESET, op::RST),
        (Self::REQUEST, op::REQUEST),
        (Self::RESPONSE, op::RESPONSE),
        (Self::ANSWER, op::CREDIT_UPDATE),
        (Self::UPDATE, op::CREDIT_UPDATE),
        (Self::QUESTION, op::CREDIT_REQUEST),
        (Self::SHUTDOWN, op::SHUTDOWN),
    ];

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    pub(crate) fn add(&mut self, what: u8) {
        self.0 |= what;
    }

    pub(crate) fn remove(&mut self, what: u8) {
        self.0 &= !what;
    }

    /// Takes off the next: what it is, and its `op`.
    pub(crate) fn take(&mut self) -> Option<(u8, u16)> {
        let next = Self::OPS.into_iter().find(|(what, _)| self.has(*what));
        if let Some((what, _)) = next {
            self.remove(what);
        }
        next
    }
}

/// A stream, with the host's end of it as `S`.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    pub(crate) key: Key,
    /// The guest knows the stream by its key. One that is not known by it has bytes for the host left, that is all.
    pub(crate) known: bool,
    pub(crate) phase: Phase,
    /// Nothing while there is no connection yet, or if there is nothing more to be had from it.
    pub(crate) host: Option<S>,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) backlog: Backlog,
    pub(crate) owed: Owed,
    /// What the guest has said that it will not do any more ([`shutdown`]).
    pub(crate) guest_shut: u32,
    /// What the host will not do any more; what the guest is to be told of, or has been.
    pub(crate) host_shut: u32,
    /// What the guest has been told.
    pub(crate) told_shut: u32,
    /// The host may have bytes for the guest.
    pub(crate) readable: bool,
    /// After those there will be no more.
    pub(crate) ended: bool,
    /// When patience is at its end, if the stream waits for somebody.
    pub(crate) deadline: Duration,
    /// When a guest without room is asked, and after what time once more.
    pub(crate) ask_at: Duration,
    pub(crate) ask_after: Duration,
}

/// How long a guest without room may be silent before it is asked.
pub(crate) const ASK_FIRST: Duration = Duration::from_millis(20);
/// The longest time between two questions.
const ASK_LAST: Duration = Duration::from_secs(2);

impl<S> Stream<S> {
    pub(crate) fn new(key: Key, phase: Phase, room: u32) -> Self {
        Self {
            key,
            known: true,
            phase,
            host: None,
            inbound: Inbound::new(room),
            outbound: Outbound::default(),
            backlog: Backlog::default(),
            owed: Owed::default(),
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            readable: false,
            ended: false,
            deadline: Duration::ZERO,
            ask_at: Duration::ZERO,
            ask_after: ASK_FIRST,
        }
    }

    /// Whether bytes of the host's can be on their way to the guest, if that has room.
    pub(crate) fn may_read(&self) -> bool {
        self.phase == Phase::Open
            && self.readable
            && self.guest_shut & shutdown::RECEIVE == 0
            && self.host_shut & shutdown::SEND == 0
    }

    /// The host will not do `flags` any more.
    pub(crate) fn host_shuts(&mut self, flags: u32) {
        self.host_shut |= flags;
        if self.phase == Phase::Open && self.host_shut & !self.told_shut != 0 {
            self.owed.add(Owed::SHUTDOWN);
        }
    }

    /// The guest is to be told of room for its bytes, if it may be waiting for that.
    pub(crate) fn update_credit(&mut self) {
        if self.phase == Phase::Open && self.inbound.owes_update(self.outbound.room()) {
            self.owed.add(Owed::UPDATE);
        }
    }

    /// The guest is asked how much room it has after some time, unless it tells, and later each time after that.
    pub(crate) fn ask_later(&mut self, now: Duration) {
        self.ask_at = now.saturating_add(self.ask_after);
        self.ask_after = self.ask_after.saturating_mul(2).min(ASK_LAST);
    }
}
