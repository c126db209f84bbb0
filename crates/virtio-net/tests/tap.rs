//! A real tap, in a network namespace of the test's thread. Needs root and `ip`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_net::spec::{config as space, control, feature, header};
use goldcrest_virtio_net::{NetBackend, NetConfig, PlainTap, Tap, TapConfig, TapError};
use guest::{Guest, config};
use nix::sched::{CloneFlags, unshare};
use vm_memory::{Bytes, GuestAddress};

/// The interface's address, the host's, the guest's.
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const HOST: [u8; 4] = [10, 77, 0, 1];
const GUEST: [u8; 4] = [10, 77, 0, 2];
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PORT: u16 = 4000;
/// Where UDP's payload is in a frame.
const PAYLOAD: usize = 14 + 20 + 8;

/// This thread is in a network of its own from now on; false, with a word of why, if it cannot be.
fn alone() -> bool {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {error}");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        eprintln!("skipped: there is no ip");
        return false;
    }
    // No frames but ours.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    true
}

fn ip(arguments: &str) {
    let arguments = arguments.split_whitespace();
    let output = Command::new("ip").args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
}

fn open(name: &str, queues: u16) -> Result<Tap, TapError> {
    Tap::open(&TapConfig {
        name: name.to_owned(),
        queues,
    })
}

/// The host's side of the tap has an address, and knows the guest's.
fn bring_up(name: &str) {
    ip(&format!(
        "link set {name} address 02:00:00:00:00:fe mtu 9000 up"
    ));
    ip(&format!("addr add 10.77.0.1/24 dev {name}"));
    ip(&format!(
        "neigh add 10.77.0.2 lladdr 02:00:00:00:00:01 dev {name}"
    ));
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// A datagram from the guest to the host's [`PORT`], in a frame, without UDP's checksum.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend([GUEST, HOST].concat());
    let check = sum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&check);
    for number in [PORT + 1, PORT, len - 20, 0] {
        packet.extend(number.to_be_bytes());
    }
    [&HOST_MAC[..], &GUEST_MAC, &[8, 0], &packet, payload].concat()
}

fn host_socket() -> UdpSocket {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), PORT)).unwrap();
    let limit = Duration::from_secs(10);
    socket.set_read_timeout(Some(limit)).unwrap();
    socket
}

fn guest_on(tap: Tap, features: u64) -> Guest<Tap> {
    Guest::new(tap, &config(), features)
}

/// The payloads of the next `count` datagrams that the guest receives.
fn payloads(guest: &mut Guest<Tap>, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    guest.run_until(|guest| {
        all.extend(guest.received());
        all.len() >= count
    });
    all.iter().map(|frame| frame[PAYLOAD..].to_vec()).collect()
}

#[test]
fn a_plain_taps_frames_have_no_header() {
    if !alone() {
        return;
    }
    ip("tuntap add dev gcplain mode tap");
    ip("link set gcplain mtu 1400");
    let tap = PlainTap::open("gcplain").unwrap();
    assert_eq!(tap.mtu(), 1400);
    let busy = PlainTap::open("gcplain").unwrap_err();
    assert!(matches!(busy, TapError::Busy { .. }), "{busy}");
    bring_up("gcplain");
    let socket = host_socket();
    let mut buffer = [0; 2000];
    let none = tap.receive(&mut buffer).unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);

    tap.send(&datagram(b"hello")).unwrap();
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"hello");
    socket.send_to(b"welcome", from).unwrap();
    let len = tap.receive(&mut buffer).unwrap();
    assert_eq!(buffer[..6], GUEST_MAC);
    assert_eq!(&buffer[PAYLOAD..len], b"welcome");
    // One that is longer than the room is cut off.
    socket.send_to(b"welcome", from).unwrap();
    assert_eq!(tap.receive(&mut buffer[..20]).unwrap(), 20);
    assert!(tap.receive(&mut buffer).is_err());
    assert!(tap.send(&[0; 5]).is_err(), "no Ethernet header");
}

#[test]
fn frames_go_both_ways() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 1).unwrap();
    bring_up("tap0");
    let mut guest = guest_on(tap, 0);
    let host = host_socket();
    for _ in 0..8 {
        guest.offer_room(0, &[100, 1426]);
    }
    guest.notify(0);
    for number in 0..20_u8 {
        host.send_to(&[number; 1000], (std::net::Ipv4Addr::from(GUEST), PORT))
            .unwrap();
    }
    // Eight find buffers, the others wait for them.
    assert_eq!(payloads(&mut guest, 8).len(), 8);
    guest.turn(Duration::ZERO);
    for number in 8..20 {
        guest.give_room(1526);
        assert_eq!(payloads(&mut guest, 1), [[number; 1000]]);
    }
    // Parts of any number: a system call takes 64.
    for (payload, parts) in [
        (1_usize, 0_usize),
        (1400, 3),
        (1400, 62),
        (1400, 63),
        (1400, 200),
    ] {
        let frame = [
            vec![0; header::SIZE],
            datagram(&vec![payload as u8; payload]),
        ]
        .concat();
        guest.send_parts(0, &frame, &vec![7; parts]);
        let mut bytes = [0; 2000];
        let (len, from) = host.recv_from(&mut bytes).unwrap();
        assert_eq!(
            (len, from.ip()),
            (payload, std::net::Ipv4Addr::from(GUEST).into())
        );
        assert!(bytes[..len].iter().all(|byte| *byte == payload as u8));
    }
    assert_eq!(guest.stats().tx_dropped() + guest.stats().rx_dropped(), 0);
    assert_eq!(guest.sent(0), 5);
}

#[test]
fn long_frames_are_merged_or_wait_for_room_or_are_dropped() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 1).unwrap();
    bring_up("tap0");
    let mut guest = guest_on(tap, feature::MRG_RXBUF);
    let host = host_socket();
    let to = (std::net::Ipv4Addr::from(GUEST), PORT);
    let long: Vec<u8> = (0..8000_u32).map(|n| (n % 251) as u8).collect();
    // Too many parts for one system call: 63 are read into directly.
    for len in [500, 100] {
        for _ in 0..90 {
            guest.offer_room(0, &[len]);
        }
        guest.notify(0);
        host.send_to(&long, to).unwrap();
        assert_eq!(
            payloads(&mut guest, 1),
            std::slice::from_ref(&long),
            "{len}"
        );
    }
    // Nothing is left but what is too short for the next: it waits, and comes whole.
    guest.start(feature::MRG_RXBUF);
    guest.give_room(3000);
    host.send_to(&long, to).unwrap();
    host.send_to(&[7; 10], to).unwrap();
    guest.turn(Duration::from_millis(1));
    assert!(guest.waits().delay.is_some());
    guest.give_room(3000);
    assert_eq!(guest.received(), [[0; 0]; 0]);
    guest.give_room(6000);
    assert_eq!(payloads(&mut guest, 1), std::slice::from_ref(&long));
    // The next finds what is left of nothing, until there is a buffer.
    guest.give_room(3000);
    assert_eq!(payloads(&mut guest, 1), [[7; 10]]);
    // Who makes no room does not keep what is behind.
    guest.give_room(3000);
    host.send_to(&long, to).unwrap();
    host.send_to(&[8; 10], to).unwrap();
    assert_eq!(payloads(&mut guest, 1), [[8; 10]]);
    assert_eq!(guest.stats().rx_too_long, 1);
    // Without merging there is nothing to wait for.
    guest.start(0);
    guest.give_room(3000);
    host.send_to(&long, to).unwrap();
    host.send_to(&[9; 10], to).unwrap();
    assert_eq!(payloads(&mut guest, 1), [[9; 10]]);
    assert_eq!(guest.stats().rx_too_long, 2);
}

#[test]
fn sums_are_left_out_as_agreed_both_ways() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 1).unwrap();
    bring_up("tap0");
    let offloads = feature::CSUM | feature::GUEST_CSUM;
    let control = feature::CTRL_VQ | feature::CTRL_GUEST_OFFLOADS;
    let mut guest = guest_on(tap, offloads | control);
    let host = host_socket();
    let to = (std::net::Ipv4Addr::from(GUEST), PORT);
    let flags_of_next = |guest: &mut Guest<Tap>| {
        host.send_to(&[1; 100], to).unwrap();
        guest.give_room(1526);
        let mut frames = Vec::new();
        guest.run_until(|guest| {
            frames.extend(guest.received_by(0));
            !frames.is_empty()
        });
        frames[0][0]
    };
    assert_eq!(flags_of_next(&mut guest), header::F_NEEDS_CSUM);
    let none = 0_u64.to_le_bytes();
    let set = |guest: &mut Guest<Tap>, offloads: &[u8]| {
        guest.command(
            control::GUEST_OFFLOADS,
            control::GUEST_OFFLOADS_SET,
            offloads,
        )
    };
    assert_eq!(set(&mut guest, &none), control::OK);
    assert_eq!(flags_of_next(&mut guest), 0);
    assert_eq!(
        set(&mut guest, &feature::GUEST_CSUM.to_le_bytes()),
        control::OK
    );
    assert_eq!(flags_of_next(&mut guest), header::F_NEEDS_CSUM);
    // The host computes what the guest leaves out: UDP's sum at 6 from byte 34 on, of what is there so far.
    let mut frame = datagram(&[5; 99]);
    let pseudo = [&GUEST[..], &HOST, &[0, 17], &(99_u16 + 8).to_be_bytes()].concat();
    frame[40..42].copy_from_slice(&(!sum(&pseudo)).to_be_bytes());
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    guest.send_parts(0, &[&header[..], &frame].concat(), &[]);
    let mut bytes = [0; 200];
    assert_eq!(host.recv_from(&mut bytes).unwrap().0, 99);
}

#[test]
fn several_queues_are_used_as_the_driver_says() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 4).unwrap();
    bring_up("tap0");
    let config = NetConfig {
        queue_pairs: 4,
        ..config()
    };
    let features = feature::CTRL_VQ | feature::MQ;
    let mut guest = Guest::new(tap, &config, features);
    let host = host_socket();
    let to = std::net::Ipv4Addr::from(GUEST);
    let receive = |guest: &mut Guest<Tap>, flows: u16| -> Vec<usize> {
        for pair in 0..4 {
            for _ in 0..flows {
                guest.offer_room(pair, &[1526]);
            }
            guest.notify(2 * pair);
        }
        for flow in 0..flows {
            host.send_to(&[1; 10], (to, PORT + flow)).unwrap();
        }
        let mut counts = vec![0; 4];
        guest.run_until(|guest| {
            for (pair, count) in counts.iter_mut().enumerate() {
                *count += guest.received_by(pair).len();
            }
            counts.iter().sum::<usize>() == usize::from(flows)
        });
        counts
    };
    // One at first, then more, then fewer.
    assert_eq!(receive(&mut guest, 32), [32, 0, 0, 0]);
    let pairs = |guest: &mut Guest<Tap>, count: u16| {
        guest.command(control::MQ, control::MQ_VQ_PAIRS_SET, &count.to_le_bytes())
    };
    assert_eq!(pairs(&mut guest, 4), control::OK);
    let counts = receive(&mut guest, 64);
    assert!(
        counts.iter().filter(|count| **count > 0).count() > 1,
        "{counts:?}"
    );
    for pair in 0..4 {
        let frame = [vec![0; header::SIZE], datagram(&[pair as u8; 10])].concat();
        guest.send_parts(pair, &frame, &[]);
        let mut bytes = [0; 100];
        assert_eq!(host.recv_from(&mut bytes).unwrap().0, 10);
        assert_eq!(bytes[0], pair as u8);
    }
    assert_eq!(pairs(&mut guest, 1), control::OK);
    assert_eq!(receive(&mut guest, 32), [32, 0, 0, 0]);
}

#[test]
fn the_link_is_up_while_the_interface_is() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 1).unwrap();
    let mut guest = guest_on(tap, feature::STATUS);
    let up = |guest: &mut Guest<Tap>| guest.read_config::<1>(space::STATUS)[0] & 1;
    assert_eq!(up(&mut guest), 0);
    // Frames that a guest sends nevertheless are lost, and counted.
    guest.send(&datagram(&[1]));
    assert_eq!((guest.sent(0), guest.stats().tx_errors), (1, 1));
    ip("link set tap0 up");
    guest.run_until(|guest| up(guest) == 1);
    ip("link set tap0 down");
    guest.run_until(|guest| up(guest) == 0);
    ip("link delete tap0");
    guest.turn(Duration::ZERO);
    guest.give_room(1526);
    assert_eq!(up(&mut guest), 0);
    assert!(!guest.needs_reset());
}

#[test]
fn what_cannot_be_opened_says_why() {
    if !alone() {
        return;
    }
    let reason = |result: Result<Tap, TapError>| {
        let error = result.unwrap_err();
        println!("{error}: {}", std::error::Error::source(&error).unwrap());
        error
    };
    let first = open("tap0", 1).unwrap();
    assert!(matches!(reason(open("tap0", 1)), TapError::Busy { .. }));
    assert!(matches!(reason(open("tap0", 2)), TapError::Other { .. }));
    drop(first);
    assert!(matches!(reason(open("lo", 1)), TapError::Other { .. }));
    ip("tuntap add dev tap1 mode tap multi_queue");
    // One queue of several is possible, and all of them are.
    let one = open("tap1", 1).unwrap();
    assert_eq!(one.queue_pairs(), 1);
    drop(one);
    assert_eq!(open("tap1", 8).unwrap().queue_pairs(), 8);
    ip("tuntap add dev tap2 mode tun");
    assert!(matches!(reason(open("tap2", 1)), TapError::Other { .. }));
}

#[test]
fn a_tap_that_another_opened_is_taken_by_its_descriptor() {
    if !alone() {
        return;
    }
    let fd: OwnedFd = open("tap0", 1).unwrap().into_fds().remove(0);
    bring_up("tap0");
    let tap = Tap::from_fds(vec![fd]).unwrap();
    assert_eq!(tap.name(), "tap0");
    let mut guest = guest_on(tap, 0);
    guest.send(&datagram(&[1; 33]));
    let host = host_socket();
    guest.send(&datagram(&[1; 33]));
    assert_eq!(host.recv_from(&mut [0; 100]).unwrap().0, 33);
}

#[test]
fn parts_that_run_from_one_region_of_ram_into_the_next_may_be_too_many_for_a_system_call() {
    if !alone() {
        return;
    }
    let tap = open("tap0", 1).unwrap();
    bring_up("tap0");
    let mut guest = guest_on(tap, 0);
    let host = host_socket();
    let to = (std::net::Ipv4Addr::from(GUEST), PORT);
    let across = guest::RAM / 2 - 10;
    // 63 parts, of which one is two.
    let mut rooms: Vec<_> = (0..62)
        .map(|n| Buffer::Writable(guest::DATA + 20 * n, 20))
        .collect();
    rooms.push(Buffer::Writable(across, 2000));
    guest.add(0, &rooms);
    guest.notify(0);
    host.send_to(&[7; 1400], to).unwrap();
    assert_eq!(payloads(&mut guest, 1), [[7; 1400]]);
    let frame = [vec![0; header::SIZE], datagram(&[9; 1400])].concat();
    let mut parts: Vec<_> = (0..62)
        .map(|n| Buffer::Readable(guest::DATA + 20 * n, 20))
        .collect();
    let (first, last) = frame.split_at(62 * 20);
    parts.push(Buffer::Readable(across, u32::try_from(last.len()).unwrap()));
    guest
        .memory
        .write_slice(first, GuestAddress(guest::DATA))
        .unwrap();
    guest
        .memory
        .write_slice(last, GuestAddress(across))
        .unwrap();
    parts.push(Buffer::Readable(across, 0));
    guest.add(1, &parts);
    guest.notify(1);
    let mut bytes = [0; 2000];
    assert_eq!(host.recv_from(&mut bytes).unwrap().0, 1400);
    assert!(bytes[..1400].iter().all(|byte| *byte == 9));
    // What is no RAM at all is an error of its own.
    guest.add(1, &[Buffer::Readable(guest::RAM - 20, 100)]);
    guest.notify(1);
    assert_eq!(guest.stats().tx_errors, 1);
    guest.add(0, &[Buffer::Writable(guest::RAM - 20, 2000)]);
    guest.notify(0);
    assert!(
        guest.error().contains("does not lie in RAM"),
        "{}",
        guest.error()
    );
}
