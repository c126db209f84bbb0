//! Streams between a guest and programs in memory: how they begin, flow and end.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::time::Duration;

use goldcrest_virtio::driver::{notify, offered_features, read};
use goldcrest_virtio::spec::{device_id, feature as transport, mmio};
use goldcrest_virtio_vsock::spec::{cid, feature, op, queue, shutdown};
use goldcrest_virtio_vsock::{Header, MemoryHost, MemoryStream};
use guest::{CID, Guest, data, header, pattern};

/// A stream that the guest has asked for, from port 99 to port 1234.
fn connected() -> (Guest<MemoryHost>, MemoryStream) {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 1 << 20);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    assert_eq!(guest.packet().0.op, op::RESPONSE);
    let stream = host.accept(1234).unwrap();
    (guest, stream)
}

/// A stream that a program has asked for, to port 52. The host's port by which the guest knows it, too.
fn accepted() -> (Guest<MemoryHost>, MemoryStream, u32) {
    let (mut guest, host, _) = Guest::in_memory();
    let stream = host.connect(52, 1 << 20);
    guest.device.process_events();
    let (request, _) = guest.packet();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 52));
    assert_eq!(stream.accepted(), None);
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    assert_eq!(stream.accepted(), Some(request.src_port));
    (guest, stream, request.src_port)
}

#[test]
fn a_driver_finds_a_socket_device_with_its_cid() {
    let (mut guest, _, _) = Guest::in_memory();
    assert_eq!(read(&mut guest.device, mmio::DEVICE_ID), device_id::SOCKET);
    let offered = offered_features(&mut guest.device) & 0xff_ffff;
    assert_eq!(offered, feature::STREAM | feature::NO_IMPLIED_STREAM);
    let config = [0, 4].map(|at| read(&mut guest.device, mmio::CONFIG + at));
    assert_eq!(config, [CID as u32, 0]);
}

#[test]
fn a_guest_connects_and_bytes_go_both_ways() {
    let (mut guest, stream) = connected();
    guest.send(&data(99, 1234, b"hello"), b"hello");
    assert_eq!(stream.receive(100), b"hello");
    stream.send(b"world");
    guest.device.process_events();
    let (packet, payload) = guest.packet();
    assert_eq!((packet.op, payload.as_slice()), (op::RW, &b"world"[..]));
    assert_eq!((packet.src_cid, packet.dst_cid), (cid::HOST, CID));
    assert_eq!((packet.src_port, packet.dst_port), (1234, 99));
    assert_eq!(packet.fwd_cnt, 5);
    assert!(packet.buf_alloc >= 8192);
}

#[test]
fn a_program_connects_and_bytes_go_both_ways() {
    let (mut guest, stream, port) = accepted();
    assert!((1 << 30..1 << 31).contains(&port));
    stream.send(b"hello");
    guest.device.process_events();
    assert_eq!(guest.packet().1, b"hello");
    guest.send(&data(52, port, b"world"), b"world");
    assert_eq!(stream.receive(100), b"world");
}

#[test]
fn a_port_that_nobody_listens_on_is_refused() {
    let (mut guest, _, _) = Guest::in_memory();
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let (packet, _) = guest.packet();
    assert_eq!((packet.op, packet.src_port), (op::RST, 1234));
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_program_that_the_guest_refuses_is_disconnected() {
    let (mut guest, host, _) = Guest::in_memory();
    let stream = host.connect(52, 100);
    guest.device.process_events();
    let (request, _) = guest.packet();
    guest.send(&header(op::RST, 52, request.src_port), &[]);
    assert!(stream.is_closed());
    assert_eq!(stream.accepted(), None);
    assert_eq!(guest.streams(), 0);
    assert!(guest.all_packets().is_empty());
}

#[test]
fn a_program_that_the_guest_never_answers_is_disconnected_after_a_time() {
    let (mut guest, host, clock) = Guest::in_memory();
    let stream = host.connect(52, 100);
    guest.device.process_events();
    let (request, _) = guest.packet();
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(8)));
    clock.advance(Duration::from_secs(8));
    guest.device.process_events();
    assert!(stream.is_closed());
    let (reset, _) = guest.packet();
    assert_eq!((reset.op, reset.src_port), (op::RST, request.src_port));
    assert_eq!(guest.streams(), 0);
    // An answer that comes now is too late.
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    assert_eq!(guest.ops(), [op::RST]);
}

#[test]
fn a_program_whose_request_the_guest_had_no_room_for_leaves_no_trace() {
    let (mut guest, host, clock) = Guest::in_memory();
    guest.start(guest::FEATURES);
    let stream = host.connect(52, 100);
    guest.device.process_events();
    clock.advance(Duration::from_secs(8));
    guest.device.process_events();
    assert!(stream.is_closed());
    guest.give(10, 4096);
    assert!(guest.all_packets().is_empty());
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_host_without_room_for_a_connection_is_tried_again_and_does_not_keep_the_device() {
    let (mut guest, host, clock) = Guest::in_memory();
    host.listen(1234, 1, 100);
    guest.send(&header(op::REQUEST, 98, 1234), &[]);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    guest.send(&header(op::REQUEST, 97, 1234), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(10)));
    guest.device.process_events();
    assert!(guest.all_packets().is_empty(), "it is not time yet");
    host.accept(1234).unwrap();
    clock.advance(Duration::from_millis(10));
    guest.device.process_events();
    let (packet, _) = guest.packet();
    assert_eq!((packet.op, packet.dst_port), (op::RESPONSE, 99));
    // Nobody accepts that one.
    clock.advance(Duration::from_secs(2));
    guest.device.process_events();
    let (packet, _) = guest.packet();
    assert_eq!((packet.op, packet.dst_port), (op::RST, 97));
    assert_eq!(guest.streams(), 2);
    assert!(guest.waits().is_empty());
}

#[test]
fn more_streams_than_there_may_be_are_refused() {
    let (mut guest, host, _) = Guest::in_memory_with(3);
    host.listen(1, 10, 100);
    for port in 0..5 {
        guest.send(&header(op::REQUEST, port, 1), &[]);
    }
    let late = host.connect(52, 100);
    guest.device.process_events();
    let mut ops = guest.ops();
    ops.sort_unstable();
    let [yes, no] = [op::RESPONSE, op::RST];
    assert_eq!(ops, [yes, yes, yes, no, no]);
    assert!(late.is_closed());
    // One goes, another may come.
    guest.send(&header(op::RST, 0, 1), &[]);
    guest.send(&header(op::REQUEST, 4, 1), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
}

#[test]
fn what_the_host_does_not_take_is_kept_and_the_guest_hears_when_there_is_room_again() {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 10_000);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let (response, _) = guest.packet();
    let stream = host.accept(1234).unwrap();
    let sent = pattern(10_000 + response.buf_alloc as usize);
    for piece in sent.chunks(10_000) {
        guest.send(&data(99, 1234, piece), piece);
    }
    assert!(guest.all_packets().is_empty());
    let mut got = Vec::new();
    let mut told = 0;
    while got.len() < sent.len() {
        got.extend(stream.receive(4_321));
        guest.device.process_events();
        for (packet, _) in guest.all_packets() {
            assert_eq!(packet.op, op::CREDIT_UPDATE);
            assert_eq!(
                packet.fwd_cnt as usize,
                got.len() + 10_000.min(sent.len() - got.len())
            );
            told += 1;
        }
    }
    assert!(got == sent);
    assert!((1..5).contains(&told), "{told}");
}

#[test]
fn more_than_there_is_room_for_resets_the_stream() {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 0);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let (response, _) = guest.packet();
    let stream = host.accept(1234).unwrap();
    let whole = pattern(response.buf_alloc as usize);
    guest.send(&data(99, 1234, &whole), &whole);
    assert!(guest.all_packets().is_empty());
    guest.send(&data(99, 1234, b"x"), b"x");
    assert_eq!(guest.ops(), [op::RST]);
    assert!(stream.is_closed());
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_question_for_room_is_answered() {
    let (mut guest, stream) = connected();
    guest.send(&data(99, 1234, &[7; 100]), &[7; 100]);
    guest.send(&header(op::CREDIT_REQUEST, 99, 1234), &[]);
    let (packet, _) = guest.packet();
    assert_eq!((packet.op, packet.fwd_cnt), (op::CREDIT_UPDATE, 100));
    assert_eq!(stream.skip(200), 100);
}

#[test]
fn a_guest_gets_no_more_than_it_has_room_for() {
    let (mut guest, stream) = connected();
    stream.send(&pattern(100_000));
    let room = |room, taken| Header {
        buf_alloc: room,
        fwd_cnt: taken,
        ..header(op::CREDIT_UPDATE, 99, 1234)
    };
    guest.send(&room(10_000, 0), &[]);
    guest.device.process_events();
    let got = |guest: &mut Guest<_>| {
        let packets = guest.all_packets();
        packets
            .iter()
            .map(|(_, payload)| payload.len())
            .sum::<usize>()
    };
    // Two buffers full: for what room is left then, a packet would be too small.
    assert_eq!(got(&mut guest), 8_104);
    guest.device.process_events();
    assert_eq!(got(&mut guest), 0);
    guest.send(&room(10_000, 6_000), &[]);
    assert_eq!(got(&mut guest), 4_052);
    // It claims to have taken more than it got.
    guest.send(&room(10_000, 12_157), &[]);
    assert_eq!(got(&mut guest), 0);
    guest.send(&room(0, 12_156), &[]);
    assert_eq!(got(&mut guest), 0);
    assert_eq!(stream.unsent(), 100_000 - 12_156);
}

#[test]
fn a_guest_without_room_is_asked_ever_less_often() {
    let (mut guest, host, clock) = Guest::in_memory();
    let stream = host.connect(52, 100);
    guest.device.process_events();
    let (request, _) = guest.packet();
    let silent = Header {
        buf_alloc: 0,
        ..header(op::RESPONSE, 52, request.src_port)
    };
    stream.send(b"bytes");
    guest.send(&silent, &[]);
    guest.device.process_events();
    let mut asked = Vec::new();
    let mut turns = 0;
    while clock.now_seconds() < 20 {
        let ops = guest.ops();
        asked.extend(ops.iter().map(|_| clock.now_seconds()));
        assert!(ops.iter().all(|op| *op == op::CREDIT_REQUEST));
        clock.advance(guest.waits().delay.unwrap());
        guest.device.process_events();
        turns += 1;
    }
    assert!((10..25).contains(&asked.len()), "{asked:?}");
    assert!(turns < 30, "{turns}");
    // It has room after all.
    guest.send(&header(op::CREDIT_UPDATE, 52, request.src_port), &[]);
    let packets = guest.all_packets();
    assert_eq!(packets.last().unwrap().1, b"bytes");
    assert!(guest.waits().is_empty());
}

trait Seconds {
    fn now_seconds(&self) -> u64;
}

impl Seconds for goldcrest_rate_limiter::ManualClock {
    fn now_seconds(&self) -> u64 {
        goldcrest_rate_limiter::Clock::now(self).as_secs()
    }
}

#[test]
fn streams_take_turns() {
    let (mut guest, host, _) = Guest::in_memory();
    let streams: Vec<_> = (0..4).map(|_| host.connect(52, 100)).collect();
    guest.device.process_events();
    for (request, _) in guest.all_packets() {
        guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    }
    for stream in &streams {
        stream.send(&pattern(30_000));
    }
    guest.device.process_events();
    let packets = guest.all_packets();
    let ports: Vec<_> = packets.iter().map(|(packet, _)| packet.src_port).collect();
    for turn in ports[..16].chunks(4) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        turn.dedup();
        assert_eq!(turn.len(), 4, "{ports:?}");
    }
}

#[test]
fn a_program_that_ends_sending_may_still_receive() {
    let (mut guest, stream) = connected();
    stream.send(b"question");
    stream.end_sending();
    guest.device.process_events();
    let packets = guest.all_packets();
    assert_eq!(packets[0].1, b"question");
    assert_eq!(packets[1].0.op, op::SHUTDOWN);
    assert_eq!(packets[1].0.flags, shutdown::SEND);
    assert_eq!(packets.len(), 2);
    guest.send(&data(99, 1234, b"answer"), b"answer");
    assert_eq!(stream.receive(100), b"answer");
    let all = Header {
        flags: shutdown::BOTH,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&all, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    assert!(stream.is_closed());
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_guest_that_ends_sending_may_still_receive() {
    let (mut guest, stream) = connected();
    guest.send(&data(99, 1234, b"question"), b"question");
    let end = Header {
        flags: shutdown::SEND,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&end, &[]);
    assert!(stream.has_ended() && !stream.is_closed());
    assert_eq!(stream.receive(100), b"question");
    stream.send(b"answer");
    stream.close();
    guest.device.process_events();
    let packets = guest.all_packets();
    // That the program receives no more is said at once, that it sends no more after what it has sent.
    let flags = [shutdown::RECEIVE, 0, shutdown::BOTH];
    let got: Vec<_> = packets.iter().map(|(packet, _)| packet.flags).collect();
    assert_eq!(got, flags);
    assert_eq!(packets[1].1, b"answer");
    guest.send(&header(op::RST, 99, 1234), &[]);
    assert_eq!(guest.streams(), 0);
    assert!(guest.all_packets().is_empty(), "a RST is not answered");
}

#[test]
fn a_guest_that_receives_no_more_gets_no_more() {
    let (mut guest, stream) = connected();
    let end = Header {
        flags: shutdown::RECEIVE,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&end, &[]);
    assert!(stream.is_refused() && !stream.has_ended());
    stream.send(b"what nobody reads");
    guest.device.process_events();
    assert!(guest.all_packets().is_empty());
    guest.send(&data(99, 1234, b"more"), b"more");
    assert_eq!(stream.receive(100), b"more");
}

#[test]
fn flags_of_shutdowns_add_up() {
    let (mut guest, stream) = connected();
    for flags in [shutdown::SEND, 0, 0xffff_fff0, shutdown::RECEIVE] {
        assert!(guest.all_packets().is_empty() && !stream.is_closed());
        let header = Header {
            flags,
            ..header(op::SHUTDOWN, 99, 1234)
        };
        guest.send(&header, &[]);
    }
    assert_eq!(guest.ops(), [op::RST]);
    assert!(stream.is_closed());
}

#[test]
fn payload_after_the_end_resets_the_stream() {
    let (mut guest, stream) = connected();
    let end = Header {
        flags: shutdown::SEND,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&end, &[]);
    guest.send(&data(99, 1234, b"x"), b"x");
    assert_eq!(guest.ops(), [op::RST]);
    assert!(stream.is_closed());
}

#[test]
fn what_the_guest_sent_before_it_closed_reaches_the_host_and_the_guest_need_not_wait_for_that() {
    let (mut guest, host, clock) = Guest::in_memory();
    host.listen(1234, 8, 1_000);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let stream = host.accept(1234).unwrap();
    let sent = pattern(5_000);
    guest.send(&data(99, 1234, &sent), &sent);
    let all = Header {
        flags: shutdown::BOTH,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&all, &[]);
    assert_eq!(guest.ops(), [op::RESPONSE, op::RST]);
    assert_eq!(guest.streams(), 1, "it has bytes left");
    // The name is free for another stream meanwhile.
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    let other = host.accept(1234).unwrap();
    guest.send(&data(99, 1234, b"other"), b"other");
    assert_eq!(other.receive(100), b"other");
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(stream.receive(1_000));
        clock.advance(Duration::from_secs(7));
        guest.device.process_events();
    }
    assert!(got == sent);
    assert!(stream.is_closed() && !other.is_closed());
    assert_eq!(guest.streams(), 1);
    assert!(guest.all_packets().is_empty());
}

#[test]
fn a_program_that_does_not_take_what_is_left_is_not_waited_for_without_end() {
    let (mut guest, host, clock) = Guest::in_memory();
    host.listen(1234, 8, 1_000);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let stream = host.accept(1234).unwrap();
    guest.send(&data(99, 1234, &[1; 5_000]), &[1; 5_000]);
    let all = Header {
        flags: shutdown::BOTH,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&all, &[]);
    assert_eq!(guest.ops(), [op::RESPONSE, op::RST]);
    clock.advance(guest.waits().delay.unwrap());
    guest.device.process_events();
    assert!(stream.is_closed());
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_program_that_dies_ends_the_stream_after_what_it_sent() {
    let (mut guest, stream) = connected();
    stream.send(b"last words");
    stream.close();
    guest.device.process_events();
    let packets = guest.all_packets();
    let got: Vec<_> = packets.iter().map(|(p, _)| (p.op, p.flags)).collect();
    let expected = [
        (op::SHUTDOWN, shutdown::RECEIVE),
        (op::RW, 0),
        (op::SHUTDOWN, shutdown::BOTH),
    ];
    assert_eq!(got, expected);
    assert!(stream.is_closed());
    // What the guest sent before it heard of that is dropped, not answered.
    guest.send(&data(99, 1234, b"crossing"), b"crossing");
    assert!(guest.all_packets().is_empty());
    guest.send(&header(op::RST, 99, 1234), &[]);
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_guest_that_does_not_agree_to_the_end_is_told_so_after_a_time() {
    let (mut guest, host, clock) = Guest::in_memory();
    host.listen(1234, 8, 100);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    host.accept(1234).unwrap().close();
    guest.device.process_events();
    assert_eq!(guest.ops(), [op::RESPONSE, op::SHUTDOWN, op::SHUTDOWN]);
    clock.advance(Duration::from_secs(7));
    guest.device.process_events();
    assert!(guest.all_packets().is_empty());
    clock.advance(Duration::from_secs(1));
    guest.device.process_events();
    assert_eq!(guest.ops(), [op::RST]);
    assert_eq!(guest.streams(), 0);
    assert!(guest.waits().is_empty());
}

#[test]
fn both_may_close_at_the_same_time() {
    let (mut guest, stream) = connected();
    stream.close();
    let all = Header {
        flags: shutdown::BOTH,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.device.process_events();
    // The guest's crosses ours.
    guest.send(&all, &[]);
    let ops = guest.ops();
    assert_eq!(ops.last(), Some(&op::RST));
    guest.send(&header(op::RST, 99, 1234), &[]);
    assert!(guest.all_packets().is_empty());
    assert_eq!(guest.streams(), 0);
}

#[test]
fn a_name_that_is_used_again_before_its_end_was_heard_is_not_ended_by_it() {
    // The guest has no room to hear of the end of its first stream.
    let (mut guest, host, _) = Guest::in_memory();
    guest.start(guest::FEATURES);
    host.listen(1234, 8, 100);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let all = Header {
        flags: shutdown::BOTH,
        ..header(op::SHUTDOWN, 99, 1234)
    };
    guest.send(&all, &[]);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    let first = host.accept(1234).unwrap();
    let second = host.accept(1234).unwrap();
    assert!(first.is_closed() && !second.is_closed());
    guest.give(10, 4096);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    // Nor is one by the answer to a packet that belonged to none.
    guest.start(guest::FEATURES);
    guest.send(&data(99, 1234, b"stale"), b"stale");
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    guest.give(10, 4096);
    assert_eq!(guest.ops(), [op::RESPONSE]);
}

#[test]
fn a_reset_of_a_stream_that_is_none_is_not_answered() {
    let (mut guest, _, _) = Guest::in_memory();
    guest.send(&header(op::RST, 99, 1234), &[]);
    let elsewhere = Header {
        dst_cid: 9,
        ..header(op::RST, 99, 1234)
    };
    guest.send(&elsewhere, &[]);
    let strange = Header {
        kind: 77,
        ..header(op::RST, 99, 1234)
    };
    guest.send(&strange, &[]);
    assert!(guest.all_packets().is_empty());
}

#[test]
fn packets_of_no_stream_are_answered_by_a_reset() {
    let (mut guest, _, _) = Guest::in_memory();
    for op in [
        op::RESPONSE,
        op::SHUTDOWN,
        op::RW,
        op::CREDIT_UPDATE,
        op::CREDIT_REQUEST,
        0,
        8,
        0xffff,
    ] {
        guest.send(&header(op, 99, 1234), &[]);
        let (packet, _) = guest.packet();
        assert_eq!(packet.op, op::RST);
        assert_eq!((packet.src_port, packet.dst_port), (1234, 99));
        assert_eq!((packet.src_cid, packet.dst_cid), (cid::HOST, CID));
    }
}

#[test]
fn packets_that_make_no_sense_in_a_stream_reset_it() {
    for op in [op::REQUEST, op::RESPONSE, 0, 8, 0xffff] {
        let (mut guest, stream) = connected();
        guest.send(&header(op, 99, 1234), &[]);
        assert_eq!(guest.ops(), [op::RST], "{op}");
        assert!(stream.is_closed());
        assert_eq!(guest.streams(), 0);
    }
    for op in [op::REQUEST, op::RW, op::SHUTDOWN, op::CREDIT_REQUEST] {
        let (mut guest, host, _) = Guest::in_memory();
        let stream = host.connect(52, 100);
        guest.device.process_events();
        let (request, _) = guest.packet();
        guest.send(&header(op, 52, request.src_port), &[]);
        assert_eq!(guest.ops(), [op::RST], "{op}");
        assert!(stream.is_closed() && stream.accepted().is_none());
    }
}

#[test]
fn types_and_addresses_that_are_not_there_are_answered_by_a_reset() {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 100);
    for kind in [0, 2, 3, 0xffff] {
        let request = Header {
            kind,
            ..header(op::REQUEST, 99, 1234)
        };
        guest.send(&request, &[]);
        let (packet, _) = guest.packet();
        assert_eq!((packet.op, packet.kind), (op::RST, kind));
    }
    for dst_cid in [0, 1, 3, CID, 0xffff_ffff] {
        let request = Header {
            dst_cid,
            ..header(op::REQUEST, 99, 1234)
        };
        guest.send(&request, &[]);
        let (packet, _) = guest.packet();
        assert_eq!((packet.op, packet.src_cid), (op::RST, dst_cid));
    }
    assert_eq!(guest.ignored(), 0);
}

#[test]
fn packets_from_others_and_short_ones_are_ignored_and_counted() {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 100);
    for (src_cid, dst_cid) in [
        (0, 2),
        (2, 2),
        (CID + 1, 2),
        (CID | 1 << 32, 2),
        (CID, 1 << 32 | 2),
    ] {
        let request = Header {
            src_cid,
            dst_cid,
            ..header(op::REQUEST, 99, 1234)
        };
        guest.send(&request, &[]);
    }
    assert_eq!(guest.ignored(), 5);
    guest
        .transmit
        .add(&[goldcrest_virtio::driver::Buffer::Readable(0x1_0000, 43)]);
    guest
        .transmit
        .add(&[goldcrest_virtio::driver::Buffer::Writable(0x1_0000, 100)]);
    notify(&mut guest.device, queue::TRANSMIT);
    assert_eq!(guest.ignored(), 7);
    assert!(guest.all_packets().is_empty());
    assert!(!guest.needs_reset());
}

#[test]
fn payload_that_is_shorter_than_its_header_says_resets_its_stream() {
    for len in [6, 65_537, u32::MAX] {
        let (mut guest, stream) = connected();
        let lie = Header {
            len,
            ..header(op::RW, 99, 1234)
        };
        guest.send(&lie, b"short");
        assert_eq!(guest.ops(), [op::RST]);
        assert!(stream.receive(100).is_empty() && stream.is_closed());
    }
    // Buffers may be longer than what is in them.
    let (mut guest, stream) = connected();
    let header = Header {
        len: 4,
        ..header(op::RW, 99, 1234)
    };
    guest.send(&header, b"long enough");
    assert_eq!(stream.receive(100), b"long");
}

#[test]
fn a_driver_without_streams_gets_none() {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 100);
    let version = transport::VERSION_1;
    for (features, answer) in [
        (version, op::RESPONSE),
        (version | feature::STREAM, op::RESPONSE),
        (version | feature::NO_IMPLIED_STREAM, op::RST),
    ] {
        guest.start(features);
        guest.give(8, 4096);
        guest.send(&header(op::REQUEST, 99, 1234), &[]);
        assert_eq!(guest.ops(), [answer], "{features:#x}");
    }
}

#[test]
fn answers_wait_for_room_and_then_the_guests_packets_do() {
    let (mut guest, host, _) = Guest::in_memory();
    guest.start(guest::FEATURES);
    host.listen(1234, 1000, 100);
    // The same stream is refused once.
    for _ in 0..100 {
        guest.send(&header(op::RW, 1, 1), &[]);
    }
    assert_eq!(guest.waiting(), 0);
    for port in 2..300 {
        guest.send(&header(op::RW, port, 1), &[]);
    }
    assert_eq!(guest.waiting(), 299 - 256);
    // Nor does a stream begin meanwhile.
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    assert_eq!(guest.streams(), 0);
    guest.give(200, 4096);
    assert_eq!(guest.waiting(), 0, "both go on at once");
    let ops = guest.ops();
    assert_eq!(ops.len(), 300);
    assert_eq!(ops.iter().filter(|op| **op == op::RST).count(), 299);
}

#[test]
fn what_the_guest_has_no_room_for_stays_with_the_host() {
    let (mut guest, host, _) = Guest::in_memory();
    guest.start(guest::FEATURES);
    let stream = host.connect(52, 100);
    stream.send(&pattern(10_000));
    guest.device.process_events();
    guest.give(1, 4096);
    let (_, (request, _)) = guest.take_kept().remove(0);
    guest.send(&header(op::RESPONSE, 52, request.src_port), &[]);
    guest.device.process_events();
    assert_eq!(stream.unsent(), 10_000);
    guest.give(1, 4096);
    assert_eq!(guest.take_kept()[0].1.1, pattern(4096 - 44));
    assert_eq!(stream.unsent(), 10_000 - 4096 + 44);
    guest.give(10, 0x1_0000);
    let rest = guest.take_kept();
    assert_eq!(rest.len(), 1, "as much as there is room for in one");
    assert!(guest.waits().is_empty());
}
