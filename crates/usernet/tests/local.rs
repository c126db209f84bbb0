//! What the gateway says for itself: ARP, neighbours and routers of IPv6, DHCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use goldcrest_usernet::{DnsConfig, Network, NetworkConfig, RxOffload, ScriptedHost};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    Icmpv6Packet, Icmpv6Repr, IpCidr, NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscRepr,
    RawHardwareAddress,
};

use guest::{ADDRESS, ADDRESS_V6, DNS, GATEWAY, GATEWAY_V6, Guest, MAC, open};
use raw::{GATEWAY_MAC, packet, parse, send, udp};

mod guest;
mod raw;

fn network(config: NetworkConfig) -> Network<ScriptedHost> {
    let mut network = Network::with_host(config, ScriptedHost::default()).unwrap();
    network.process(Duration::from_secs(1));
    network
}

fn receive(network: &mut Network<ScriptedHost>) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    network.receive(65550, RxOffload::default(), &mut frame)?;
    Some(frame)
}

fn ask_arp(target: Ipv4Addr) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(MAC),
        source_protocol_addr: ADDRESS,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = [0; 28];
    request.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    [&[0xff; 6][..], &MAC, &[8, 6], &bytes].concat()
}

#[test]
fn the_gateway_and_the_resolver_say_where_they_are_and_nobody_else() {
    let mut network = network(open());
    for address in [GATEWAY, DNS] {
        send(&mut network, &ask_arp(address));
        let frame = receive(&mut network).unwrap();
        assert_eq!((&frame[..6], &frame[6..12]), (&MAC[..], &GATEWAY_MAC[..]));
        let reply = ArpRepr::parse(&ArpPacket::new_checked(&frame[14..]).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            ..
        } = reply
        else {
            panic!("{reply:?}");
        };
        assert_eq!(
            (operation, source_hardware_addr.0, source_protocol_addr),
            (ArpOperation::Reply, GATEWAY_MAC, address)
        );
    }
    for other in [
        ADDRESS,
        Ipv4Addr::new(10, 0, 2, 77),
        Ipv4Addr::new(1, 1, 1, 1),
    ] {
        send(&mut network, &ask_arp(other));
        assert_eq!(receive(&mut network), None);
    }
}

fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(
        &src,
        &dst,
        &mut Icmpv6Packet::new_unchecked(&mut bytes),
        &ChecksumCapabilities::default(),
    );
    packet(src.into(), dst.into(), 58, &bytes)
}

fn parse_v6(frame: &[u8], check: impl FnOnce(Ipv6Addr, NdiscRepr<'_>)) {
    let (src, dst, number, payload) = parse(frame);
    assert_eq!((number, frame[21]), (58, 255));
    let (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) = (src, dst) else {
        panic!()
    };
    let icmp = Icmpv6Packet::new_checked(&payload[..]).unwrap();
    let message = Icmpv6Repr::parse(&from, &to, &icmp, &ChecksumCapabilities::default()).unwrap();
    let Icmpv6Repr::Ndisc(message) = message else {
        panic!("{message:?}")
    };
    check(to, message);
}

#[test]
fn neighbours_of_ipv6_are_found() {
    let mut network = network(open());
    let dns = Ipv6Addr::from_bits(GATEWAY_V6.to_bits() + 1);
    let link_local = "fe80::5055:aff:fe00:202".parse().unwrap();
    for (target, router) in [(GATEWAY_V6, true), (dns, false), (link_local, true)] {
        let ask = NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: Some(RawHardwareAddress::from_bytes(&MAC)),
        };
        send(
            &mut network,
            &icmpv6(ADDRESS_V6, target, &Icmpv6Repr::Ndisc(ask)),
        );
        parse_v6(&receive(&mut network).unwrap(), |to, message| {
            let NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } = message
            else {
                panic!("{message:?}")
            };
            assert_eq!((to, target_addr), (ADDRESS_V6, target));
            assert_eq!(lladdr, Some(RawHardwareAddress::from_bytes(&GATEWAY_MAC)));
            assert_eq!(flags.contains(NdiscNeighborFlags::ROUTER), router);
            assert!(flags.contains(NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE));
        });
    }
    // Whoever wants the gateway's own address is told; the guest may have any other.
    for (target, is_taken) in [(GATEWAY_V6, true), (ADDRESS_V6, false)] {
        let ask = NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: None,
        };
        send(
            &mut network,
            &icmpv6(
                Ipv6Addr::UNSPECIFIED,
                "ff02::1:ff00:2".parse().unwrap(),
                &Icmpv6Repr::Ndisc(ask),
            ),
        );
        let answer = receive(&mut network);
        assert_eq!(answer.is_some(), is_taken);
        if let Some(frame) = answer {
            parse_v6(&frame, |to, _| {
                assert_eq!(to, "ff02::1".parse::<Ipv6Addr>().unwrap())
            });
        }
    }
}

#[test]
fn routers_are_advertised() {
    let config = NetworkConfig {
        mtu: 9000,
        dns: DnsConfig::Upstream("192.0.2.53:53".parse().unwrap()),
        ..open()
    };
    let mut network = network(config);
    let ask = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    send(
        &mut network,
        &icmpv6(
            "fe80::15".parse().unwrap(),
            "ff02::2".parse().unwrap(),
            &ask,
        ),
    );
    let frame = receive(&mut network).unwrap();
    parse_v6(&frame, |_, message| {
        let NdiscRepr::RouterAdvert {
            router_lifetime,
            lladdr,
            mtu,
            prefix_info,
            ..
        } = message
        else {
            panic!("{message:?}")
        };
        assert!(router_lifetime.secs() > 0);
        assert_eq!(
            (lladdr, mtu),
            (
                Some(RawHardwareAddress::from_bytes(&GATEWAY_MAC)),
                Some(9000)
            )
        );
        let prefix = prefix_info.unwrap();
        assert_eq!(
            (prefix.prefix_len, prefix.prefix.segments()[..4].to_vec()),
            (64, vec![0xfd00, 0x676f, 0x6c64, 0])
        );
        assert!(prefix.flags.contains(NdiscPrefixInfoFlags::ADDRCONF));
    });
    // The resolver's option is the last (RFC 8106).
    let dns = Ipv6Addr::from_bits(GATEWAY_V6.to_bits() + 1).octets();
    let option = &frame[frame.len() - 24..];
    assert_eq!((option[0], option[1], &option[8..]), (25, 3, &dns[..]));

    let mut without = self::network(NetworkConfig {
        ipv6: None,
        ..open()
    });
    send(
        &mut without,
        &icmpv6(
            "fe80::15".parse().unwrap(),
            "ff02::2".parse().unwrap(),
            &ask,
        ),
    );
    assert_eq!(receive(&mut without), None);
    assert_eq!(without.stats().not_for_us, 1);
}

#[test]
fn a_client_of_dhcp_gets_its_address() {
    let config = NetworkConfig {
        dns: DnsConfig::Upstream("192.0.2.53:53".parse().unwrap()),
        ..open()
    };
    let mut guest = Guest::with_network(network(config), 1500);
    guest.iface.update_ip_addrs(|addresses| addresses.clear());
    guest.iface.routes_mut().remove_default_ipv4_route();
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let mut lease = None;
    guest.until("a lease", |guest| {
        if let Some(dhcpv4::Event::Configured(config)) =
            guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll()
        {
            let dns: Vec<_> = config.dns_servers.to_vec();
            lease = Some((IpCidr::Ipv4(config.address), config.router, dns));
        }
        lease.is_some()
    });
    assert_eq!(
        lease,
        Some((IpCidr::new(ADDRESS.into(), 24), Some(GATEWAY), vec![DNS]))
    );
}

fn dhcp(
    kind: DhcpMessageType,
    requested: Option<Ipv4Addr>,
    client_ip: Ipv4Addr,
    server: Option<Ipv4Addr>,
) -> Vec<u8> {
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234,
        secs: 0,
        client_hardware_address: EthernetAddress(MAC),
        client_ip,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: requested,
        client_identifier: None,
        server_identifier: server,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes))
        .unwrap();
    udp(
        (Ipv4Addr::UNSPECIFIED, 68),
        (Ipv4Addr::BROADCAST, 67),
        &bytes,
    )
}

#[test]
fn requests_for_another_address_or_server_are_not_granted() {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut network = network(open());
    let mut answer = |frame: &[u8]| {
        send(&mut network, frame);
        let frame = receive(&mut network)?;
        let (_, to, _, payload) = parse(&frame);
        let packet = DhcpPacket::new_checked(&payload[8..]).unwrap();
        // A client may take the MTU, option 26.
        let mtu = packet
            .options()
            .find(|option| option.kind == 26)
            .map(|option| option.data.to_vec());
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(
            (repr.transaction_id, repr.server_identifier),
            (0x1234, Some(GATEWAY))
        );
        Some((repr.message_type, repr.your_ip, to, mtu))
    };
    let mtu = Some(vec![0x05, 0xdc]);
    let everyone = Ipv4Addr::BROADCAST.into();
    assert_eq!(
        answer(&dhcp(DhcpMessageType::Discover, None, none, None)),
        Some((DhcpMessageType::Offer, ADDRESS, everyone, mtu.clone()))
    );
    assert_eq!(
        answer(&dhcp(
            DhcpMessageType::Request,
            Some(Ipv4Addr::new(10, 0, 2, 16)),
            none,
            None
        )),
        Some((DhcpMessageType::Nak, none, everyone, None))
    );
    assert_eq!(
        answer(&dhcp(
            DhcpMessageType::Request,
            Some(ADDRESS),
            none,
            Some(DNS)
        )),
        None
    );
    // It renews what it has, and is answered there; or has chosen its address itself and asks for the rest.
    assert_eq!(
        answer(&dhcp(DhcpMessageType::Request, None, ADDRESS, None)),
        Some((DhcpMessageType::Ack, ADDRESS, ADDRESS.into(), mtu.clone()))
    );
    let own = Ipv4Addr::new(10, 0, 2, 50);
    assert_eq!(
        answer(&dhcp(DhcpMessageType::Inform, None, own, None)),
        Some((DhcpMessageType::Ack, none, own.into(), mtu))
    );
    assert_eq!(
        answer(&dhcp(DhcpMessageType::Release, None, ADDRESS, None)),
        None
    );
    assert_eq!(
        answer(&dhcp(DhcpMessageType::Offer, None, none, None)),
        None
    );
    assert_eq!(network.stats().unknown_protocol, 1);
}

#[test]
fn frames_that_make_no_sense_are_counted_by_what_is_wrong() {
    let mut network = network(open());
    let good = udp((ADDRESS, 5), (Ipv4Addr::new(192, 0, 2, 1), 9), b"data");
    let change = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let malformed = [
        good[..10].to_vec(),
        good[..30].to_vec(),
        good[..40].to_vec(),
        change(14, 0x65),
        change(14, 0x44),
        change(14, 0x4f),
        change(17, 255),
        change(6, 1),
        vec![0; 70000],
    ];
    for frame in &malformed {
        send(&mut network, frame);
    }
    let count = u64::try_from(malformed.len()).unwrap();
    assert_eq!(network.stats().malformed, count);
    send(&mut network, &change(22, 63));
    assert_eq!(network.stats().bad_checksum, 1);
    send(&mut network, &change(12, 0x88));
    assert_eq!(network.stats().unknown_protocol, 1);
    send(&mut network, &change(0, 2));
    assert_eq!(network.stats().not_for_us, 1);
    // Shorter than it says, and longer than there is.
    network.send(100, &mut &good[..], Default::default());
    assert_eq!(network.stats().malformed, count + 1);
    assert_eq!(network.stats().frames_from_guest, count + 4);
}

#[test]
fn headers_of_ipv6_between_are_gone_over() {
    let mut network = network(open());
    let echo = raw::echo(ADDRESS_V6.into(), GATEWAY_V6.into(), 1, 2, b"data");
    let payload = echo[54..].to_vec();
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    send(
        &mut network,
        &packet(
            ADDRESS_V6.into(),
            GATEWAY_V6.into(),
            0,
            &[&options, &payload[..]].concat(),
        ),
    );
    assert_eq!(parse(&receive(&mut network).unwrap()).3[8..], *b"data");
    // Without end, without what is said, or with nothing behind.
    let endless = [0, 0, 1, 4, 0, 0, 0, 0].repeat(20);
    send(
        &mut network,
        &packet(ADDRESS_V6.into(), GATEWAY_V6.into(), 0, &endless),
    );
    send(
        &mut network,
        &packet(ADDRESS_V6.into(), GATEWAY_V6.into(), 0, &[58, 9, 0, 0]),
    );
    assert_eq!(network.stats().malformed, 2);
    send(
        &mut network,
        &packet(ADDRESS_V6.into(), GATEWAY_V6.into(), 59, &[]),
    );
    assert_eq!(receive(&mut network), None);
}
