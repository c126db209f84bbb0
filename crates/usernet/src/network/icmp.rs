//! Echo requests (RFC 792, RFC 4443 §4), and neighbours of IPv6 (RFC 4861).

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};

use super::Network;
use super::errors::Unreachable;
use super::from_guest::verify;
use super::route::Place;
use crate::checksum::Checksum;
use crate::datagram::{Carries, DatagramKey};
use crate::frame::FrameInfo;
use crate::host::Host;
use crate::packet::{Ip, protocol};
use crate::stats::Dropped;
use crate::tcp::{FlowKey, Outlet};

/// Types of messages.
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Router and neighbour solicitation, and the answers.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

impl<H: Host> Network<H> {
    pub(super) fn take_icmp(&mut self, ip: Ip, payload: &[u8]) -> Result<(), Dropped> {
        if !Checksum::default().add(payload).is_intact() {
            return Err(Dropped::Checksum);
        }
        let [kind, ..] = payload else {
            return Err(Dropped::Malformed);
        };
        match *kind {
            ECHO_REQUEST => self.take_echo(ip, payload),
            // Errors and replies are about what the host never sees.
            _ => Err(Dropped::Protocol),
        }
    }

    pub(super) fn take_icmpv6(&mut self, ip: Ip, payload: &[u8]) -> Result<(), Dropped> {
        verify(&ip, &[payload])?;
        let [kind, ..] = payload else {
            return Err(Dropped::Malformed);
        };
        match *kind {
            ECHO_REQUEST_V6 => self.take_echo(ip, payload),
            ROUTER_SOLICITATION if ip.hop_limit == 255 => self.take_router_solicitation(ip),
            NEIGHBOUR_SOLICITATION if ip.hop_limit == 255 => {
                self.take_neighbour_solicitation(ip, payload)
            }
            // That it came was all there was to learn.
            NEIGHBOUR_ADVERTISEMENT => Ok(()),
            // Who listens to which groups (RFC 3810) is of no concern: there is nobody else.
            130..=132 | 143 => Ok(()),
            ROUTER_ADVERTISEMENT => Err(Dropped::NotForUs),
            _ => Err(Dropped::Protocol),
        }
    }

    fn take_echo(&mut self, ip: Ip, payload: &[u8]) -> Result<(), Dropped> {
        let ([_, _, _, _, a, b, c, d], data) =
            payload.split_first_chunk().ok_or(Dropped::Malformed)?;
        if !ip.is_unicast() {
            return Err(Dropped::NotForUs);
        }
        if matches!(self.place(ip.dst), Place::Gateway | Place::Dns) {
            let (link, kind) = (self.link(), reply_kind(ip.dst));
            self.reply(|replies| {
                replies.push_icmp(link, (ip.dst, ip.src), [kind, 0], [*a, *b, *c, *d], data)
            });
            return Ok(());
        }
        let ident = u16::from_be_bytes([*a, *b]);
        let ends = FlowKey {
            guest: SocketAddr::new(ip.src, ident),
            remote: SocketAddr::new(ip.dst, 0),
        };
        let key = DatagramKey {
            carries: Carries::Echo,
            ends,
        };
        let index = match self.udp_keys.get(&key) {
            Some(index) => *index,
            None => self.open_echo(key)?,
        };
        self.send_datagram(index, payload)
    }

    fn open_echo(&mut self, key: DatagramKey) -> Result<u32, Dropped> {
        let to = self.route(None, key.ends.remote).inspect_err(|why| {
            let kind = match why {
                Dropped::NotForUs => ErrorKind::HostUnreachable,
                _ => ErrorKind::PermissionDenied,
            };
            self.send_echo_error(key.ends, kind);
        })?;
        self.open_datagrams(key, None, |host, token| host.connect_echo(to.ip(), token))
    }

    pub(super) fn send_echo_error(&mut self, ends: FlowKey, why: ErrorKind) {
        let why = Unreachable::of(why).unwrap_or(Unreachable::Prohibited);
        let [a, b] = ends.guest.port().to_be_bytes();
        let addresses = (ends.guest.ip(), ends.remote.ip());
        let (number, kind) = match ends.guest {
            SocketAddr::V4(_) => (protocol::ICMP, ECHO_REQUEST),
            SocketAddr::V6(_) => (protocol::ICMPV6, ECHO_REQUEST_V6),
        };
        self.send_error(why, addresses, number, 8, &[kind, 0, 0, 0, a, b, 0, 0]);
    }

    /// Gives the guest a reply, with the identifier that it knows.
    pub(super) fn deliver_echo<W: Write>(
        &mut self,
        ends: FlowKey,
        message: &[u8],
        outlet: &mut Outlet<'_, W>,
    ) -> Option<FrameInfo> {
        let ([kind, code, _, _, _, _, c, d], data) = message.split_first_chunk()?;
        let (src, dst) = (ends.remote.ip(), ends.guest.ip());
        if *kind != reply_kind(src) {
            return None;
        }
        let [a, b] = ends.guest.port().to_be_bytes();
        let (number, sum) = match src {
            IpAddr::V4(_) => (protocol::ICMP, Checksum::default()),
            IpAddr::V6(_) => {
                let sum = Checksum::default();
                (
                    protocol::ICMPV6,
                    sum.add_pseudo(src, dst, protocol::ICMPV6, message.len()),
                )
            }
        };
        let sum = sum
            .add(&[*kind, *code, 0, 0, a, b, *c, *d])
            .add(data)
            .finish();
        let [high, low] = sum.to_be_bytes();
        let first = [*kind, *code, high, low, a, b, *c, *d];
        self.deliver((src, dst), number, first, data, outlet)
    }
}

fn reply_kind(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => ECHO_REPLY,
        IpAddr::V6(_) => ECHO_REPLY_V6,
    }
}
