//! The connection's end at the host.

use std::io::ErrorKind;
use std::time::Duration;

use super::flow::{Flow, HostEnd, State};
use super::input::Verdict;
use crate::config::MIN_RING;
use crate::host::{Event, Host};

/// What all connections may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes that nobody holds.
    free: usize,
    /// Bytes that one may hold in each direction.
    ring: usize,
    total: usize,
}

impl Budget {
    pub(crate) fn new(total: usize, ring: usize) -> Self {
        Self {
            free: total,
            ring,
            total,
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> bool {
        match self.free.checked_sub(len) {
            Some(free) => {
                self.free = free;
                true
            }
            None => false,
        }
    }

    pub(crate) fn give(&mut self, len: usize) {
        self.free = self.free.saturating_add(len).min(self.total);
    }

    /// Takes what a new connection may hold from the guest: less when there is little.
    pub(crate) fn start(&mut self) -> Option<usize> {
        let generous = (4 * MIN_RING).min(self.ring);
        let limit = match self.free.checked_sub(generous + MIN_RING) {
            Some(left) if left >= self.total / 4 => generous,
            _ => MIN_RING,
        };
        // What goes to the guest is taken when there is something; so much there must be.
        self.take(limit + MIN_RING).then_some(limit)
    }

    /// Gives back what [`start`](Self::start) took.
    pub(crate) fn give_start(&mut self, limit: usize) {
        self.give(limit + MIN_RING);
    }

    /// Takes what makes `limit` the double, if a connection may hold that. A quarter of all is for new connections.
    fn double(&mut self, limit: usize) -> Option<usize> {
        let more = limit.checked_mul(2)?.min(self.ring).checked_sub(limit)?;
        let is_left = self.free.checked_sub(more)? >= self.total / 4;
        (more > 0 && is_left && self.take(more)).then_some(limit + more)
    }
}

impl<S> Flow<S> {
    /// Takes what the host says of the socket.
    pub(crate) fn host_event(&mut self, event: Event) {
        self.host.readable |= (event.readable || event.hang_up) && !self.host.ended;
        self.host.writable |= event.writable;
        self.host.hang_up |= event.hang_up;
    }

    /// The host has connected: the guest is told.
    pub(crate) fn host_connected(&mut self) {
        self.state = State::SynReceived;
        self.owed.syn = true;
    }

    /// The host's side is broken: the guest is told.
    pub(crate) fn break_off(&mut self, now: Duration) {
        self.state = State::Broken;
        self.active_at = now;
        self.receiver.ring.release();
        self.sender.ring.release();
        self.retry_at = None;
    }

    /// Sends the host what it takes.
    pub(crate) fn flush<H: Host<Socket = S>>(
        &mut self,
        host: &mut H,
        budget: &mut Budget,
        now: Duration,
    ) -> Verdict {
        self.is_dirty = false;
        if !matches!(self.state, State::Established) {
            return Verdict::Goes;
        }
        self.send(host, now);
        self.widen(budget);
        if self.is_over() {
            return self.end(now);
        }
        Verdict::Goes
    }

    fn send<H: Host<Socket = S>>(&mut self, host: &mut H, now: Duration) {
        let Some(socket) = self.host.socket.take() else {
            return;
        };
        let ring = &mut self.receiver.ring;
        while self.host.writable && !ring.is_empty() {
            let len = ring.len();
            match host.send(&socket, ring.slices(0, len)) {
                Ok(sent) => {
                    ring.consume(sent);
                    // Fewer than it was given is all that it has room for.
                    self.host.writable = sent >= len;
                    self.active_at = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.host.writable = false,
                Err(_) => self.host.fail(),
            }
        }
        if self.host.failed {
            // Nobody takes it any more.
            ring.consume(ring.len());
        }
        if ring.is_empty() && self.receiver.ended && !self.host.shut {
            // Who has gone already needs not be told.
            let _ = host.shut_down(&socket);
            self.host.shut = true;
        }
        self.host.socket = Some(socket);
    }

    /// Lets the guest send more at once if it sends much, and tells it of room that there is again.
    fn widen(&mut self, budget: &mut Budget) {
        let receiver = &mut self.receiver;
        // A window that is not scaled cannot tell of more.
        let can_grow = receiver.scale > 0;
        if can_grow && receiver.since > 4 * receiver.limit {
            receiver.since = 0;
            if let Some(limit) = budget.double(receiver.limit) {
                receiver.limit = limit;
            }
        }
        let room = receiver.limit.saturating_sub(receiver.ring.len());
        let told = super::length(receiver.edge.wrapping_sub(receiver.next));
        let mss = self.sender.mss;
        let gain = room.saturating_sub(told);
        if !receiver.ended && (gain >= receiver.limit / 2 || told < mss && gain >= mss) {
            self.owe_ack();
        }
    }

    /// Whether the host may have something for the guest, and there is room for it.
    pub(super) fn can_refill(&self) -> bool {
        self.host.readable && self.state == State::Established
    }

    /// Receives what the host has for the guest.
    pub(super) fn refill<H: Host<Socket = S>>(
        &mut self,
        host: &mut H,
        budget: &mut Budget,
        now: Duration,
    ) {
        self.grow(budget);
        let Some(socket) = &self.host.socket else {
            return;
        };
        let ring = &mut self.sender.ring;
        let room = ring.capacity() - ring.len();
        if room == 0 {
            return;
        }
        match host.receive(socket, ring.room(room)) {
            Ok(0) => {
                self.host.ended = true;
                self.host.readable = false;
                self.active_at = now;
            }
            Ok(len) => {
                ring.commit(len);
                // Fewer than there is room for is all that there is, if the end is not there yet.
                self.host.readable = len >= room || self.host.hang_up;
                self.active_at = now;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.host.readable = false,
            Err(_) => {
                self.host.failed = true;
                self.host.readable = false;
            }
        }
    }

    /// Makes a full ring the double, if the budget allows it. The first part of it was taken when the connection began.
    fn grow(&mut self, budget: &mut Budget) {
        let sender = &mut self.sender;
        if sender.ring.len() < sender.ring.capacity() {
            return;
        }
        if sender.ring.capacity() >= sender.charged
            && let Some(charged) = budget.double(sender.charged)
        {
            sender.charged = charged;
        }
        sender.ring.grow(sender.charged);
        sender.full = sender.ring.len() == sender.ring.capacity();
    }

    /// Gives back what the connection does not use: it has been quiet.
    pub(super) fn shrink(&mut self, budget: &mut Budget) {
        if self.sender.ring.is_empty() {
            budget.give(self.sender.charged - MIN_RING);
            self.sender.charged = MIN_RING;
            self.sender.ring.release();
        }
        if self.receiver.ring.is_empty() {
            self.receiver.ring.release();
        }
    }

    pub(super) fn holds_buffers(&self) -> bool {
        self.sender.ring.is_empty() && self.sender.ring.capacity() > 0
            || self.receiver.ring.is_empty() && self.receiver.ring.capacity() > 0
    }

    /// What the budget gets back when the connection has gone.
    pub(crate) fn held(&self) -> usize {
        self.receiver.limit + self.sender.charged
    }
}

impl<S> HostEnd<S> {
    /// Sending has failed: what was sent by the other side before it broke is still to be had.
    fn fail(&mut self) {
        self.failed = true;
        self.writable = false;
        self.hang_up = true;
        self.readable = !self.ended;
    }
}
