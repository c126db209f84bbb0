//! Connections (RFC 9293): the guest's end is ours, the other end is a socket of the host.
//!
//! The link to the guest neither loses nor reorders, so nothing is kept that came out of order, and there is no
//! congestion to control. A guest that loses what it was sent gets it again.

mod flow;
mod input;
mod output;
mod ring;
mod segment;
mod splice;
mod timeout;

pub(crate) use flow::{Flow, FlowKey, Start, State};
pub(crate) use input::{Payload, Verdict};
pub(crate) use output::{Outlet, reset_for};
pub(crate) use segment::Segment;
pub(crate) use splice::Budget;
pub(crate) use timeout::Expiry;

/// The length of a header without options.
pub(crate) const HEADER: usize = 20;

/// Bits of the header (RFC 9293 §3.1).
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const PSH: u8 = 8;
    pub(crate) const ACK: u8 = 16;
}

/// Whether sequence number `a` is before `b` (RFC 9293 §3.4).
pub(crate) fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 1 << 31
}

/// A length as a distance of sequence numbers.
pub(crate) fn distance(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A distance of sequence numbers as a length.
pub(crate) fn length(distance: u32) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}
