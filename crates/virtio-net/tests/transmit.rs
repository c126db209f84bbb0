//! Frames of the guest's (§5.1.6.2).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_net::Loopback;
use goldcrest_virtio_net::spec::{MAX_FRAME, feature, header};
use guest::{Guest, config, frame, headed};

#[test]
fn frames_go_out_in_their_order_with_their_headers() {
    let mut guest = Guest::silent(0);
    for len in [60, 1514, 14] {
        guest.send(&frame(len));
    }
    assert_eq!(guest.sent(0), 3);
    for len in [60, 1514, 14] {
        assert_eq!(guest.backend().take_sent().unwrap(), headed(&frame(len)));
    }
    let stats = guest.stats();
    assert_eq!((stats.tx_frames, stats.tx_bytes), (3, 60 + 1514 + 14));
}

#[test]
fn how_a_frame_is_cut_makes_no_difference() {
    let bytes = headed(&frame(300));
    for parts in [&[12][..], &[1, 0, 11, 14], &[5, 100], &[3; 90], &[312]] {
        let mut guest = Guest::silent(0);
        guest.send_parts(0, &bytes, parts);
        assert_eq!(
            guest.backend().take_sent(),
            Some(bytes.clone()),
            "{parts:?}"
        );
    }
}

#[test]
fn frames_that_are_too_short_or_too_long_are_dropped_and_counted() {
    let mut guest = Guest::silent(0);
    for len in [0, 1, 11, 12, 25] {
        guest.send_parts(0, &headed(&frame(60))[..len], &[]);
    }
    assert_eq!(guest.stats().tx_too_short, 5);
    for len in [MAX_FRAME + 1, 1 << 20] {
        guest.send_parts(0, &vec![0; len], &[]);
    }
    assert_eq!(guest.stats().tx_too_long, 2);
    assert_eq!(guest.sent(0), 7);
    // What can only be written says nothing.
    guest.add(1, &[Buffer::Writable(guest::DATA, 100)]);
    guest.notify(1);
    assert_eq!((guest.sent(0), guest.stats().tx_too_short), (1, 6));
    guest.send(&frame(MAX_FRAME - header::SIZE));
    assert_eq!(guest.backend().take_sent().unwrap().len(), MAX_FRAME);
}

#[test]
fn frames_outside_ram_are_dropped_and_counted() {
    let mut guest = Guest::silent(0);
    guest.add(1, &[Buffer::Readable(guest::RAM - 4, 100)]);
    guest.add(
        1,
        &[
            Buffer::Readable(guest::RAM - 12, 12),
            Buffer::Readable(u64::MAX - 8, 60),
        ],
    );
    guest.notify(1);
    assert_eq!((guest.sent(0), guest.stats().tx_errors), (2, 2));
    guest.send(&frame(60));
    assert_eq!(guest.sent(0), 1);
}

/// A header with these fields, whose frame has a TCP header where it should be.
fn header(flags: u8, gso_type: u8, gso_size: u16, csum_start: u16) -> Vec<u8> {
    let mut bytes = vec![flags, gso_type];
    for number in [54, gso_size, csum_start, 16, 0] {
        bytes.extend(u16::to_le_bytes(number));
    }
    bytes
}

#[test]
fn a_frame_asks_for_nothing_that_was_not_agreed_on() {
    use feature::{CSUM, HOST_ECN, HOST_TSO4, HOST_TSO6, HOST_UFO, HOST_USO};
    use header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4};
    let all = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_UFO | HOST_USO;
    for (features, flags, gso_type, gso_size, start, passes) in [
        (0, 0, 0, 9, 9, true),
        (0, 1, 0, 0, 34, false),
        (CSUM, 1, 0, 0, 34, true),
        // The sum must lie in the frame, up to its last byte.
        (CSUM, 1, 0, 0, 82, true),
        (CSUM, 1, 0, 0, 83, false),
        (CSUM, 1, 0, 0, 0xffff, false),
        (CSUM, 1, GSO_TCPV4, 1448, 34, false),
        (CSUM | HOST_TSO4, 1, GSO_TCPV4, 1448, 34, true),
        (CSUM | HOST_TSO4, 0, GSO_TCPV4, 1448, 34, false),
        (CSUM | HOST_TSO4, 1, GSO_TCPV4, 0, 34, false),
        (CSUM | HOST_TSO4, 1, GSO_TCPV4 | GSO_ECN, 1448, 34, false),
        (
            CSUM | HOST_TSO4 | HOST_ECN,
            1,
            GSO_TCPV4 | GSO_ECN,
            1448,
            34,
            true,
        ),
        (CSUM | HOST_TSO4, 1, GSO_TCPV6, 1448, 34, false),
        (CSUM | HOST_TSO6, 1, GSO_TCPV6, 1448, 34, true),
        (all, 1, GSO_UDP, 1448, 34, true),
        (all & !HOST_UFO, 1, GSO_UDP, 1448, 34, false),
        (all, 1, GSO_UDP_L4, 1448, 34, true),
        (all, 1, GSO_UDP_L4 | GSO_ECN, 1448, 34, false),
        (all & !HOST_USO, 1, GSO_UDP_L4, 1448, 34, false),
        (all, 1, 2, 1448, 34, false),
        (all, 1, 0x7f, 1448, 34, false),
        (all, 1, GSO_ECN, 1448, 34, false),
    ] {
        let network = Loopback::new(4).silent().with_features(all);
        let mut guest = Guest::new(network, &config(), features);
        let header = header(flags, gso_type, gso_size, start);
        guest.send_parts(0, &[header, frame(100)].concat(), &[]);
        let sent = guest.backend().take_sent().is_some();
        assert_eq!(
            sent, passes,
            "{features:#x} {flags} {gso_type} {gso_size} {start}"
        );
        assert_eq!(guest.stats().tx_bad_header, u64::from(!passes));
        assert_eq!(guest.sent(0), 1);
    }
}

#[test]
fn flags_that_mean_nothing_from_a_driver_are_cleared() {
    let network = Loopback::new(4).silent().with_features(feature::CSUM);
    let mut guest = Guest::new(network, &config(), feature::CSUM);
    guest.send_parts(0, &[header(0xff, 0, 0, 34), frame(100)].concat(), &[]);
    assert_eq!(
        guest.backend().take_sent().unwrap()[0],
        header::F_NEEDS_CSUM
    );
}

#[test]
fn frames_wait_while_the_network_is_full_and_go_on_in_their_order() {
    let network = Loopback::new(2).silent();
    let mut guest = Guest::new(network, &config(), 0);
    for len in 60..70 {
        guest.send(&frame(len));
    }
    assert_eq!(guest.sent(0), 2);
    assert_eq!(guest.in_flight(1), 0);
    assert!(guest.waits().delay.is_some());
    for len in 60..70 {
        assert_eq!(guest.backend().take_sent(), Some(headed(&frame(len))));
        guest.device.process_events();
    }
    assert_eq!((guest.sent(0), guest.stats().tx_dropped()), (8, 0));
    guest.device.process_events();
    assert!(guest.waits().is_empty());
}

#[test]
fn what_comes_back_at_once_is_received_before_the_guest_goes_on() {
    let mut guest = Guest::new(Loopback::new(4), &config(), feature::MRG_RXBUF);
    guest.give_room(2048);
    guest.send(&frame(60));
    assert_eq!(guest.received(), [frame(60)]);
}
