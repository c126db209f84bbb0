//! What the gateway says for itself: where it is (RFC 826, RFC 4861), and what the guest's address is (RFC 2131).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress,
};

use super::route::Place;
use super::{EVERYONE, Network};
use crate::config::{DnsConfig, Ipv6Config};
use crate::header::Link;
use crate::host::Host;
use crate::packet::{ETHERNET, Ip};
use crate::stats::Dropped;

/// The ports of DHCP (RFC 2131 §4.1).
pub(super) const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// How long the guest may keep its address, in seconds. It is nobody else's in any case.
const LEASE: u32 = 86400;
/// The longest answer: what every client takes (RFC 2131 §2), without headers.
const MAX_DHCP: usize = 548;
/// How long routers and prefixes are good for, in seconds.
const ROUTER_LIFETIME: u16 = 9000;
const PREFIX_LIFETIME: u32 = 86400;

impl<H: Host> Network<H> {
    pub(super) fn take_arp(&mut self, frame: &[u8]) -> Result<(), Dropped> {
        let packet = frame.get(ETHERNET..).unwrap_or_default();
        let packet = ArpPacket::new_checked(packet).map_err(|_| Dropped::Malformed)?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: asker,
            source_protocol_addr: asks,
            target_protocol_addr: target,
            ..
        } = ArpRepr::parse(&packet).map_err(|_| Dropped::Malformed)?
        else {
            return Err(Dropped::Protocol);
        };
        match (operation, self.place(target.into())) {
            (ArpOperation::Request, Place::Gateway | Place::Dns) => {
                self.send_arp(ArpOperation::Reply, target, (asker.0, asks));
                Ok(())
            }
            // It tells us of itself.
            (ArpOperation::Reply, _) => Ok(()),
            // It asks whether somebody else has its address, or for somebody who is not there: silence says so.
            (ArpOperation::Request, _) => Ok(()),
            _ => Err(Dropped::Protocol),
        }
    }

    fn send_arp(
        &mut self,
        operation: ArpOperation,
        own: Ipv4Addr,
        (mac, address): ([u8; 6], Ipv4Addr),
    ) {
        let own_mac = self.config.mac;
        let reply = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(own_mac),
            source_protocol_addr: own,
            target_hardware_addr: EthernetAddress(if mac == EVERYONE { [0; 6] } else { mac }),
            target_protocol_addr: address,
        };
        let mut bytes = [0; 28];
        reply.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        self.reply(|replies| replies.push(&[&mac, &own_mac, &[0x08, 0x06], &bytes]));
    }

    /// Asks where the guest is.
    pub(super) fn ask_for_guest(&mut self, guest: IpAddr) {
        match (guest, self.config.ipv6) {
            (IpAddr::V4(guest), _) => {
                let gateway = self.config.ipv4.gateway;
                self.send_arp(ArpOperation::Request, gateway, (EVERYONE, guest));
            }
            (IpAddr::V6(guest), Some(ipv6)) => self.send_neighbour_solicitation(guest, &ipv6),
            (IpAddr::V6(_), None) => {}
        }
    }

    fn send_neighbour_solicitation(&mut self, guest: Ipv6Addr, ipv6: &Ipv6Config) {
        // To the group of all who have such an address (RFC 4291 §2.7.1).
        let group = 0xff02_0000_0000_0000_0000_0001_ff00_0000 | guest.to_bits() & 0xff_ffff;
        let group = Ipv6Addr::from_bits(group);
        let [.., a, b, c, d] = group.octets();
        let link = Link {
            guest: [0x33, 0x33, a, b, c, d],
            gateway: self.config.mac,
        };
        let data = neighbour(guest, 1, self.config.mac);
        let ends = (ipv6.gateway.into(), group.into());
        self.reply(|replies| replies.push_icmp(link, ends, [135, 0], [0; 4], &data));
    }

    pub(super) fn take_neighbour_solicitation(
        &mut self,
        ip: Ip,
        payload: &[u8],
    ) -> Result<(), Dropped> {
        let target: [u8; 16] = *payload
            .get(8..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(Dropped::Malformed)?;
        let target = Ipv6Addr::from(target);
        // Without a source it asks whether somebody has the address that it wants (RFC 4862 §5.4).
        let to: IpAddr = match ip.src {
            src if src.is_unspecified() => ALL_NODES.into(),
            src => src,
        };
        if !matches!(self.place(target.into()), Place::Gateway | Place::Dns) {
            return Ok(());
        }
        let solicited = if to.is_multicast() { 0x20 } else { 0x60 };
        // A router only where it is the gateway.
        let router = if self.place(target.into()) == Place::Gateway {
            0x80
        } else {
            0
        };
        let data = neighbour(target, 2, self.config.mac);
        let link = self.link();
        let word = [router | solicited, 0, 0, 0];
        self.reply(|replies| replies.push_icmp(link, (target.into(), to), [136, 0], word, &data));
        Ok(())
    }

    pub(super) fn take_router_solicitation(&mut self, ip: Ip) -> Result<(), Dropped> {
        let Some(ipv6) = self.config.ipv6 else {
            return Err(Dropped::NotForUs);
        };
        let to = match ip.src {
            src if src.is_unspecified() => ALL_NODES.into(),
            src => src,
        };
        let data = self.advertisement(&ipv6);
        let [a, b] = ROUTER_LIFETIME.to_be_bytes();
        let (link, own) = (self.link(), self.link_local());
        // 64 hops; addresses are not managed by anyone.
        self.reply(|replies| {
            replies.push_icmp(link, (own.into(), to), [134, 0], [64, 0, a, b], &data)
        });
        Ok(())
    }

    /// What follows the lifetime in a router advertisement (RFC 4861 §4.2).
    fn advertisement(&self, ipv6: &Ipv6Config) -> Vec<u8> {
        // Times to reach and to ask again: the guest may choose.
        let mut data = vec![0; 8];
        data.extend_from_slice(&[1, 1]);
        data.extend_from_slice(&self.config.mac);
        data.extend_from_slice(&[5, 1, 0, 0]);
        data.extend_from_slice(&u32::from(self.config.mtu).to_be_bytes());
        // The prefix is on the link, and the guest may make its address of it.
        data.extend_from_slice(&[3, 4, 64, 0xc0]);
        data.extend_from_slice(&PREFIX_LIFETIME.to_be_bytes());
        data.extend_from_slice(&PREFIX_LIFETIME.to_be_bytes());
        data.extend_from_slice(&[0; 4]);
        data.extend_from_slice(&ipv6.network.octets());
        if self.config.dns != DnsConfig::None {
            // RFC 8106 §5.1.
            data.extend_from_slice(&[25, 3, 0, 0]);
            data.extend_from_slice(&PREFIX_LIFETIME.to_be_bytes());
            data.extend_from_slice(&ipv6.dns.octets());
        }
        data
    }

    /// The gateway's address on the link (RFC 4291, appendix A).
    pub(super) fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.config.mac;
        let word = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            word(a ^ 2, b),
            word(c, 0xff),
            word(0xfe, d),
            word(e, f),
        )
    }

    /// Whether a request of DHCP is for us.
    pub(super) fn is_for_dhcp(&self, to: IpAddr) -> bool {
        let ipv4 = &self.config.ipv4;
        [Ipv4Addr::BROADCAST, ipv4.broadcast(), ipv4.gateway]
            .map(IpAddr::from)
            .contains(&to)
    }

    pub(super) fn take_dhcp(&mut self, data: &[u8]) -> Result<(), Dropped> {
        let packet = DhcpPacket::new_checked(data).map_err(|_| Dropped::Malformed)?;
        let request = DhcpRepr::parse(&packet).map_err(|_| Dropped::Malformed)?;
        let ipv4 = self.config.ipv4;
        let for_us = request
            .server_identifier
            .is_none_or(|server| server == ipv4.gateway);
        let kind = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Inform => DhcpMessageType::Ack,
            DhcpMessageType::Request if for_us => {
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                if wanted == ipv4.guest {
                    DhcpMessageType::Ack
                } else {
                    DhcpMessageType::Nak
                }
            }
            // It has taken another's offer, or gives back what nobody else wants.
            DhcpMessageType::Request | DhcpMessageType::Release | DhcpMessageType::Decline => {
                return Ok(());
            }
            _ => return Err(Dropped::Protocol),
        };
        self.send_dhcp(kind, &request)?;
        if kind == DhcpMessageType::Ack {
            self.guest_is_there();
        }
        Ok(())
    }

    fn send_dhcp(&mut self, kind: DhcpMessageType, request: &DhcpRepr<'_>) -> Result<(), Dropped> {
        let ipv4 = self.config.ipv4;
        let is_inform = request.message_type == DhcpMessageType::Inform;
        let has_address = kind != DhcpMessageType::Nak && !is_inform;
        let tells = kind != DhcpMessageType::Nak;
        let mtu = self.config.mtu.to_be_bytes();
        // Of the interface's MTU (RFC 2132 §5.1).
        let options = [DhcpOption {
            kind: 26,
            data: &mtu,
        }];
        let dns =
            (tells && self.config.dns != DnsConfig::None).then(|| [ipv4.dns].into_iter().collect());
        let reply = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: if is_inform {
                request.client_ip
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            your_ip: if has_address {
                ipv4.guest
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: tells.then_some(ipv4.gateway),
            subnet_mask: tells.then(|| ipv4.mask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(ipv4.gateway),
            parameter_request_list: None,
            dns_servers: dns,
            max_size: None,
            lease_duration: has_address.then_some(LEASE),
            renew_duration: None,
            rebind_duration: None,
            additional_options: if tells { &options } else { &[] },
        };
        let mut bytes = [0; MAX_DHCP];
        let bytes = bytes
            .get_mut(..reply.buffer_len())
            .ok_or(Dropped::Malformed)?;
        let mut packet = DhcpPacket::new_unchecked(&mut *bytes);
        reply.emit(&mut packet).map_err(|_| Dropped::Malformed)?;
        // RFC 2131 §4.1: to the address that it has, else to its place on the link, which may have none yet.
        let to = match request.client_ip {
            ip if !ip.is_unspecified() && tells => ip,
            _ if request.broadcast || !tells => Ipv4Addr::BROADCAST,
            _ => ipv4.guest,
        };
        let mut link = self.link();
        if to.is_broadcast() {
            link.guest = EVERYONE;
        }
        let ends = (ipv4.gateway.into(), to.into());
        self.reply(|replies| replies.push_udp(link, ends, (DHCP_SERVER, DHCP_CLIENT), bytes));
        Ok(())
    }
}

/// All who are on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An address, and an option with a place on the link: its source's (1) or its target's (2).
fn neighbour(address: Ipv6Addr, kind: u8, mac: [u8; 6]) -> [u8; 24] {
    let mut data = [0; 24];
    let parts = address.octets().into_iter().chain([kind, 1]).chain(mac);
    for (to, from) in data.iter_mut().zip(parts) {
        *to = from;
    }
    data
}
