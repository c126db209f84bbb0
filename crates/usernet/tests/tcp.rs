//! Connections of a guest with a TCP stack of its own to real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use goldcrest_usernet::{Network, NetworkConfig, RxOffload};
use smoltcp::socket::tcp;

use guest::{GATEWAY, GATEWAY_V6, Guest, open, pattern};

mod guest;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, (GATEWAY, port).into())
}

fn listen_v6() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, (GATEWAY_V6, port).into())
}

/// The guest sends `len` bytes to a server, which says that all came, or receives them.
fn transfer(
    mut guest: Guest,
    (listener, at): (TcpListener, SocketAddr),
    len: usize,
    upload: bool,
) -> Guest {
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if upload {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert!(bytes == pattern(0, len));
            stream.write_all(b"all").unwrap();
        } else {
            stream.write_all(&pattern(0, len)).unwrap();
        }
    });
    let handle = guest.connect(at, 40000);
    let data = pattern(0, len);
    let (mut sent, mut received) = (0, Vec::new());
    guest.until("the transfer", |guest| {
        let socket = guest.socket(handle);
        if upload && socket.can_send() && sent < len {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == len {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        !socket.may_recv() && socket.state() != tcp::State::SynSent
    });
    server.join().unwrap();
    if upload {
        assert_eq!(received, b"all");
    } else {
        assert!(received == data);
        guest.socket(handle).close();
    }
    guest.until("the end", |guest| guest.network.flows().0 == 0);
    guest
}

#[test]
fn many_bytes_arrive_at_the_host() {
    let guest = transfer(Guest::new(open()), listen(), 20 << 20, true);
    let stats = guest.network.stats();
    assert_eq!(
        (stats.tcp_opened, stats.malformed, stats.bad_checksum),
        (1, 0, 0)
    );
}

#[test]
fn many_bytes_arrive_at_the_guest() {
    let guest = transfer(Guest::new(open()), listen(), 20 << 20, false);
    assert_eq!(guest.network.stats().tcp_retransmitted, 0);
}

#[test]
fn many_bytes_go_both_ways_over_ipv6() {
    transfer(Guest::new(open()), listen_v6(), 5 << 20, true);
    transfer(Guest::new(open()), listen_v6(), 5 << 20, false);
}

#[test]
fn large_frames_carry_them_too() {
    let config = || NetworkConfig {
        mtu: 65520,
        ..open()
    };
    transfer(Guest::new(config()), listen(), 20 << 20, true);
    transfer(Guest::new(config()), listen(), 20 << 20, false);
}

#[test]
fn large_segments_are_described_so_that_they_can_be_cut() {
    for (at, headers) in [(listen(), 54), (listen_v6(), 74)] {
        let mut guest = Guest::with_card(Network::new(open()).unwrap(), 1500, false);
        guest.rx = RxOffload {
            checksum: true,
            tso4: true,
            tso6: true,
        };
        let (listener, at) = at;
        let handle = guest.connect(at, 40000);
        guest.takes = false;
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&pattern(0, 60000)).unwrap();
            stream
        });
        let mut segments = Vec::new();
        guest.until("a large segment", |guest| {
            while guest.network.has_frame() {
                let Some((info, frame)) = guest.receive() else {
                    break;
                };
                segments.push(info);
                // The guest's stack takes it whole.
                guest.card.received.push_back(frame);
            }
            let socket = guest.socket(handle);
            if socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), ())).unwrap();
            }
            segments.iter().any(|info| info.gso.is_some())
        });
        for info in segments.iter().filter(|info| info.len > 1514) {
            let (gso, checksum) = (info.gso.unwrap(), info.checksum.unwrap());
            assert_eq!(usize::from(gso.header_len), headers);
            assert_eq!(usize::from(gso.mss), 1514 - headers);
            assert_eq!(
                (usize::from(checksum.start), checksum.offset),
                (headers - 20, 16)
            );
        }
        drop(server.join());
    }
}

#[test]
fn each_direction_is_closed_by_itself() {
    let (listener, at) = listen();
    let mut guest = Guest::new(open());
    let handle = guest.connect(at, 40000);
    guest.until("the connection", |guest| guest.socket(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    // The server ends; the guest goes on.
    stream.shutdown(Shutdown::Write).unwrap();
    guest.until("the server's end", |guest| !guest.socket(handle).may_recv());
    guest.socket(handle).send_slice(b"still here").unwrap();
    let mut bytes = [0; 10];
    stream.set_nonblocking(true).unwrap();
    guest.until("the guest's bytes", |_| {
        stream.read_exact(&mut bytes).is_ok()
    });
    assert_eq!(&bytes, b"still here");
    guest.socket(handle).close();
    guest.until("the guest's end", |_| {
        matches!(stream.read(&mut bytes), Ok(0))
    });
    guest.until("the end", |guest| guest.network.flows().0 == 0);
}

#[test]
fn a_connection_that_is_refused_is_reset() {
    let (listener, at) = listen();
    drop(listener);
    let mut guest = Guest::new(open());
    let handle = guest.connect(at, 40000);
    guest.until("the reset", |guest| {
        guest.socket(handle).state() == tcp::State::Closed
    });
    assert_eq!(guest.network.stats().tcp_failed, 1);
    assert_eq!(guest.network.flows().0, 0);
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    let (listener, at) = listen();
    let mut guest = Guest::new(open());
    let handle = guest.connect(at, 40000);
    guest.until("the connection", |guest| guest.socket(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    guest.socket(handle).abort();
    stream.set_nonblocking(true).unwrap();
    guest.until("the reset", |_| {
        matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    });

    let handle = guest.connect(at, 40001);
    guest.until("the connection", |guest| guest.socket(handle).may_send());
    let (stream, _) = listener.accept().unwrap();
    // Closing with unread bytes is a reset.
    guest.socket(handle).send_slice(b"unread").unwrap();
    stream.set_nonblocking(true).unwrap();
    guest.until("the bytes", |_| {
        stream.peek(&mut [0; 6]).is_ok_and(|len| len == 6)
    });
    drop(stream);
    guest.until("the reset", |guest| {
        guest.socket(handle).state() == tcp::State::Closed
    });
    assert_eq!(guest.network.flows().0, 0);
}

#[test]
fn a_slow_server_closes_the_window_and_opens_it_again() {
    let (listener, at) = listen();
    let mut guest = Guest::new(open());
    let handle = guest.connect(at, 40000);
    guest.until("the connection", |guest| guest.socket(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    let data = pattern(0, 32 << 20);
    let mut sent = 0;
    let mut stalled = 0;
    // The server reads nothing until nobody takes any more.
    while stalled < 200 {
        let taken = guest.socket(handle).send_slice(&data[sent..]).unwrap();
        sent += taken;
        stalled = if taken == 0 { stalled + 1 } else { 0 };
        guest.step();
    }
    assert!(sent < data.len(), "all that was sent is held somewhere");
    let server = thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    guest.until("the rest", |guest| {
        let socket = guest.socket(handle);
        if sent < data.len() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        } else {
            socket.close();
        }
        socket.state() == tcp::State::FinWait2 || socket.state() == tcp::State::TimeWait
    });
    guest.until("the server's end", |guest| guest.network.flows().0 == 0);
    assert!(server.join().unwrap() == data);
}

#[test]
fn a_guest_that_stalls_gets_everything_when_it_goes_on() {
    let (listener, at) = listen();
    let mut guest = Guest::new(open());
    let handle = guest.connect(at, 40000);
    guest.until("the connection", |guest| guest.socket(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    let server = thread::spawn(move || stream.write_all(&pattern(0, 8 << 20)));
    // It neither reads nor, for a while, takes frames.
    for round in 0..300 {
        guest.takes = !(100..200).contains(&round);
        guest.step();
        thread::sleep(Duration::from_millis(1));
    }
    let mut received = Vec::new();
    guest.until("all", |guest| {
        let socket = guest.socket(handle);
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        !socket.may_recv()
    });
    assert!(received == pattern(0, 8 << 20));
    server.join().unwrap().unwrap();
}

#[test]
fn connections_from_outside_reach_the_guest() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = NetworkConfig {
        forwards: vec![format!("tcp:{port}:80").parse().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    // Somebody connects before the guest listens.
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    guest.until("a client", |guest| guest.network.flows().0 == 1);
    let handle = guest.tcp(4096);
    guest.socket(handle).listen(80).unwrap();
    guest.until("the bytes", |guest| guest.socket(handle).recv_queue() == 5);
    let remote = guest.socket(handle).remote_endpoint().unwrap();
    assert_eq!(IpAddr::from(remote.addr), GATEWAY);
    guest.socket(handle).send_slice(b"well").unwrap();
    guest.socket(handle).close();
    guest.until("the end", |guest| guest.network.flows().0 == 0);
    assert_eq!(client.join().unwrap(), b"well");

    // Nobody listens any more: the client is told.
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    guest.until("the refusal", |guest| {
        guest.network.stats().tcp_accepted == 2 && guest.network.flows().0 == 0
    });
    assert_eq!(client.join().unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn what_the_guest_may_not_reach_is_reset() {
    let (_listener, at) = listen();
    let config = NetworkConfig {
        host_loopback: false,
        ..open()
    };
    let mut guest = Guest::new(config);
    for (port, to) in (40000..).zip([
        at,
        "127.0.0.1:80".parse().unwrap(),
        "169.254.169.254:80".parse().unwrap(),
    ]) {
        let handle = guest.connect(to, port);
        guest.until("the reset", |guest| {
            guest.socket(handle).state() == tcp::State::Closed
        });
    }
    let stats = guest.network.stats();
    assert_eq!(stats.denied, 3);
    assert_eq!(stats.tcp_opened, 0);
}

#[test]
fn no_more_connections_are_made_than_may_be() {
    let (listener, at) = listen();
    let mut config = open();
    config.limits.tcp_flows = 2;
    let mut guest = Guest::new(config);
    let handles: Vec<_> = (40000..40003)
        .map(|port| {
            let handle = guest.connect(at, port);
            guest.until("an answer", |guest| {
                let state = guest.socket(handle).state();
                state == tcp::State::Established || state == tcp::State::Closed
            });
            handle
        })
        .collect();
    assert_eq!(guest.socket(handles[2]).state(), tcp::State::Closed);
    assert_eq!(guest.network.flows().0, 2);
    assert_eq!(guest.network.stats().over_limit, 1);
    // When one has gone there is room.
    guest.socket(handles[0]).abort();
    guest.until("room", |guest| guest.network.flows().0 == 1);
    let handle = guest.connect(at, 40004);
    guest.until("a connection", |guest| guest.socket(handle).may_send());
    drop(listener);
}

#[test]
fn urgent_bytes_are_in_the_stream_and_do_not_stop_it() {
    let mut guest = Guest::new(open());
    let (listener, at) = listen();
    let handle = guest.connect(at, 40000);
    guest.until("a connection", |guest| guest.socket(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"before").unwrap();
    rustix::net::send(&stream, b"!", rustix::net::SendFlags::OOB).unwrap();
    stream.write_all(b"after").unwrap();
    let mut received = Vec::new();
    guest.until("all bytes", |guest| {
        let socket = guest.socket(handle);
        if socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        received.len() >= 12
    });
    assert_eq!(received, b"before!after");
}
