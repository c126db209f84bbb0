//! One stream: its state, what has arrived, and the credit of both sides (virtio 1.3 §5.10.6.3).

use alloc::collections::VecDeque;

use super::Address;
use super::spec::{Header, TYPE_STREAM, shutdown};

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The peer has not answered yet.
    Connecting,
    Open,
    /// It is over: the program may read what is left.
    Closed,
    /// The program is done with it, and the peer has not yet said that it is.
    Closing,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) state: State,
    pub(super) local: Address,
    pub(super) peer: Address,
    /// What has arrived and was not read.
    pub(super) received: VecDeque<u8>,
    /// What the peer has said that it does no more: `VIRTIO_VSOCK_SHUTDOWN_F_*`.
    pub(super) peer_shutdown: u32,
    /// What we have said that we do no more.
    pub(super) shutdown: u32,
    /// It did not end as both sides agreed.
    pub(super) reset: bool,
    /// A write had no room: the program is told when there is some.
    pub(super) starved: bool,
    /// The peer was asked for its credit since it last told.
    pub(super) asked: bool,
    /// There is an event that says what there is to read.
    pub(super) readable_told: bool,
    /// There is an event that says that there is room.
    pub(super) writable_told: bool,
    /// Bytes that we can hold.
    buf_alloc: u32,
    /// Bytes that the program has taken, and as many as the peer knows of; both wrap around.
    fwd_cnt: u32,
    fwd_cnt_told: u32,
    /// Bytes that were sent; wraps around.
    tx_cnt: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
}

impl Stream {
    pub(super) fn new(local: Address, peer: Address, state: State, buf_alloc: u32) -> Self {
        Self {
            state,
            local,
            peer,
            received: VecDeque::new(),
            peer_shutdown: 0,
            shutdown: 0,
            reset: false,
            starved: false,
            asked: false,
            readable_told: false,
            writable_told: false,
            buf_alloc,
            fwd_cnt: 0,
            fwd_cnt_told: 0,
            tx_cnt: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
        }
    }

    /// The header of a packet of this stream. It tells the peer of our credit.
    pub(super) fn header(&mut self, op: u16, flags: u32, len: u32) -> Header {
        self.fwd_cnt_told = self.fwd_cnt;
        Header {
            from: self.local,
            to: self.peer,
            len,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    /// Takes what a packet says of the peer's credit. Says no if that cannot be: more was taken than was sent, or less than
    /// before.
    pub(super) fn take_credit(&mut self, header: &Header) -> bool {
        let taken = header.fwd_cnt.wrapping_sub(self.peer_fwd_cnt);
        if taken > self.in_flight() {
            return false;
        }
        self.peer_fwd_cnt = header.fwd_cnt;
        self.peer_buf_alloc = header.buf_alloc;
        self.asked = false;
        true
    }

    /// Bytes that the peer can still hold.
    pub(super) fn credit(&self) -> u32 {
        self.peer_buf_alloc.saturating_sub(self.in_flight())
    }

    /// Bytes that were sent and that the peer's program has not taken, as far as we know.
    fn in_flight(&self) -> u32 {
        self.tx_cnt.wrapping_sub(self.peer_fwd_cnt)
    }

    pub(super) fn count_sent(&mut self, len: u32) {
        self.tx_cnt = self.tx_cnt.wrapping_add(len);
    }

    /// Takes bytes that have arrived. Says no if they are more than the peer had credit for, or than there is memory for.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let room = usize::try_from(self.buf_alloc)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.received.len());
        if bytes.len() > room || self.received.try_reserve(bytes.len()).is_err() {
            return false;
        }
        self.received.extend(bytes);
        true
    }

    /// Forgets bytes that the program has read, the oldest. Says whether the peer should hear of it now: rarely, but before
    /// it has used its credit up.
    pub(super) fn consume(&mut self, len: usize) -> bool {
        let len = len.min(self.received.len());
        self.received.drain(..len);
        self.fwd_cnt = self
            .fwd_cnt
            .wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
        let untold = self.fwd_cnt.wrapping_sub(self.fwd_cnt_told);
        self.state == State::Open
            && self.peer_shutdown & shutdown::SEND == 0
            && untold != 0
            && untold >= self.buf_alloc / 4
    }

    /// Notes that a write had no room. Says whether that is new.
    pub(super) fn set_starved(&mut self) -> bool {
        !core::mem::replace(&mut self.starved, true)
    }

    /// Whether the program may still write.
    pub(super) fn takes_more(&self) -> bool {
        matches!(self.state, State::Open | State::Connecting)
            && self.shutdown & shutdown::SEND == 0
            && self.peer_shutdown & shutdown::RECEIVE == 0
    }

    /// Whether nothing more can arrive.
    pub(super) fn gives_no_more(&self) -> bool {
        self.state == State::Closed || self.peer_shutdown & shutdown::SEND != 0
    }
}
