//! A segment arrives (RFC 9293 §3.10.7).

use std::time::Duration;

use super::flow::{Flow, State};
use super::{Segment, before, distance, flag, length};

/// Acknowledgements of nothing, after which a segment counts as lost (RFC 5681 §3.2).
const DUPLICATES: u8 = 3;
/// The most acknowledgements that are owed at once.
const MAX_ACKS: u8 = 4;

/// Where a segment's data is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// In the room of the ring, where it belongs: it is the next data, all of it.
    Staged,
    /// Elsewhere.
    Bytes(&'a [u8]),
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Goes,
    /// It is over in good order.
    Over,
    /// The guest has broken it.
    Reset,
    /// The segment belongs to no connection that we know, and is answered by a reset.
    Stray,
    /// The guest opens another with the same ports.
    Reopen,
}

impl<S> Flow<S> {
    /// Whether the segment's data is just what is expected next, so that it can be read to where it belongs.
    pub(crate) fn expects(&self, segment: &Segment) -> bool {
        let receiver = &self.receiver;
        matches!(self.state, State::Established | State::SynReceived)
            && segment.len > 0
            && segment.seq == receiver.next
            && !receiver.ended
            && !segment.is(flag::SYN | flag::RST)
            && segment.len <= self.window()
    }

    /// Room for so much data that is expected.
    pub(crate) fn stage(&mut self, len: usize) -> [&mut [u8]; 2] {
        let ring = &mut self.receiver.ring;
        let needed = ring.len().saturating_add(len);
        if needed > ring.capacity() {
            ring.grow(
                needed
                    .next_power_of_two()
                    .clamp(4096, self.receiver.limit.max(needed)),
            );
        }
        ring.room(len)
    }

    /// What was written to that room.
    pub(crate) fn staged(&self, len: usize) -> [&[u8]; 2] {
        self.receiver.ring.staged(len)
    }

    /// What the guest may send, from what is expected next.
    pub(super) fn window(&self) -> u32 {
        self.receiver.edge.wrapping_sub(self.receiver.next)
    }

    /// Takes a segment from the guest.
    pub(crate) fn input(
        &mut self,
        segment: &Segment,
        payload: Payload<'_>,
        now: Duration,
    ) -> Verdict {
        match self.state {
            State::Connecting => self.input_connecting(segment),
            State::SynSent => self.input_syn_sent(segment, now),
            State::Broken if segment.is(flag::RST) => Verdict::Reset,
            State::Broken => Verdict::Goes,
            State::TimeWait if segment.is(flag::SYN) && !segment.is(flag::ACK | flag::RST) => {
                // RFC 9293 §3.6.1: a new one begins beyond the old one.
                if before(self.receiver.next, segment.seq) {
                    Verdict::Reopen
                } else {
                    self.challenge()
                }
            }
            _ => self.input_synchronized(segment, payload, now),
        }
    }

    /// Until the host has connected, the guest has been told nothing.
    fn input_connecting(&mut self, segment: &Segment) -> Verdict {
        let next = self.receiver.next;
        if segment.is(flag::RST) && (segment.seq == next || segment.seq == next.wrapping_sub(1)) {
            return Verdict::Reset;
        }
        Verdict::Goes
    }

    /// §3.10.7.3.
    fn input_syn_sent(&mut self, segment: &Segment, now: Duration) -> Verdict {
        let acceptable = segment.is(flag::ACK)
            && segment.ack == self.sender.una.wrapping_add(1)
            && self.sender.max != self.sender.una;
        if segment.is(flag::RST) {
            return if acceptable {
                Verdict::Reset
            } else {
                Verdict::Goes
            };
        }
        if segment.is(flag::ACK) && !acceptable {
            return Verdict::Stray;
        }
        if !segment.is(flag::SYN) {
            return Verdict::Goes;
        }
        self.take_syn(segment);
        self.heard(now);
        self.retry_at = None;
        // How long the guest took to start says nothing of how long it takes to answer.
        self.retries = 0;
        if acceptable {
            self.sender.una = segment.ack;
            self.state = State::Established;
            self.owe_ack();
        } else {
            // Both have opened at once.
            self.state = State::SynReceived;
            self.owed.syn = true;
        }
        Verdict::Goes
    }

    /// §3.10.7.4, in the order of the steps there.
    fn input_synchronized(
        &mut self,
        segment: &Segment,
        payload: Payload<'_>,
        now: Duration,
    ) -> Verdict {
        let next = self.receiver.next;
        if self.state == State::SynReceived
            && segment.is(flag::SYN)
            && segment.seq.wrapping_add(1) == next
        {
            // Ours was lost, or is still on its way.
            self.owed.syn = true;
            return Verdict::Goes;
        }
        if !self.is_acceptable(segment) {
            if !segment.is(flag::RST) {
                self.heard(now);
                return self.unacceptable(segment, now);
            }
            return Verdict::Goes;
        }
        if segment.is(flag::RST) {
            // RFC 5961 §3.2: any other in the window may be somebody else's.
            return if segment.seq == next {
                Verdict::Reset
            } else {
                self.challenge()
            };
        }
        if segment.is(flag::SYN) {
            return self.challenge();
        }
        if !segment.is(flag::ACK) {
            return Verdict::Goes;
        }
        self.heard(now);
        if self.state == State::SynReceived {
            if segment.ack != self.sender.una.wrapping_add(1) || self.sender.max == self.sender.una
            {
                return Verdict::Stray;
            }
            self.establish(segment);
        }
        if !self.acknowledge(segment, now) {
            return self.challenge();
        }
        self.take_data(segment, payload);
        self.verdict(now)
    }

    /// §3.10.7.4, first: the segment or a part of it is in the window.
    fn is_acceptable(&self, segment: &Segment) -> bool {
        let (next, window) = (self.receiver.next, self.window());
        let len = segment.sequence_len();
        let inside = |seq: u32| seq.wrapping_sub(next) < window;
        match (len, window) {
            (0, 0) => segment.seq == next,
            (0, _) => inside(segment.seq),
            // A FIN needs no room, and one that was refused might not be sent again for long.
            (_, 0) => segment.is(flag::FIN) && segment.seq.wrapping_add(segment.len) == next,
            _ => inside(segment.seq) || inside(segment.seq.wrapping_add(len - 1)),
        }
    }

    /// A segment that is not in the window is answered, and its acknowledgement counts if it is at the edge of a window
    /// that is closed.
    fn unacceptable(&mut self, segment: &Segment, now: Duration) -> Verdict {
        self.owe_ack();
        let probes = self.window() == 0 && segment.seq == self.receiver.next;
        if probes
            && segment.is(flag::ACK)
            && !segment.is(flag::SYN)
            && self.state == State::Established
        {
            self.acknowledge(segment, now);
            return self.verdict(now);
        }
        Verdict::Goes
    }

    fn establish(&mut self, segment: &Segment) {
        self.state = State::Established;
        self.sender.una = segment.ack;
        self.sender.told_by = (segment.seq, segment.ack);
        self.set_window(segment);
        self.retry_at = None;
        self.retries = 0;
    }

    fn set_window(&mut self, segment: &Segment) {
        let sender = &mut self.sender;
        let was = sender.window;
        sender.window = u32::from(segment.window) << sender.scale;
        if was == 0 && sender.window > 0 {
            // What was waited for so long is not what is waited for next.
            self.retries = 0;
        }
        sender.max_window = sender.max_window.max(sender.window);
        sender.told_by = (segment.seq, segment.ack);
    }

    /// Takes the acknowledgement and the window. False if it is of something that was never sent.
    fn acknowledge(&mut self, segment: &Segment, now: Duration) -> bool {
        let sender = &mut self.sender;
        let (una, max) = (sender.una, sender.max);
        let new = segment.ack.wrapping_sub(una);
        if new > max.wrapping_sub(una) {
            // An old one is a late one, unless it is older than anything in the window (RFC 5961 §5.2).
            let old = una.wrapping_sub(segment.ack);
            return old <= sender.max_window.max(1 << 16);
        }
        let (seq, ack) = sender.told_by;
        let was = sender.window;
        // What acknowledges more is newer, too, even if it was sent before for the first time: else the old window would
        // count from a place that it was never meant for.
        let is_newer = new > 0 || before(seq, segment.seq);
        if is_newer || seq == segment.seq && !before(segment.ack, ack) {
            self.set_window(segment);
        }
        if new > 0 {
            self.advance(new, now);
        } else {
            let is_duplicate =
                segment.len == 0 && !segment.is(flag::FIN) && was == self.sender.window;
            self.count_duplicate(is_duplicate);
        }
        true
    }

    /// The guest has `new` more.
    fn advance(&mut self, new: u32, now: Duration) {
        let sender = &mut self.sender;
        let data = length(new).min(sender.ring.len());
        sender.ring.consume(data);
        sender.full = false;
        sender.ended |= length(new) > data;
        sender.una = sender.una.wrapping_add(new);
        if before(sender.next, sender.una) {
            sender.next = sender.una;
        }
        sender.duplicates = 0;
        match sender.recover {
            // RFC 6582 §3.2: what follows is missing, too.
            Some(recover) if before(sender.una, recover) => self.owed.again = true,
            _ => {
                sender.recover = None;
                self.owed.again = false;
            }
        }
        self.retries = 0;
        self.owed.probe = false;
        self.retry_at = match self.sender.in_flight() {
            0 => None,
            _ => Some(now.saturating_add(super::timeout::FIRST_RETRY)),
        };
    }

    fn count_duplicate(&mut self, is_duplicate: bool) {
        let sender = &mut self.sender;
        if !is_duplicate || sender.max == sender.una {
            sender.duplicates = 0;
            return;
        }
        sender.duplicates = sender.duplicates.saturating_add(1);
        if sender.duplicates == DUPLICATES && sender.recover.is_none() {
            sender.recover = Some(sender.max);
            self.owed.again = true;
        }
    }

    /// §3.10.7.4, seventh and eighth: the data and the FIN.
    fn take_data(&mut self, segment: &Segment, payload: Payload<'_>) {
        if self.receiver.ended {
            if segment.sequence_len() > 0 {
                self.owe_ack();
            }
            return;
        }
        let next = self.receiver.next;
        if before(next, segment.seq) {
            // Something before it is missing: it is not kept, and the guest is told at once.
            self.owed.acks = self.owed.acks.saturating_add(1).min(MAX_ACKS);
            return;
        }
        let known = next.wrapping_sub(segment.seq);
        let taken = match payload {
            Payload::Staged => segment.len,
            Payload::Bytes(bytes) => self.keep(bytes, known),
        };
        self.receiver.ring_takes(payload, taken);
        if segment.len > 0 {
            self.owe_ack();
            self.is_dirty |= taken > 0;
        }
        let all = self.receiver.next == segment.seq.wrapping_add(segment.len);
        if segment.is(flag::FIN) && all {
            self.receiver.take_fin();
            self.is_dirty = true;
            self.owe_ack();
        }
    }

    /// Adds what is new of `bytes`, of which `known` are known, as far as the window goes.
    fn keep(&mut self, bytes: &[u8], known: u32) -> u32 {
        let window = length(self.window());
        let new = bytes.get(length(known)..).unwrap_or_default();
        let new = new.get(..new.len().min(window)).unwrap_or_default();
        if !new.is_empty() {
            self.stage(new.len());
        }
        distance(self.receiver.ring.push(new))
    }

    fn verdict(&mut self, now: Duration) -> Verdict {
        if !self.is_over() {
            return Verdict::Goes;
        }
        self.end(now)
    }

    /// All is done: at once if the guest knows, else after it was told.
    pub(super) fn end(&mut self, now: Duration) -> Verdict {
        if self.state == State::TimeWait {
            return Verdict::Goes;
        }
        if self.owed.acks == 0 {
            return Verdict::Over;
        }
        self.state = State::TimeWait;
        self.receiver.ring.release();
        self.sender.ring.release();
        self.retry_at = Some(now.saturating_add(super::timeout::TIME_WAIT));
        Verdict::Goes
    }

    /// The guest is there.
    pub(super) fn heard(&mut self, now: Duration) {
        self.active_at = now;
        self.owed.keepalive = false;
        self.unanswered = 0;
    }

    /// RFC 5961: who means it will answer to the acknowledgement.
    fn challenge(&mut self) -> Verdict {
        self.owe_ack();
        Verdict::Goes
    }

    pub(super) fn owe_ack(&mut self) {
        self.owed.acks = self.owed.acks.max(1);
    }
}

impl super::flow::Receiver {
    /// The guest's FIN has come, and all before it. It may be just beyond the window.
    fn take_fin(&mut self) {
        self.next = self.next.wrapping_add(1);
        if before(self.edge, self.next) {
            self.edge = self.next;
        }
        self.ended = true;
    }

    /// The ring has so many new bytes.
    fn ring_takes(&mut self, payload: Payload<'_>, len: u32) {
        if matches!(payload, Payload::Staged) {
            self.ring.commit(length(len));
        }
        self.next = self.next.wrapping_add(len);
        self.since = self.since.saturating_add(length(len));
    }
}
