//! How much of a stream either side may send (§5.10.6.3).
//!
//! All counts are of bytes and modulo 2^32, as the protocol has them.

/// The guest's bytes on their way to the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbound {
    /// `buf_alloc`: the most that is held for the host.
    room: u32,
    received: u32,
    /// `fwd_cnt`: what the host has taken.
    forwarded: u32,
    /// `forwarded` as the guest was told last.
    told: u32,
}

impl Inbound {
    pub(crate) fn new(room: u32) -> Self {
        Self {
            room,
            received: 0,
            forwarded: 0,
            told: 0,
        }
    }

    /// The guest sends `len` bytes. False if it must not: there is no room for them.
    pub(crate) fn receive(&mut self, len: u32) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        let possible = len <= self.room.saturating_sub(held);
        if possible {
            self.received = self.received.wrapping_add(len);
        }
        possible
    }

    /// The host has taken `len` bytes, or they are dropped.
    pub(crate) fn forward(&mut self, len: u32) {
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    pub(crate) fn room(&self) -> u32 {
        self.room
    }

    /// There is more room from now on.
    pub(crate) fn grow(&mut self, room: u32) {
        self.room = self.room.max(room);
    }

    /// What the guest is told by a packet: `buf_alloc` and `fwd_cnt`.
    pub(crate) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (self.room, self.forwarded)
    }

    /// Whether the guest may be waiting to hear of room: half of what it uses has become free since it was told. Some
    /// guests use no more than they offer themselves, `offered`.
    pub(crate) fn owes_update(&self, offered: u32) -> bool {
        let used = match offered {
            0 => self.room,
            _ => self.room.min(offered),
        };
        let free = self.forwarded.wrapping_sub(self.told);
        free > 0 && free >= used / 2
    }
}

/// Bytes that a queued packet costs a Linux guest at least, which since 6.12.92 resets a connection whose packets cost
/// more than its room; 576 on 64-bit machines, rounded up.
const PACKET_COST: u32 = 640;
/// With less room left than this a packet is not worth its cost, unless the guest has little room altogether.
const WORTH: u32 = 4096;

/// The host's bytes on their way to the guest.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outbound {
    sent: u32,
    /// The guest's `buf_alloc`.
    room: u32,
    /// Its `fwd_cnt`.
    forwarded: u32,
    /// Packets that the guest may not have taken yet: those sent up to `mark`, and those sent since.
    older: u32,
    newer: u32,
    /// `sent` when the last of the older ones was sent.
    mark: u32,
}

impl Outbound {
    /// The guest has told of its room.
    pub(crate) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.room = buf_alloc;
        self.forwarded = fwd_cnt;
        let outstanding = self.outstanding();
        if outstanding == 0 {
            (self.older, self.newer) = (0, 0);
        } else if outstanding <= self.sent.wrapping_sub(self.mark) {
            self.turn_over();
        }
    }

    fn turn_over(&mut self) {
        (self.older, self.newer) = (self.newer, 0);
        self.mark = self.sent;
    }

    pub(crate) fn room(&self) -> u32 {
        self.room
    }

    /// What the guest has not taken, as far as it has told. A guest that claims more than it got has not taken any.
    fn outstanding(&self) -> u32 {
        self.sent.wrapping_sub(self.forwarded)
    }

    /// The most bytes that the next packet may have; 0 if it is better to wait until the guest tells of more room.
    pub(crate) fn allowance(&self) -> u32 {
        let free = self.room.saturating_sub(self.outstanding());
        if free < WORTH.min(self.room / 2) || self.packets() >= self.max_packets() {
            return 0;
        }
        free
    }

    /// Counts a packet with `len` bytes. Returns whether the guest should be asked how many it has taken, which it may
    /// not tell by itself as long as there is room for their bytes.
    pub(crate) fn send(&mut self, len: u32) -> bool {
        self.sent = self.sent.wrapping_add(len);
        self.newer += 1;
        let half = self.newer == self.max_packets() / 2 + 1;
        if half && self.older == 0 {
            self.turn_over();
        }
        half
    }

    fn packets(&self) -> u32 {
        self.older.saturating_add(self.newer)
    }

    fn max_packets(&self) -> u32 {
        (self.room / PACKET_COST).max(1)
    }
}

#[cfg(test)]
mod tests;
