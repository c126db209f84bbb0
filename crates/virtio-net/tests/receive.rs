//! Frames for the guest (§5.1.6.3, §5.1.6.4).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_net::spec::{MAX_FRAME, feature, header};
use guest::{Guest, frame, headed};

#[test]
fn frames_come_in_their_order_each_with_a_header() {
    let mut guest = Guest::silent(0);
    for _ in 0..3 {
        guest.give_room(1526);
    }
    for len in [60, 1514, 14] {
        guest.arrive(&frame(len));
    }
    let frames = guest.received_by(0);
    assert_eq!(frames.len(), 3);
    for (received, len) in frames.iter().zip([60, 1514, 14]) {
        let mut header = [0; header::SIZE];
        // `num_buffers` is 1 without VIRTIO_NET_F_MRG_RXBUF, too.
        header[10] = 1;
        assert_eq!(received[..header::SIZE], header);
        assert_eq!(received[header::SIZE..], frame(len));
    }
    assert_eq!(guest.stats().rx_frames, 3);
    assert_eq!(guest.stats().rx_bytes, 60 + 1514 + 14);
}

#[test]
fn a_frame_fills_several_buffers_that_come_back_together() {
    let mut guest = Guest::silent(feature::MRG_RXBUF);
    for _ in 0..48 {
        guest.offer_room(0, &[1024, 476]);
    }
    guest.notify(0);
    let long = frame(MAX_FRAME - header::SIZE);
    guest.arrive(&long);
    let buffers = guest.buffers(0);
    assert_eq!(buffers.len(), MAX_FRAME.div_ceil(1500));
    assert_eq!(buffers[0][10..12], 44_u16.to_le_bytes());
    assert!(buffers[..43].iter().all(|buffer| buffer.len() == 1500));
    assert_eq!(buffers.concat()[header::SIZE..], long);
    // Those that are left serve what follows.
    guest.arrive(&frame(60));
    assert_eq!(guest.received(), [frame(60)]);
}

#[test]
fn how_buffers_are_cut_makes_no_difference() {
    for parts in [
        &[12, 2000][..],
        &[1, 2000],
        &[11, 1, 5, 0, 2000],
        &[2, 7, 1, 1, 1, 3000],
        &[3; 40],
    ] {
        for features in [0, feature::MRG_RXBUF] {
            let mut guest = Guest::silent(features);
            guest.offer_room(0, parts);
            guest.notify(0);
            guest.arrive(&frame(100));
            assert_eq!(guest.received(), [frame(100)], "{parts:?}");
        }
    }
}

#[test]
fn tiny_buffers_are_merged_and_buffers_without_room_for_a_header_refused() {
    let mut guest = Guest::silent(feature::MRG_RXBUF);
    for _ in 0..200 {
        guest.offer_room(0, &[12]);
    }
    guest.notify(0);
    guest.arrive(&frame(1514));
    assert_eq!(guest.received(), [frame(1514)]);
    for len in [0, 1, 11] {
        for features in [0, feature::MRG_RXBUF] {
            let mut guest = Guest::silent(features);
            guest.give_room(len);
            assert!(guest.needs_reset(), "{len}");
            guest.start(features);
            guest.give_room(1526);
            guest.arrive(&frame(60));
            assert_eq!(guest.received(), [frame(60)]);
        }
    }
    // A chain that can only be read has none.
    let mut guest = Guest::silent(0);
    guest.add(0, &[Buffer::Readable(guest::DATA, 1526)]);
    guest.notify(0);
    assert!(
        guest.error().contains("no room for a header"),
        "{}",
        guest.error()
    );
}

#[test]
fn frames_wait_while_the_guest_has_no_buffers_and_come_when_it_has() {
    for features in [0, feature::MRG_RXBUF] {
        let mut guest = Guest::silent(features);
        for len in 60..70 {
            guest.arrive(&frame(len));
        }
        assert_eq!(guest.received(), [[0; 0]; 0]);
        // Once a buffer at a time, once all together.
        for len in 60..65 {
            guest.give_room(1526);
            assert_eq!(guest.received(), [frame(len)]);
        }
        for _ in 0..10 {
            guest.offer_room(0, &[1526]);
        }
        guest.notify(0);
        assert_eq!(guest.received().len(), 5);
        // What comes later finds the rest.
        guest.arrive(&frame(99));
        assert_eq!(guest.received(), [frame(99)]);
        assert_eq!(guest.stats().rx_dropped(), 0);
    }
}

#[test]
fn what_is_no_frame_is_dropped_and_counted_and_uses_no_buffer() {
    let mut guest = Guest::silent(0);
    guest.give_room(1526);
    for len in [0, 1, 11, 12, 25] {
        assert!(guest.backend().give(&headed(&frame(14))[..len]));
    }
    guest.arrive(&frame(14));
    assert_eq!(guest.stats().rx_too_short, 5);
    assert_eq!(guest.received(), [frame(14)]);
}

#[test]
fn a_buffer_outside_ram_makes_the_device_need_a_reset() {
    for features in [0, feature::MRG_RXBUF] {
        let mut guest = Guest::silent(features);
        guest.add(0, &[Buffer::Writable(guest::RAM - 4, 1526)]);
        guest.notify(0);
        guest.arrive(&frame(60));
        assert!(
            guest.error().contains("does not lie in RAM"),
            "{}",
            guest.error()
        );
        guest.start(features);
        guest.give_room(1526);
        guest.device.process_events();
        assert_eq!(guest.received(), [frame(60)]);
    }
}
