//! A connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::ring::Ring;
use super::{Segment, length};
use crate::config::{MAX_RING, MIN_RING};

/// By what a flow is known: its two ends, as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// How far a connection is (RFC 9293 §3.3.2). What comes after ESTABLISHED is told by which FINs were sent and
/// acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The guest has sent its SYN, and the host connects.
    Connecting,
    /// Ours was sent, or is owed, after the guest's.
    SynReceived,
    /// Ours was sent, or is owed: the connection came from outside.
    SynSent,
    /// Data flows, in at least one direction.
    Established,
    /// Both ends have closed; the guest may not know that we know.
    TimeWait,
    /// It is broken, which the guest has yet to be told.
    Broken,
}

/// What is to be sent to the guest beside data.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// How many acknowledgements: more than one only tells the guest that something came out of order.
    pub(super) acks: u8,
    pub(super) syn: bool,
    /// The first unacknowledged segment, again.
    pub(super) again: bool,
    /// What fits into a window that is small.
    pub(super) probe: bool,
    /// A segment of nothing that the guest has: it will say that it is there, and its window.
    pub(super) keepalive: bool,
}

/// A connection: its end at the guest, and the socket `S` of the host.
#[derive(Debug)]
pub(crate) struct Flow<S> {
    pub(crate) key: FlowKey,
    pub(crate) state: State,
    pub(super) host: HostEnd<S>,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) owed: Owed,
    /// The most data in a segment that the MTU allows, which the guest is told.
    pub(super) mss: usize,
    /// When an answer of the guest is missing.
    pub(super) retry_at: Option<Duration>,
    /// How often the same was sent again: so much longer is waited each time.
    pub(super) retries: u8,
    /// How often nothing at all was answered, in a row.
    pub(super) unanswered: u8,
    /// When a connection that is being made is given up.
    pub(super) give_up_at: Duration,
    /// When something was heard of either end last.
    pub(super) active_at: Duration,
    /// After how long without that the guest is asked whether it is there.
    pub(super) idle: Duration,
    /// It waits for its turn to send.
    pub(crate) is_ready: bool,
    /// It has something for the host.
    pub(crate) is_dirty: bool,
    /// It is in the list of those that have.
    pub(crate) is_listed: bool,
}

/// The end at the host.
#[derive(Debug)]
pub(super) struct HostEnd<S> {
    pub(super) socket: Option<S>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer ends, so that each receive has to go on until the end is there.
    pub(super) hang_up: bool,
    /// Nothing more will come.
    pub(super) ended: bool,
    /// Nothing more will be sent.
    pub(super) shut: bool,
    /// The connection is broken: the guest is told when it has been sent what came before.
    pub(super) failed: bool,
}

/// What comes from the guest.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) ring: Ring,
    /// The next sequence number: RCV.NXT.
    pub(super) next: u32,
    /// What follows the window, as far as the guest was ever told of it: it never moves back.
    pub(super) edge: u32,
    /// How many bytes may be in the ring.
    pub(super) limit: usize,
    /// How the window is scaled.
    pub(super) scale: u8,
    /// The guest has sent its FIN, and all before it.
    pub(super) ended: bool,
    /// Bytes since the limit was set.
    pub(super) since: usize,
}

/// What goes to the guest.
#[derive(Debug)]
pub(super) struct Sender {
    /// All that has not been acknowledged: its first byte has the number `una`.
    pub(super) ring: Ring,
    /// What the budget has given for the ring, in bytes.
    pub(super) charged: usize,
    /// It can hold no more before the guest acknowledges something.
    pub(super) full: bool,
    /// The first sequence number that is not acknowledged: SND.UNA.
    pub(super) una: u32,
    /// The next that is sent: SND.NXT.
    pub(super) next: u32,
    /// The next that was never sent.
    pub(super) max: u32,
    /// The guest's window in bytes, from `una`.
    pub(super) window: u32,
    /// The greatest that there was.
    pub(super) max_window: u32,
    /// Sequence and acknowledgement number of the segment that told the window: SND.WL1, SND.WL2.
    pub(super) told_by: (u32, u32),
    /// How the guest's window is scaled.
    pub(super) scale: u8,
    /// The most data in a segment.
    pub(super) mss: usize,
    /// The guest has acknowledged our FIN.
    pub(super) ended: bool,
    /// Acknowledgements in a row that acknowledge nothing.
    pub(super) duplicates: u8,
    /// Up to where was sent when a segment was found missing.
    pub(super) recover: Option<u32>,
}

/// What a new connection starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) now: Duration,
    /// Our initial sequence number.
    pub(crate) iss: u32,
    /// How long the connection may take to be made.
    pub(crate) patience: Duration,
    pub(crate) idle: Duration,
    /// How many bytes from the guest may be held.
    pub(crate) limit: usize,
    /// The most data in a segment that the MTU allows.
    pub(crate) mss: usize,
}

impl<S> Flow<S> {
    /// A connection that the guest opens by `syn`, while the host connects.
    pub(crate) fn outbound(syn: &Segment, socket: S, start: Start) -> Self {
        let mut flow = Self::new(syn.key, socket, start, State::Connecting);
        flow.take_syn(syn);
        flow
    }

    /// A connection that was accepted for the guest.
    pub(crate) fn inbound(key: FlowKey, socket: S, start: Start) -> Self {
        let mut flow = Self::new(key, socket, start, State::SynSent);
        flow.owed.syn = true;
        flow
    }

    fn new(key: FlowKey, socket: S, start: Start, state: State) -> Self {
        Self {
            key,
            state,
            host: HostEnd {
                socket: Some(socket),
                readable: false,
                // Found out by trying.
                writable: true,
                hang_up: false,
                ended: false,
                shut: false,
                failed: false,
            },
            receiver: Receiver {
                ring: Ring::default(),
                next: 0,
                edge: 0,
                limit: start.limit,
                scale: WINDOW_SCALE,
                ended: false,
                since: 0,
            },
            sender: Sender::new(start),
            owed: Owed::default(),
            mss: start.mss,
            retry_at: None,
            retries: 0,
            unanswered: 0,
            give_up_at: start.now.saturating_add(start.patience),
            active_at: start.now,
            idle: start.idle,
            is_ready: false,
            is_dirty: false,
            is_listed: false,
        }
    }

    /// Takes what the guest's SYN says of the guest.
    pub(super) fn take_syn(&mut self, syn: &Segment) {
        self.receiver.next = syn.seq.wrapping_add(1);
        self.receiver.edge = self.receiver.next;
        self.sender.told_by = (syn.seq, syn.ack);
        self.sender.window = syn.window.into();
        self.sender.max_window = self.sender.window;
        let default = if self.key.guest.is_ipv4() { 536 } else { 1220 };
        let mss = syn.mss.map_or(default, usize::from);
        self.sender.mss = mss.clamp(MIN_MSS, self.sender.mss);
        match syn.scale {
            Some(scale) => self.sender.scale = scale,
            // Both scale, or none (RFC 7323 §2.2).
            None => {
                self.receiver.scale = 0;
                self.sender.scale = 0;
            }
        }
    }

    pub(crate) fn socket(&self) -> Option<&S> {
        self.host.socket.as_ref()
    }

    /// Takes the socket, which is to be closed or reset.
    pub(crate) fn take_socket(&mut self) -> Option<S> {
        self.host.socket.take()
    }

    /// Bytes that the host has not taken yet.
    pub(crate) fn held_for_host(&self) -> usize {
        self.receiver.ring.len()
    }

    /// The sequence number of the guest's SYN, as long as nothing came after it.
    pub(crate) fn guest_iss(&self) -> u32 {
        self.receiver.next.wrapping_sub(1)
    }

    /// Both ends have closed, and nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.receiver.ended && self.sender.ended && self.receiver.ring.is_empty() && self.host.shut
    }
}

impl Sender {
    fn new(start: Start) -> Self {
        Self {
            ring: Ring::default(),
            charged: MIN_RING,
            full: false,
            una: start.iss,
            next: start.iss,
            max: start.iss,
            window: 0,
            max_window: 0,
            told_by: (0, 0),
            scale: 0,
            mss: start.mss,
            ended: false,
            duplicates: 0,
            recover: None,
        }
    }

    /// What was sent and is not acknowledged, FIN included.
    pub(super) fn in_flight(&self) -> u32 {
        self.next.wrapping_sub(self.una)
    }

    /// All that is not acknowledged is to be sent again.
    pub(super) fn go_back(&mut self) {
        self.next = self.una;
        self.recover = None;
        self.duplicates = 0;
    }

    /// Bytes that were not sent, or are to be sent again.
    pub(super) fn unsent(&self) -> usize {
        self.ring.len().saturating_sub(length(self.in_flight()))
    }

    /// How many bytes more the guest takes.
    pub(super) fn usable(&self) -> usize {
        length(self.window.saturating_sub(self.in_flight()))
    }
}

/// The smallest segments that a guest can ask for, in bytes of data: smaller ones would cost the host more than the guest.
const MIN_MSS: usize = 64;
/// Windows are in units of 2^7 bytes: so the largest ring can be told.
pub(super) const WINDOW_SCALE: u8 = 7;
const _: () =
    assert!((u16::MAX as usize) << WINDOW_SCALE >= MAX_RING && MIN_RING <= u16::MAX as usize);
