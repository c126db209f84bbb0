//! Ports of the host that lead to the guest, and what the host may refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::error::Error;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use goldcrest_usernet::{
    DnsConfig, Event, Network, NetworkConfig, RxOffload, ScriptedHost, ScriptedKind, UsernetError,
};

use guest::{ADDRESS, ADDRESS_V6, DNS, GATEWAY, GATEWAY_V6, MAC, open};
use raw::{echo, packet, parse, send, udp};

mod guest;
mod raw;

fn scripted(config: NetworkConfig) -> (Network<ScriptedHost>, ScriptedHost) {
    let host = ScriptedHost::default();
    let mut network = Network::with_host(config, host.clone()).unwrap();
    network.process(Duration::from_secs(1));
    (network, host)
}

fn receive(network: &mut Network<ScriptedHost>) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    network.receive(65550, RxOffload::default(), &mut frame)?;
    Some(frame)
}

/// The guest shows where it is.
fn show(network: &mut Network<ScriptedHost>) {
    send(
        network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
}

fn with(forwards: &[&str]) -> NetworkConfig {
    let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
    NetworkConfig { forwards, ..open() }
}

#[test]
fn a_port_that_is_taken_is_named_at_the_start() {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for (protocol, port) in [
        ("tcp", tcp.local_addr().unwrap().port()),
        ("udp", udp.local_addr().unwrap().port()),
    ] {
        let error = Network::new(with(&[&format!("{protocol}:{port}:80")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {protocol} port 127.0.0.1:{port} of the host")
        );
        assert!(error.source().unwrap().to_string().contains("in use"));
    }
    let error = Network::new(with(&["tcp:1234:80", "tcp:1234:81"])).unwrap_err();
    assert!(matches!(error, UsernetError::ForwardedTwice { .. }));
}

#[test]
fn a_guest_is_reached_by_ipv6_too() {
    let mut config = with(&["tcp:[::1]:8080:80"]);
    config.forwards[0].guest = Some(ADDRESS_V6.into());
    let (mut network, host) = scripted(config);
    assert_eq!(
        host.peers()[0].kind(),
        Some(ScriptedKind::TcpListener("[::1]:8080".parse().unwrap()))
    );
    host.peers()[0].come(&[], "[::1]:5555".parse().unwrap());
    network.process(Duration::from_secs(1));
    // Where the guest is, is asked of all who have such an address.
    let frame = receive(&mut network).unwrap();
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0, 0, 0x15]);
    let (src, dst, number, payload) = parse(&frame);
    assert_eq!((src, number, payload[0]), (GATEWAY_V6.into(), 58, 135));
    assert_eq!(dst, "ff02::1:ff00:15".parse::<Ipv6Addr>().unwrap());
    assert_eq!(payload[8..24], ADDRESS_V6.octets());
    show(&mut network);
    let frame = receive(&mut network).unwrap();
    let (src, dst, number, payload) = parse(&frame);
    assert_eq!(
        (&frame[..6], src, dst, number),
        (&MAC[..], GATEWAY_V6.into(), ADDRESS_V6.into(), 6)
    );
    assert_eq!(
        (payload[..4].to_vec(), payload[13]),
        ([5555_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat(), 2)
    );
    // An MSS for the headers of IPv6.
    assert_eq!(payload[20..24], [2, 4, 0x05, 0xa0]);
}

#[test]
fn clients_from_the_same_port_are_told_apart() {
    let (mut network, host) = scripted(with(&["tcp:8080:80"]));
    show(&mut network);
    for client in ["192.0.2.1:5555", "192.0.2.2:5555", "192.0.2.3:5555"] {
        host.peers()[0].come(&[], client.parse().unwrap());
    }
    network.process(Duration::from_secs(1));
    let ports: Vec<_> = std::iter::from_fn(|| receive(&mut network))
        .map(|frame| u16::from_be_bytes([frame[34], frame[35]]))
        .collect();
    assert_eq!(ports, [5555, 49152, 49153]);
}

#[test]
fn a_client_for_whom_there_is_no_buffer_is_reset() {
    let mut config = with(&["tcp:8080:80"]);
    config.limits.rings = 32 << 10;
    let (mut network, host) = scripted(config);
    for port in [1, 2] {
        host.peers()[0].come(&[], (Ipv4Addr::new(192, 0, 2, 1), port).into());
    }
    network.process(Duration::from_secs(1));
    assert_eq!(
        (network.flows().0, host.resets(), network.stats().over_limit),
        (1, 1, 1)
    );
}

#[test]
fn a_client_who_has_gone_again_keeps_nobody_from_being_served() {
    let (mut network, host) = scripted(with(&["tcp:8080:80", "udp:5353:53"]));
    show(&mut network);
    let (tcp, udp) = (host.peers()[0].clone(), host.peers()[1].clone());
    tcp.fail(ErrorKind::ConnectionAborted);
    tcp.come(&[], "192.0.2.1:1".parse().unwrap());
    udp.fail(ErrorKind::ConnectionRefused);
    udp.come(b"query", "192.0.2.1:2".parse().unwrap());
    network.process(Duration::from_secs(1));
    let protocols: Vec<_> = std::iter::from_fn(|| receive(&mut network))
        .map(|frame| frame[23])
        .collect();
    assert_eq!(network.flows(), (1, 1));
    assert!(protocols.contains(&6) && protocols.contains(&17));
    // The same client is the same flow.
    udp.come(b"query", "192.0.2.1:2".parse().unwrap());
    network.process(Duration::from_secs(1));
    assert!(receive(&mut network).is_some());
    assert_eq!(network.stats().udp_opened, 1);
}

#[test]
fn a_datagram_after_a_refusal_is_sent_and_the_refusal_is_told() {
    let (mut network, host) = scripted(open());
    let frame = udp((ADDRESS, 5000), (Ipv4Addr::new(192, 0, 2, 9), 9), b"x");
    send(&mut network, &frame);
    let peer = host.peers().pop().unwrap();
    assert!(peer.take_datagram().is_some());
    peer.fail(ErrorKind::ConnectionRefused);
    send(&mut network, &frame);
    assert!(peer.take_datagram().is_some());
    let (_, _, number, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!((number, payload[..2].to_vec()), (1, vec![3, 3]));
    // What the host will not have at all is counted, and told if there is a word for it.
    peer.fail(ErrorKind::PermissionDenied);
    send(&mut network, &frame);
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(
        (payload[..2].to_vec(), network.stats().host_refused),
        (vec![3, 13], 1)
    );
    // A socket that is no good is closed; the next datagram gets another.
    peer.fail(ErrorKind::Other);
    network.process(Duration::from_secs(1));
    assert_eq!(receive(&mut network), None);
    assert_eq!((peer.kind(), network.flows().1), (None, 0));
    host.refuse(ErrorKind::NetworkUnreachable);
    send(&mut network, &frame);
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(payload[..2], [3, 0]);
}

#[test]
fn a_resolver_that_is_not_there_is_not_asked_again_if_there_is_another() {
    let config = NetworkConfig {
        dns: DnsConfig::Upstream("192.0.2.53:53".parse().unwrap()),
        ..open()
    };
    let (mut network, host) = scripted(config);
    let query = udp((ADDRESS, 5000), (DNS, 53), b"query");
    send(&mut network, &query);
    host.peers()[0].fail(ErrorKind::ConnectionRefused);
    network.process(Duration::from_secs(1));
    let (src, _, number, _) = parse(&receive(&mut network).unwrap());
    assert_eq!((src, number), (GATEWAY.into(), 1));
    // Nor is one that never answers.
    send(&mut network, &query);
    network.process(Duration::from_secs(60));
    assert_eq!(network.flows().1, 0);
    // The resolver is there for queries alone.
    send(&mut network, &udp((ADDRESS, 5000), (DNS, 54), b"query"));
    assert_eq!(network.stats().denied, 1);
}

#[test]
fn messages_of_icmp_that_ask_for_nothing_are_counted() {
    let (mut network, _) = scripted(open());
    let mut message = echo(ADDRESS.into(), GATEWAY.into(), 1, 1, b"data");
    message[34] = 3;
    send(&mut network, &message);
    assert_eq!(network.stats().bad_checksum, 1);
    for (frame, unknown, malformed) in [
        (
            packet(ADDRESS.into(), GATEWAY.into(), 1, &[5, 0, 0xfa, 0xff]),
            1,
            0,
        ),
        (
            packet(ADDRESS.into(), GATEWAY.into(), 1, &[8, 0, 0xf7, 0xff]),
            1,
            1,
        ),
        (packet(ADDRESS.into(), GATEWAY.into(), 1, &[]), 1, 1),
    ] {
        send(&mut network, &frame);
        let stats = network.stats();
        assert_eq!(
            (stats.unknown_protocol, stats.malformed),
            (unknown, malformed),
            "{stats:?}"
        );
    }
    // Nobody can be asked but one at a time.
    send(
        &mut network,
        &echo(ADDRESS.into(), Ipv4Addr::BROADCAST.into(), 1, 1, b"data"),
    );
    assert_eq!(network.stats().not_for_us, 1);
    assert_eq!(receive(&mut network), None);
}

#[test]
fn more_questions_than_are_answered_are_counted() {
    let (mut network, _) = scripted(open());
    for _ in 0..100 {
        send(
            &mut network,
            &echo(ADDRESS.into(), GATEWAY.into(), 1, 1, b"data"),
        );
    }
    assert_eq!(std::iter::from_fn(|| receive(&mut network)).count(), 64);
    assert_eq!(network.stats().over_limit, 36);
}

#[test]
fn events_of_sockets_that_are_closed_change_nothing() {
    let (mut network, host) = scripted(with(&["tcp:8080:80"]));
    for token in 0..64 {
        for generation in [0, 1, 0xff_ffff] {
            host.event(Event {
                token: generation << 32 | token,
                readable: true,
                writable: true,
                hang_up: true,
            });
        }
    }
    network.process(Duration::from_secs(1));
    assert_eq!((network.flows(), receive(&mut network)), ((0, 0), None));
}

#[test]
fn a_network_can_be_run_by_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Network::new(NetworkConfig::default()).unwrap());
    is_send(&scripted(open()).0);
}

#[test]
fn the_hosts_own_sockets_show_one_descriptor() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut network = Network::new(with(&[&format!("tcp:{port}:80")])).unwrap();
    let is_ready = |network: &Network| {
        let fd = network.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        let mut fds = [rustix::event::PollFd::new(
            &fd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(
            &mut fds,
            Some(&rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    };
    assert!(!is_ready(&network));
    let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(is_ready(&network));
    network.process(Duration::from_secs(1));
    assert_eq!(network.flows().0, 1);
    // What has been looked at is not told again, even if nothing was done.
    network.process(Duration::from_secs(1));
    assert!(!is_ready(&network));
    drop(client);
}

#[test]
fn echo_requests_use_the_kernels_sockets_where_it_has_them() {
    // Of the loopback, since there is no other host that can be relied on.
    let mut network = Network::new(open()).unwrap();
    let mut config = open();
    config.rules = vec!["127.0.0.1".parse().unwrap()];
    let mut other = Network::new(config).unwrap();
    for network in [&mut network, &mut other] {
        send(
            network,
            &echo(ADDRESS.into(), Ipv4Addr::LOCALHOST.into(), 9, 1, b"data"),
        );
        let mut frame = Vec::new();
        let mut got = false;
        for round in 0..500 {
            network.process(Duration::from_millis(round));
            got = network
                .receive(1514, RxOffload::default(), &mut frame)
                .is_some();
            if got {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(got);
        let (_, _, number, payload) = parse(&frame);
        // A reply with the guest's identifier, or the news that there can be none.
        assert!(
            number == 1 && (payload[0] == 0 && payload[4..6] == [0, 9] || payload[..2] == [3, 13]),
            "{payload:?}"
        );
    }
}
