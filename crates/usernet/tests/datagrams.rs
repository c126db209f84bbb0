//! Datagrams: of UDP, queries for names, and echo requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use goldcrest_usernet::{
    DnsConfig, Forward, Network, NetworkConfig, RxOffload, ScriptedHost, ScriptedKind, TxOffload,
};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;

use guest::{ADDRESS, ADDRESS_V6, DNS, GATEWAY, GATEWAY_V6, Guest, open, pattern};
use raw::{echo, packet, parse, send, udp as datagram};

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

fn socket(guest: &mut Guest, handle: SocketHandle) -> &mut udp::Socket<'static> {
    guest.sockets.get_mut(handle)
}

fn echo_server(at: IpAddr) -> (UdpSocket, u16) {
    let server = UdpSocket::bind((at, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    (server, port)
}

#[test]
fn datagrams_go_out_and_answers_come_back() {
    for (local, gateway) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(GATEWAY)),
        (Ipv6Addr::LOCALHOST.into(), GATEWAY_V6.into()),
    ] {
        let (server, port) = echo_server(local);
        let mut guest = Guest::new(open());
        let handle = guest.udp(5000);
        let data = pattern(0, 1000);
        socket(&mut guest, handle)
            .send_slice(&data, (gateway, port))
            .unwrap();
        server.set_nonblocking(true).unwrap();
        let (mut bytes, mut from) = ([0; 2000], None);
        guest.until("the datagram", |_| {
            from = server.recv_from(&mut bytes).ok();
            from.is_some()
        });
        let (len, from) = from.unwrap();
        assert_eq!(&bytes[..len], data);
        server.send_to(b"answer", from).unwrap();
        guest.until("the answer", |guest| socket(guest, handle).can_recv());
        let (answer, meta) = socket(&mut guest, handle).recv().unwrap();
        assert_eq!((answer, meta.endpoint.port), (&b"answer"[..], port));
        assert_eq!(IpAddr::from(meta.endpoint.addr), gateway);
        assert_eq!(guest.network.flows(), (0, 1));
    }
}

#[test]
fn nobody_but_who_was_asked_answers() {
    let (server, port) = echo_server(Ipv4Addr::LOCALHOST.into());
    let mut guest = Guest::new(open());
    let handle = guest.udp(5000);
    socket(&mut guest, handle)
        .send_slice(b"q", (GATEWAY, port))
        .unwrap();
    server.set_nonblocking(true).unwrap();
    let mut from = None;
    guest.until("the datagram", |_| {
        from = server.recv_from(&mut [0; 8]).ok();
        from.is_some()
    });
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    stranger.send_to(b"lie", from.unwrap().1).unwrap();
    server.send_to(b"truth", from.unwrap().1).unwrap();
    guest.until("the answer", |guest| socket(guest, handle).can_recv());
    assert_eq!(socket(&mut guest, handle).recv().unwrap().0, b"truth");
}

#[test]
fn a_port_where_nobody_is_is_said_to_be_unreachable() {
    let (server, port) = echo_server(Ipv4Addr::LOCALHOST.into());
    drop(server);
    let mut network = Network::new(open()).unwrap();
    let frame = datagram((ADDRESS, 5000), (GATEWAY, port), b"x");
    send(&mut network, &frame);
    let mut answer = Vec::new();
    for round in 0..1000 {
        network.process(Duration::from_millis(round));
        if network
            .receive(65550, RxOffload::default(), &mut answer)
            .is_some()
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // The error quotes what it is about: its addresses and its ports.
    let (src, dst, number, payload) = parse(&answer);
    assert_eq!((src, dst, number), (GATEWAY.into(), ADDRESS.into(), 1));
    assert_eq!(payload[..2], [3, 3]);
    let quoted = &payload[8..];
    assert_eq!(quoted[12..20], [10, 0, 2, 15, 10, 0, 2, 2]);
    assert_eq!(
        quoted[20..24],
        [5000_u16.to_be_bytes(), port.to_be_bytes()].concat()
    );
}

#[test]
fn what_the_guest_may_not_reach_is_said_to_be_unreachable() {
    let (mut network, host) = scripted(NetworkConfig {
        host_loopback: false,
        ..open()
    });
    for (dst, code) in [
        ([127, 0, 0, 1], 3),
        ([169, 254, 169, 254], 3),
        ([10, 0, 2, 2], 3),
        ([10, 0, 2, 3], 3),
        ([10, 0, 2, 99], 1),
    ] {
        send(
            &mut network,
            &datagram((ADDRESS, 5000), (Ipv4Addr::from(dst), 99), b"x"),
        );
        let (_, _, number, payload) = parse(&receive(&mut network).unwrap());
        assert_eq!((number, payload[0], payload[1]), (1, 3, code));
    }
    send(
        &mut network,
        &datagram((ADDRESS_V6, 5000), (Ipv6Addr::LOCALHOST, 99), b"x"),
    );
    let (_, _, number, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!((number, payload[0], payload[1]), (58, 1, 4));
    assert!(host.peers().is_empty());
    assert_eq!((network.stats().denied, network.stats().not_for_us), (5, 1));
}

#[test]
fn flows_are_forgotten_when_they_are_idle() {
    let mut config = open();
    config.limits.udp_idle = Duration::from_secs(30);
    let (mut network, host) = scripted(config);
    send(
        &mut network,
        &datagram(
            (ADDRESS, 5000),
            ("192.0.2.9".parse::<Ipv4Addr>().unwrap(), 9),
            b"x",
        ),
    );
    assert_eq!(host.peers()[0].take_datagram().unwrap().0, b"x");
    assert_eq!(
        network.timeout(Duration::from_secs(1)),
        Some(Duration::from_secs(30))
    );
    network.process(Duration::from_secs(20));
    host.peers()[0].come(b"y", "192.0.2.9:9".parse().unwrap());
    network.process(Duration::from_secs(20));
    assert!(receive(&mut network).is_some());
    network.process(Duration::from_secs(49));
    assert_eq!(network.flows().1, 1);
    network.process(Duration::from_secs(50));
    assert_eq!((network.flows().1, host.peers().len()), (0, 0));
    assert_eq!(network.timeout(Duration::from_secs(50)), None);
}

#[test]
fn the_flow_that_was_idle_longest_makes_room_for_another() {
    let mut config = open();
    config.limits.udp_flows = 3;
    let (mut network, host) = scripted(config);
    let to = |port| ("192.0.2.9".parse::<Ipv4Addr>().unwrap(), port);
    for (second, port) in (2..).zip([1, 2, 3, 1, 4]) {
        network.process(Duration::from_secs(second));
        send(&mut network, &datagram((ADDRESS, 5000), to(port), b"x"));
    }
    let mut kinds: Vec<_> = host
        .peers()
        .iter()
        .map(|peer| peer.kind().unwrap())
        .collect();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    let udp = |port| ScriptedKind::Udp(SocketAddr::from(to(port)));
    assert_eq!(kinds, [udp(1), udp(3), udp(4)]);
    assert_eq!(network.stats().udp_evicted, 1);
}

#[test]
fn a_datagram_larger_than_the_mtu_reaches_the_guest_in_pieces() {
    let (server, port) = echo_server(Ipv4Addr::LOCALHOST.into());
    let mut guest = Guest::new(open());
    let handle = guest.udp(5000);
    socket(&mut guest, handle)
        .send_slice(b"q", (GATEWAY, port))
        .unwrap();
    server.set_nonblocking(true).unwrap();
    let mut from = None;
    guest.until("the datagram", |_| {
        from = server.recv_from(&mut [0; 8]).ok();
        from.is_some()
    });
    server.send_to(&pattern(0, 3000), from.unwrap().1).unwrap();
    guest.until("the answer", |guest| socket(guest, handle).can_recv());
    assert_eq!(
        socket(&mut guest, handle).recv().unwrap().0,
        pattern(0, 3000)
    );
}

#[test]
fn pieces_of_ipv6_say_where_they_belong() {
    let (mut network, host) = scripted(open());
    let to = "2001:db8::9".parse::<Ipv6Addr>().unwrap();
    send(&mut network, &datagram((ADDRESS_V6, 5000), (to, 9), b"x"));
    host.peers()[0].come(&pattern(0, 3000), (to, 9).into());
    network.process(Duration::from_secs(2));
    let mut whole = Vec::new();
    let mut more = true;
    while more {
        let frame = receive(&mut network).unwrap();
        assert!(frame.len() <= 1514);
        let (_, _, number, payload) = parse(&frame);
        assert_eq!((number, payload[0]), (44, 17));
        let bits = u16::from_be_bytes([payload[2], payload[3]]);
        assert_eq!(usize::from(bits & 0xfff8), whole.len());
        more = bits & 1 == 1;
        whole.extend_from_slice(&payload[8..]);
    }
    assert_eq!(whole[8..], pattern(0, 3000));
    assert!(!network.has_frame() || receive(&mut network).is_none());
}

#[test]
fn what_the_guest_sends_in_pieces_is_put_together() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    let to_v6 = "2001:db8::9".parse::<Ipv6Addr>().unwrap();
    for (frame, headers) in [
        (datagram((ADDRESS, 5000), (to, 9), &pattern(0, 3000)), 34),
        (
            datagram((ADDRESS_V6, 5000), (to_v6, 9), &pattern(0, 3000)),
            54,
        ),
    ] {
        let pieces = raw::fragments(&frame, headers, 1000, 77);
        assert_eq!(pieces.len(), 4);
        // In any order.
        for index in [2, 0, 3, 1] {
            assert!(
                host.peers()
                    .iter()
                    .all(|peer| peer.take_datagram().is_none())
            );
            send(&mut network, &pieces[index]);
        }
        let peer = host.peers().pop().unwrap();
        assert_eq!(peer.take_datagram().unwrap().0, pattern(0, 3000));
    }
    assert_eq!(network.stats().fragments_lost, 0);
}

#[test]
fn pieces_that_never_become_whole_are_counted_and_forgotten() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    let frame = datagram((ADDRESS, 5000), (to, 9), &pattern(0, 3000));
    for ident in 0..20 {
        let pieces = raw::fragments(&frame, 34, 1000, ident);
        send(&mut network, &pieces[usize::from(ident % 4)]);
    }
    assert!(network.stats().fragments_lost > 0);
    assert!(host.peers().is_empty());
    // One that overlaps another is a lie (RFC 8200 §4.5).
    let pieces = raw::fragments(&frame, 34, 1000, 99);
    let lost = network.stats().fragments_lost;
    send(&mut network, &pieces[0]);
    send(&mut network, &raw::fragments(&frame, 34, 500, 99)[1]);
    assert!(network.stats().fragments_lost > lost);
    send(&mut network, &pieces[1]);
    send(&mut network, &pieces[2]);
    send(&mut network, &pieces[3]);
    assert!(host.peers().is_empty());
}

#[test]
fn queries_go_to_the_resolver_and_answers_come_from_where_it_was_asked() {
    let (server, port) = echo_server(Ipv4Addr::LOCALHOST.into());
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Nothing else of the loopback is allowed.
    let config = NetworkConfig {
        dns: DnsConfig::Upstream(upstream),
        host_loopback: false,
        ..open()
    };
    let mut guest = Guest::new(config);
    let handle = guest.udp(5000);
    socket(&mut guest, handle)
        .send_slice(b"query", (DNS, 53))
        .unwrap();
    server.set_nonblocking(true).unwrap();
    let mut from = None;
    guest.until("the query", |_| {
        from = server.recv_from(&mut [0; 8]).ok();
        from.is_some()
    });
    server.send_to(b"answer", from.unwrap().1).unwrap();
    guest.until("the answer", |guest| socket(guest, handle).can_recv());
    let (answer, meta) = socket(&mut guest, handle).recv().unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(
        (IpAddr::from(meta.endpoint.addr), meta.endpoint.port),
        (DNS.into(), 53)
    );
}

#[test]
fn queries_over_tcp_reach_the_resolver_too() {
    let upstream: SocketAddr = "192.0.2.53:5353".parse().unwrap();
    let config = NetworkConfig {
        dns: DnsConfig::Upstream(upstream),
        ..open()
    };
    let host = ScriptedHost::default();
    let network = Network::with_host(config, host.clone()).unwrap();
    let mut guest = Guest::with_network(network, 1500);
    guest.connect((DNS, 53).into(), 40000);
    guest.until("a connection", |_| !host.peers().is_empty());
    assert_eq!(host.peers()[0].kind(), Some(ScriptedKind::Tcp(upstream)));
}

#[test]
fn a_query_that_stays_unanswered_is_asked_again_by_another_socket() {
    let upstream: SocketAddr = "192.0.2.53:53".parse().unwrap();
    let (mut network, host) = scripted(NetworkConfig {
        dns: DnsConfig::Upstream(upstream),
        ..open()
    });
    let query = datagram((ADDRESS, 5000), (DNS, 53), b"query");
    send(&mut network, &query);
    network.process(Duration::from_secs(2));
    send(&mut network, &query);
    let first = host.peers().pop().unwrap();
    assert!(first.take_datagram().is_some() && first.take_datagram().is_some());
    network.process(Duration::from_secs(3));
    send(&mut network, &query);
    assert_eq!(first.kind(), None);
    assert!(host.peers().pop().unwrap().take_datagram().is_some());
    // Nobody is asked where there is nobody.
    let (mut network, host) = scripted(open());
    send(&mut network, &query);
    assert!(host.peers().is_empty());
    assert_eq!(network.stats().denied, 1);
}

#[test]
fn the_gateway_answers_echo_requests_itself() {
    let (mut network, host) = scripted(open());
    let frames: [(IpAddr, IpAddr); 3] = [
        (ADDRESS.into(), GATEWAY.into()),
        (ADDRESS.into(), DNS.into()),
        (ADDRESS_V6.into(), GATEWAY_V6.into()),
    ];
    for (src, dst) in frames {
        send(&mut network, &echo(src, dst, 7, 8, &pattern(0, 1400)));
        let (from, to, _, payload) = parse(&receive(&mut network).unwrap());
        assert_eq!((from, to), (dst, src));
        assert!(payload[0] == 0 || payload[0] == 129);
        assert_eq!(payload[4..8], [0, 7, 0, 8]);
        assert_eq!(payload[8..], pattern(0, 1400));
    }
    assert!(host.peers().is_empty());
}

#[test]
fn echo_requests_go_out_by_the_hosts_sockets_if_it_has_any() {
    let (mut network, host) = scripted(open());
    let ends: [(IpAddr, IpAddr, u8); 2] = [
        (ADDRESS.into(), "192.0.2.9".parse().unwrap(), 0),
        (ADDRESS_V6.into(), "2001:db8::9".parse().unwrap(), 129),
    ];
    for (src, dst, kind) in ends {
        send(&mut network, &echo(src, dst, 7, 8, b"data"));
        let peer = host.peers().pop().unwrap();
        assert_eq!(peer.kind(), Some(ScriptedKind::Echo(dst)));
        let (request, _) = peer.take_datagram().unwrap();
        assert_eq!(request[8..], *b"data");
        // The host has put its own identifier in, and what is no reply is nothing to the guest.
        let other = [&[3, 0, 0, 0, 0, 99, 0, 8], &b"data"[..]].concat();
        peer.come(&other, (dst, 0).into());
        let reply = [&[kind, 0, 0, 0, 0, 99, 0, 8], &b"data"[..]].concat();
        peer.come(&reply, (dst, 0).into());
        network.process(Duration::from_secs(2));
        let frame = receive(&mut network)
            .or_else(|| receive(&mut network))
            .unwrap();
        let (from, to, _, payload) = parse(&frame);
        assert_eq!((from, to), (dst, src));
        assert_eq!(
            (payload[0], &payload[4..8], &payload[8..]),
            (kind, &[0, 7, 0, 8][..], &b"data"[..])
        );
    }
}

#[test]
fn echo_requests_that_cannot_go_out_are_said_to_be_forbidden() {
    let (mut network, host) = scripted(open());
    let (src, dst) = (ADDRESS.into(), "192.0.2.9".parse().unwrap());
    host.refuse(ErrorKind::PermissionDenied);
    send(&mut network, &echo(src, dst, 7, 8, b"data"));
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(payload[..2], [3, 13]);
    send(
        &mut network,
        &echo(ADDRESS_V6.into(), "fe80::9".parse().unwrap(), 7, 8, b"data"),
    );
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(payload[..2], [1, 3]);
    send(
        &mut network,
        &echo(src, "169.254.1.1".parse().unwrap(), 7, 8, b"data"),
    );
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(payload[..2], [3, 13]);
    let stats = network.stats();
    assert_eq!(
        (stats.host_refused, stats.not_for_us, stats.denied),
        (1, 1, 1)
    );
}

#[test]
fn clients_from_outside_reach_the_guest_and_are_told_apart() {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = NetworkConfig {
        forwards: vec![format!("udp:{port}:53").parse::<Forward>().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    let handle = guest.udp(53);
    let clients: Vec<_> = (0..2)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    for (index, client) in (0_u8..).zip(&clients) {
        client.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.send(&[index]).unwrap();
    }
    for _ in &clients {
        guest.until("a query", |guest| socket(guest, handle).can_recv());
        let (query, meta) = socket(&mut guest, handle).recv().unwrap();
        let answer = [query[0], 42];
        assert_eq!(IpAddr::from(meta.endpoint.addr), GATEWAY);
        socket(&mut guest, handle)
            .send_slice(&answer, meta.endpoint)
            .unwrap();
    }
    for (index, client) in (0_u8..).zip(&clients) {
        client.set_nonblocking(true).unwrap();
        let mut answer = [0; 2];
        guest.until("an answer", |_| client.recv(&mut answer).is_ok());
        assert_eq!(answer, [index, 42]);
    }
}

#[test]
fn clients_of_the_same_port_get_ports_of_their_own() {
    let config = NetworkConfig {
        forwards: vec!["udp:5353:53".parse().unwrap()],
        ..open()
    };
    let (mut network, host) = scripted(config);
    // Nothing is fetched before the guest is there, and it is asked where it is.
    let listener = host.peers().pop().unwrap();
    listener.come(b"a", "192.0.2.1:777".parse().unwrap());
    network.process(Duration::from_secs(2));
    let (asked, _) = (receive(&mut network).unwrap(), ());
    assert_eq!(asked[12..14], [8, 6]);
    send(&mut network, &datagram((ADDRESS, 1), (GATEWAY, 1), b""));
    listener.come(b"b", "192.0.2.2:777".parse().unwrap());
    network.process(Duration::from_secs(2));
    let ports: Vec<_> = std::iter::from_fn(|| receive(&mut network))
        .filter(|frame| frame[23] == 17)
        .map(|frame| u16::from_be_bytes([frame[34], frame[35]]))
        .collect();
    assert_eq!(ports.len(), 2);
    assert!(ports[0] == 777 && ports[1] >= 49152, "{ports:?}");
    // Each answer goes to whom it is for.
    send(
        &mut network,
        &datagram((ADDRESS, 53), (GATEWAY, ports[1]), b"to b"),
    );
    assert_eq!(
        listener.take_datagram(),
        Some((b"to b".to_vec(), Some("192.0.2.2:777".parse().unwrap())))
    );
}

#[test]
fn datagrams_with_a_wrong_or_no_checksum_are_known() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    let mut frame = datagram((ADDRESS, 5000), (to, 9), b"x");
    frame[41] ^= 1;
    send(&mut network, &frame);
    assert_eq!(network.stats().bad_checksum, 1);
    // The guest may leave it to the card, or have none.
    network.send(frame.len(), &mut &frame[..], TxOffload { checksum: true });
    frame[40..42].copy_from_slice(&[0, 0]);
    send(&mut network, &frame);
    let peer = host.peers().pop().unwrap();
    assert!(peer.take_datagram().is_some() && peer.take_datagram().is_some());
    let to = "2001:db8::9".parse::<Ipv6Addr>().unwrap();
    let mut frame = datagram((ADDRESS_V6, 5000), (to, 9), b"x");
    frame[60..62].copy_from_slice(&[0, 0]);
    send(&mut network, &frame);
    assert_eq!(network.stats().bad_checksum, 2);
}

#[test]
fn what_does_not_fit_into_the_guests_buffer_is_dropped_and_counted() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    send(&mut network, &datagram((ADDRESS, 5000), (to, 9), b"x"));
    for len in [1000, 3000, 10] {
        host.peers()[0].come(&pattern(0, len), (to, 9).into());
    }
    network.process(Duration::from_secs(2));
    let frames: Vec<_> = (0..10)
        .filter_map(|_| {
            let mut frame = Vec::new();
            network
                .receive(100, RxOffload::default(), &mut frame)
                .map(|info| info.len)
        })
        .collect();
    assert_eq!(frames, [52]);
    assert_eq!(network.stats().no_room, 2);
}

#[test]
fn a_protocol_that_nobody_speaks_is_answered_so() {
    let (mut network, _) = scripted(open());
    let frames: [(IpAddr, IpAddr, [u8; 2]); 2] = [
        (ADDRESS.into(), GATEWAY.into(), [3, 2]),
        (ADDRESS_V6.into(), GATEWAY_V6.into(), [4, 1]),
    ];
    for (src, dst, kind) in frames {
        send(&mut network, &packet(src, dst, 132, &[0; 12]));
        let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
        assert_eq!(payload[..2], kind);
    }
    assert_eq!(network.stats().unknown_protocol, 2);
}

#[test]
fn what_comes_behind_much_that_is_dropped_is_fetched_in_time() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    send(&mut network, &datagram((ADDRESS, 5000), (to, 9), b"x"));
    for _ in 0..100 {
        host.peers()[0].come(&pattern(0, 1000), (to, 9).into());
    }
    host.peers()[0].come(b"small", (to, 9).into());
    let mut now = Duration::from_secs(2);
    let mut frame = Vec::new();
    network.process(now);
    while network
        .receive(100, RxOffload::default(), &mut frame)
        .is_none()
    {
        // The guest does nothing, nor does the host: only time can wake somebody.
        let wait = network.timeout(now).unwrap();
        assert!(
            !wait.is_zero() && wait <= Duration::from_millis(50),
            "{wait:?}"
        );
        now += wait;
        network.process(now);
    }
    assert_eq!(frame.len(), 47);
    assert_eq!(network.stats().no_room, 100);
    // Who does not come for it is not woken for it again and again.
    network.process(now);
    assert!(network.timeout(now) > Some(Duration::from_secs(1)));
}

#[test]
fn an_error_of_any_kind_ends_no_flow() {
    let (mut network, host) = scripted(open());
    let to = "192.0.2.9".parse::<Ipv4Addr>().unwrap();
    let frame = datagram((ADDRESS, 5000), (to, 9), b"x");
    send(&mut network, &frame);
    let peer = host.peers().pop().unwrap();
    peer.take_datagram().unwrap();
    // So the host says that a router has a smaller MTU (EMSGSIZE).
    peer.fail(ErrorKind::Other);
    peer.come(b"answer", (to, 9).into());
    network.process(Duration::from_secs(1));
    let (_, _, _, payload) = parse(&receive(&mut network).unwrap());
    assert_eq!(payload[8..], *b"answer");
    // What it says of an earlier datagram does not keep a later one from being sent.
    peer.fail(ErrorKind::Other);
    send(&mut network, &frame);
    assert_eq!(peer.take_datagram().unwrap().0, b"x");
    assert_eq!((network.flows(), network.stats().udp_opened), ((0, 1), 1));
}
