//! Flows of datagrams.

use std::io::{ErrorKind, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::UdpPacket;

use super::Network;
use super::errors::Unreachable;
use super::from_guest::verify;
use crate::checksum::Checksum;
use crate::datagram::{Carries, DatagramKey, Datagrams, Via};
use crate::dns;
use crate::frame::{FrameInfo, PartialChecksum, TxOffload};
use crate::header::Header;
use crate::host::Host;
use crate::number::{Kind, Number};
use crate::packet::{ETHERNET, Ip, MAX_FRAME, protocol};
use crate::replies::udp_header;
use crate::rules::Protocol;
use crate::stats::Dropped;
use crate::tcp::{FlowKey, Outlet};

/// How long a flow of queries or of echo requests lives that nothing is sent on.
const SHORT_IDLE: Duration = Duration::from_secs(10);
/// Among so many flows the one is found that makes room for another.
const CANDIDATES: u32 = 8;

impl<H: Host> Network<H> {
    /// Takes a datagram of UDP.
    pub(super) fn take_udp(
        &mut self,
        ip: Ip,
        payload: &[u8],
        offload: TxOffload,
    ) -> Result<(), Dropped> {
        let udp = UdpPacket::new_checked(payload).map_err(|_| Dropped::Malformed)?;
        let (src, dst, len) = (udp.src_port(), udp.dst_port(), usize::from(udp.len()));
        let datagram = payload.get(..len).unwrap_or_default();
        // Without a checksum it is 0, which IPv6 does not allow (RFC 8200 §8.1).
        if !offload.checksum && (udp.checksum() != 0 || ip.src.is_ipv6()) {
            let ip = Ip { len, ..ip };
            verify(&ip, &[datagram])?;
        }
        let data = datagram.get(8..).unwrap_or_default();
        if dst == super::local::DHCP_SERVER && ip.dst.is_ipv4() && self.is_for_dhcp(ip.dst) {
            return self.take_dhcp(data);
        }
        if !ip.is_unicast() || dst == 0 || src == 0 {
            return Err(Dropped::NotForUs);
        }
        let ends = FlowKey {
            guest: SocketAddr::new(ip.src, src),
            remote: SocketAddr::new(ip.dst, dst),
        };
        let key = DatagramKey {
            carries: Carries::Udp,
            ends,
        };
        let sent = match self.udp_keys.get(&key) {
            Some(index) => Ok(*index),
            None => self.open_udp(key),
        };
        match sent {
            Ok(index) => self.send_datagram(index, data),
            Err(why) => {
                let unreachable = match why {
                    Dropped::NotForUs => Unreachable::Host,
                    _ => Unreachable::Port,
                };
                self.send_udp_unreachable(ends, unreachable);
                Err(why)
            }
        }
    }

    fn open_udp(&mut self, key: DatagramKey) -> Result<u32, Dropped> {
        let to = self.route(Some(Protocol::Udp), key.ends.remote)?;
        let is_query = self.place(key.ends.remote.ip()) == super::route::Place::Dns;
        self.open_datagrams(key, is_query.then_some(to), |host, token| {
            host.connect_udp(to, token)
        })
    }

    /// Makes a flow with a socket of its own.
    pub(super) fn open_datagrams(
        &mut self,
        key: DatagramKey,
        resolver: Option<SocketAddr>,
        open: impl FnOnce(&mut H, u64) -> std::io::Result<H::Socket>,
    ) -> Result<u32, Dropped> {
        self.make_room();
        let id = self.udp.next_id().ok_or(Dropped::Limit)?;
        let token = Number::token(Kind::Datagrams, id);
        let socket = match open(&mut self.host, token) {
            Ok(socket) => socket,
            Err(error) => {
                self.send_udp_error_for(&key, error.kind());
                return Err(Dropped::Refused);
            }
        };
        let idle = match (resolver, key.carries) {
            (None, Carries::Udp) => self.config.limits.udp_idle,
            _ => SHORT_IDLE.min(self.config.limits.udp_idle),
        };
        Ok(self.insert_datagrams(id, key, Via::Socket(socket), resolver, idle))
    }

    pub(super) fn insert_datagrams(
        &mut self,
        id: crate::slab::Id,
        key: DatagramKey,
        via: Via<H::Socket>,
        resolver: Option<SocketAddr>,
        idle: Duration,
    ) -> u32 {
        let flow = Datagrams {
            key,
            via,
            resolver,
            asked_at: None,
            active_at: self.now,
            idle,
            is_ready: false,
        };
        let number = Number::new(Kind::Datagrams, id.index);
        self.timers.set(number.raw(), Some(flow.deadline()));
        self.udp.insert(id, flow);
        self.udp_keys.insert(key, id.index);
        self.stats.udp_opened += 1;
        id.index
    }

    /// Forgets the flow that has been idle longest of some, if there is no room for another.
    pub(super) fn make_room(&mut self) {
        if !self.udp.is_full() {
            return;
        }
        let count = u32::try_from(self.udp.len()).unwrap_or(1).max(1);
        let first = self.evict_at;
        self.evict_at = (first + CANDIDATES) % count;
        let candidates = (first..first + CANDIDATES).map(|index| index % count);
        let oldest = candidates.min_by_key(|index| self.udp.get(*index).map(|flow| flow.active_at));
        if let Some(index) = oldest {
            self.stats.udp_evicted += 1;
            self.forget_datagrams(index);
        }
    }

    /// Sends a datagram of the guest.
    pub(super) fn send_datagram(&mut self, index: u32, data: &[u8]) -> Result<(), Dropped> {
        self.change_resolver(index);
        let now = self.now;
        let Some(flow) = self.udp.get_mut(index) else {
            return Err(Dropped::Refused);
        };
        flow.active_at = now;
        if flow.resolver.is_some() && flow.asked_at.is_none() {
            flow.asked_at = Some(now);
        }
        let key = flow.key;
        let mut sent = self.send_via(index, data);
        if let Err(error) = &sent
            && error.kind() != ErrorKind::WouldBlock
        {
            // What failed may have been an earlier one; then this one has not been sent.
            let why = error.kind();
            sent = self.send_via(index, data);
            if sent.is_ok() {
                self.send_earlier_error(&key, why);
            }
        }
        sent.map_err(|error| {
            self.send_udp_error_for(&key, error.kind());
            Dropped::Refused
        })
    }

    fn send_via(&mut self, index: u32, data: &[u8]) -> std::io::Result<()> {
        match self.udp.get(index).map(|flow| &flow.via) {
            Some(Via::Socket(socket)) => self.host.send_datagram(socket, data, None),
            Some(Via::Forward { listener, client }) => {
                let listener = usize::try_from(*listener).unwrap_or(usize::MAX);
                match self.listeners.get(listener) {
                    Some(listener) => {
                        self.host
                            .send_datagram(&listener.socket, data, Some(*client))
                    }
                    None => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    /// A query that has had no answer for long goes to the next resolver, by another socket.
    fn change_resolver(&mut self, index: u32) {
        let Some(flow) = self.udp.get(index) else {
            return;
        };
        let (Some(server), Some(asked_at)) = (flow.resolver, flow.asked_at) else {
            return;
        };
        if self.now.saturating_sub(asked_at) < dns::PATIENCE {
            return;
        }
        let key = flow.key;
        self.resolvers.failed(server);
        self.forget_datagrams(index);
        // The same number, which has just become free.
        let _ = self.open_udp(key);
    }

    /// What became of a datagram that was sent before.
    fn send_earlier_error(&mut self, key: &DatagramKey, why: ErrorKind) {
        if Unreachable::of(why).is_none() {
            return;
        }
        let index = self.udp_keys.get(key);
        let flow = index.and_then(|index| self.udp.get(*index));
        if let Some(server) = flow.and_then(|flow| flow.resolver) {
            self.resolvers.failed(server);
        }
        self.send_udp_error_for(key, why);
    }

    fn send_udp_error_for(&mut self, key: &DatagramKey, why: ErrorKind) {
        match key.carries {
            Carries::Udp => self.send_udp_error(key.ends, why),
            Carries::Echo => self.send_echo_error(key.ends, why),
        }
    }

    /// The host may have datagrams for a flow.
    pub(super) fn datagrams_event(&mut self, index: u32) {
        if let Some(flow) = self.udp.get_mut(index)
            && !flow.is_ready
        {
            flow.is_ready = true;
            self.ready.push_back(Number::new(Kind::Datagrams, index));
        }
    }

    /// It is a flow's turn.
    pub(super) fn serve_datagrams<W: Write>(
        &mut self,
        index: u32,
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let mut scratch = self.take_scratch();
        let frame = self.serve_datagram(index, &mut scratch, outlet);
        self.scratch = scratch;
        frame
    }

    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = mem::take(&mut self.scratch);
        if scratch.is_empty() {
            scratch = vec![0; MAX_FRAME];
        }
        scratch
    }

    fn serve_datagram<W: Write>(
        &mut self,
        index: u32,
        scratch: &mut [u8],
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let flow = self.udp.get_mut(index)?;
        flow.is_ready = false;
        let Via::Socket(socket) = &flow.via else {
            return None;
        };
        let received = self.host.receive_datagram(socket, scratch);
        let key = flow.key;
        match received {
            Ok((len, _)) => {
                flow.active_at = self.now;
                flow.asked_at = None;
                self.datagrams_event(index);
                let data = scratch.get_mut(..len)?;
                match key.carries {
                    Carries::Udp => self.deliver_udp(key.ends, data, outlet),
                    Carries::Echo => self.deliver_echo(key.ends, data, outlet),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => {
                // The error has been taken by this: there may be more behind it. It is of one datagram, and not of the
                // flow, even if it is none of those that the guest is told of: that a router has a smaller MTU.
                self.datagrams_event(index);
                self.send_earlier_error(&key, error.kind());
                self.next_reply(outlet)
            }
        }
    }

    /// Gives the guest a datagram.
    pub(super) fn deliver_udp<W: Write>(
        &mut self,
        ends: FlowKey,
        data: &[u8],
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let (src, dst) = (ends.remote, ends.guest);
        let len = 8 + data.len();
        let udp = udp_header((src.port(), dst.port()), len);
        self.deliver((src.ip(), dst.ip()), protocol::UDP, udp, data, outlet)
    }

    /// Gives the guest a packet, in pieces if it has to be: a header of eight bytes with its checksum at the sixth (UDP)
    /// or complete (ICMP), and the data.
    pub(super) fn deliver<W: Write>(
        &mut self,
        (src, dst): (IpAddr, IpAddr),
        number: u8,
        mut first: [u8; 8],
        data: &[u8],
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let len = 8 + data.len();
        let mut header = Header::ip(outlet.link, src, dst, number, len);
        let start = header.len();
        let whole = start + len <= usize::from(self.config.mtu) + ETHERNET;
        let partial = whole && outlet.offload.checksum && number == protocol::UDP;
        if number == protocol::UDP {
            let sum = Checksum::default().add_pseudo(src, dst, number, len);
            let sum = if partial {
                sum.partial()
            } else {
                sum.add(&first).add(data).finish_udp()
            };
            let [high, low] = sum.to_be_bytes();
            let [a, b, c, d, e, f, ..] = first;
            first = [a, b, c, d, e, f, high, low];
        }
        if !whole {
            self.pieces.start((src, dst), number, [&first, data]);
            return self.next_piece(outlet);
        }
        header.push(&first);
        let written = start + len <= outlet.room
            && outlet.out.write_all(header.bytes()).is_ok()
            && outlet.out.write_all(data).is_ok();
        if !written {
            self.stats.no_room += 1;
            return None;
        }
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let checksum = PartialChecksum {
            start: short(start),
            offset: 6,
        };
        Some(FrameInfo {
            checksum: partial.then_some(checksum),
            ..FrameInfo::plain(start + len)
        })
    }

    /// Gives the guest the next piece of what is too large for a packet.
    pub(super) fn next_piece<W: Write>(&mut self, outlet: &mut Outlet<'_, W>) -> Option<FrameInfo> {
        match self.pieces.next(self.config.mtu.into(), outlet)? {
            Ok(info) => Some(info),
            Err(()) => {
                self.stats.no_room += 1;
                None
            }
        }
    }

    /// It is a flow's time.
    pub(super) fn expire_datagrams(&mut self, index: u32) {
        let Some(flow) = self.udp.get(index) else {
            return;
        };
        let deadline = flow.deadline();
        if deadline > self.now {
            let number = Number::new(Kind::Datagrams, index);
            self.timers.set(number.raw(), Some(deadline));
            return;
        }
        if let (Some(server), Some(_)) = (flow.resolver, flow.asked_at) {
            self.resolvers.failed(server);
        }
        self.forget_datagrams(index);
    }

    fn forget_datagrams(&mut self, index: u32) {
        let Some(flow) = self.udp.remove(index) else {
            return;
        };
        self.udp_keys.remove(&flow.key);
        if let Via::Forward { listener, client } = flow.via {
            self.clients.remove(&(listener, client));
        }
        let number = Number::new(Kind::Datagrams, index);
        self.timers.set(number.raw(), None);
        if flow.is_ready {
            self.ready.retain(|other| *other != number);
        }
    }
}
