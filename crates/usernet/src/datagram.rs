//! Flows of datagrams: of UDP, and of echo requests.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::frame::FrameInfo;
use crate::header::{Header, Link};
use crate::packet::protocol;
use crate::tcp::{FlowKey, Outlet};

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    Udp,
    /// Echo requests: the guest's port is their identifier, the other is 0.
    Echo,
}

/// By what a flow is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DatagramKey {
    pub(crate) carries: Carries,
    pub(crate) ends: FlowKey,
}

/// How the host's end is reached.
#[derive(Debug)]
pub(crate) enum Via<S> {
    /// By a socket for this flow alone.
    Socket(S),
    /// By that of a forward: it came from this client.
    Forward { listener: u32, client: SocketAddr },
}

/// A flow.
#[derive(Debug)]
pub(crate) struct Datagrams<S> {
    pub(crate) key: DatagramKey,
    pub(crate) via: Via<S>,
    /// The resolver that it leads to, if it is for queries.
    pub(crate) resolver: Option<SocketAddr>,
    /// When the first query was sent that has no answer.
    pub(crate) asked_at: Option<Duration>,
    /// When something went either way last.
    pub(crate) active_at: Duration,
    /// How long it lives without that.
    pub(crate) idle: Duration,
    /// It waits for its turn.
    pub(crate) is_ready: bool,
}

impl<S> Datagrams<S> {
    pub(crate) fn deadline(&self) -> Duration {
        self.active_at.saturating_add(self.idle)
    }
}

/// A payload for the guest that is too large for a packet: it is sent in pieces (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// What is over IP.
    payload: Vec<u8>,
    ends: Option<(IpAddr, IpAddr)>,
    protocol: u8,
    ident: u32,
    sent: usize,
}

impl Pieces {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Takes a payload, none of which has been sent.
    pub(crate) fn start(&mut self, ends: (IpAddr, IpAddr), protocol: u8, parts: [&[u8]; 2]) {
        self.payload.clear();
        for part in parts {
            self.payload.extend_from_slice(part);
        }
        self.ends = Some(ends);
        self.protocol = protocol;
        self.ident = self.ident.wrapping_add(1);
        self.sent = 0;
    }

    /// Writes the next piece, of a packet of `mtu` bytes at most. What does not fit is given up.
    pub(crate) fn next<W: Write>(
        &mut self,
        mtu: usize,
        outlet: &mut Outlet<'_, W>,
    ) -> Option<Result<FrameInfo, ()>> {
        let (src, dst) = self.ends?;
        let headers = if src.is_ipv4() { 20 } else { 48 };
        let rest = self.payload.get(self.sent..).unwrap_or_default();
        let most = mtu.saturating_sub(headers) / 8 * 8;
        let piece = rest.get(..rest.len().min(most)).unwrap_or_default();
        let more = piece.len() < rest.len();
        let header = self.header(outlet.link, (src, dst), piece.len(), more);
        let len = header.len() + piece.len();
        let written = len <= outlet.room
            && !piece.is_empty()
            && outlet.out.write_all(header.bytes()).is_ok()
            && outlet.out.write_all(piece).is_ok();
        self.sent += piece.len();
        if !more || !written {
            self.ends = None;
        }
        Some(if written {
            Ok(FrameInfo::plain(len))
        } else {
            Err(())
        })
    }

    fn header(&self, link: Link, (src, dst): (IpAddr, IpAddr), len: usize, more: bool) -> Header {
        let offset = self.sent;
        if src.is_ipv4() {
            let mut header = Header::ip(link, src, dst, self.protocol, len);
            let ident = u16::try_from(self.ident & 0xffff).unwrap_or(0);
            header.set_fragment(ident, offset, more);
            return header;
        }
        let mut header = Header::ip(link, src, dst, protocol::FRAGMENT, 8 + len);
        let [high, low] = (u16::try_from(offset).unwrap_or(0) | u16::from(more)).to_be_bytes();
        header.push(&[self.protocol, 0, high, low]);
        header.push(&self.ident.to_be_bytes());
        header
    }
}
