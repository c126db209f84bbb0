//! Buffers that are too small, cut up, in the wrong place; and drivers that come and go.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use goldcrest_virtio::driver::{Buffer, notify};
use goldcrest_virtio::{DeviceError, QueueError};
use goldcrest_virtio_vsock::spec::{HEADER_SIZE, op, queue, shutdown};
use goldcrest_virtio_vsock::{Header, MemoryHost, MemoryStream};
use guest::{Guest, data, header, pattern};
use vm_memory::{Bytes, GuestAddress};

const AT: u64 = 0x8_0000;
const NOWHERE: u64 = 1 << 40;

/// A stream from port 99 to port 1234, and no buffers to receive in.
fn connected() -> (Guest<MemoryHost>, MemoryStream, MemoryHost) {
    let (mut guest, host, _) = Guest::in_memory();
    guest.start(guest::FEATURES);
    host.listen(1234, 8, 1 << 20);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    guest.give(1, 4096);
    guest.receive.used().unwrap();
    let stream = host.accept(1234).unwrap();
    (guest, stream, host)
}

fn error(guest: &Guest<MemoryHost>) -> Option<&DeviceError> {
    guest.device.core().error()
}

#[test]
fn a_packet_is_the_same_however_the_room_for_it_is_cut_up() {
    for cuts in [
        vec![44, 5000],
        vec![4096, 948],
        vec![1; 100],
        vec![0, 43, 0, 1, 1, 0, 5000],
        vec![10, 20, 30, 40, 5000],
        vec![60; 90],
        [vec![44], vec![0; 100], vec![5000]].concat(),
        [vec![45], vec![0; 100], vec![5000]].concat(),
    ] {
        let (mut guest, stream, _) = connected();
        let sent = pattern(3000);
        stream.send(&sent);
        guest.device.process_events();
        let mut at = AT;
        let buffers: Vec<_> = cuts
            .iter()
            .map(|len| {
                at += u64::from(*len);
                Buffer::Writable(at - u64::from(*len), *len)
            })
            .collect();
        guest.receive.add(&buffers);
        notify(&mut guest.device, queue::RECEIVE);
        assert!(error(&guest).is_none());
        let (_, written) = guest.receive.used().unwrap();
        let mut bytes = vec![0; written as usize];
        guest
            .memory
            .read_slice(&mut bytes, GuestAddress(AT))
            .unwrap();
        let (head, payload) = bytes.split_at(HEADER_SIZE);
        let packet = Header::from_bytes(head.try_into().unwrap());
        assert_eq!((packet.op, packet.len as usize), (op::RW, payload.len()));
        // Of very many buffers the first are used.
        assert!(
            !payload.is_empty() && payload == &sent[..payload.len()],
            "{cuts:?}"
        );
        assert_eq!(stream.unsent(), sent.len() - payload.len());
    }
}

#[test]
fn a_packet_of_the_guest_may_be_cut_up_anyhow() {
    let (mut guest, stream, _) = connected();
    let payload = pattern(300);
    let mut bytes = data(99, 1234, &payload).to_bytes().to_vec();
    bytes.extend(&payload);
    guest.memory.write_slice(&bytes, GuestAddress(AT)).unwrap();
    for len in [1, 3, 43, 45, 100] {
        let starts = (0..bytes.len()).step_by(len);
        let buffers: Vec<_> = starts
            .map(|at| Buffer::Readable(AT + at as u64, len.min(bytes.len() - at) as u32))
            .collect();
        if buffers.len() > queue::SIZE as usize {
            continue;
        }
        guest.transmit.add(&buffers);
        notify(&mut guest.device, queue::TRANSMIT);
        assert_eq!(stream.receive(1000), payload, "{len}");
    }
}

#[test]
fn a_buffer_without_room_for_a_header_or_a_byte_makes_the_device_need_a_reset() {
    for (len, with_payload) in [(0, false), (43, false), (43, true), (44, true)] {
        let (mut guest, stream, host) = connected();
        if with_payload {
            stream.send(b"x");
        } else {
            host.connect(52, 100);
        }
        guest.device.process_events();
        guest.receive.add(&[Buffer::Writable(AT, len)]);
        notify(&mut guest.device, queue::RECEIVE);
        assert!(guest.needs_reset(), "{len}");
        guest.start(guest::FEATURES);
        guest.give(4, 4096);
        assert!(!guest.needs_reset());
        guest.send(&header(op::REQUEST, 99, 1234), &[]);
        assert_eq!(guest.ops(), [op::RESPONSE]);
    }
    // A header fits.
    let (mut guest, _, host) = connected();
    host.connect(52, 100);
    guest.device.process_events();
    guest.receive.add(&[Buffer::Writable(AT, 44)]);
    notify(&mut guest.device, queue::RECEIVE);
    assert!(!guest.needs_reset());
    assert_eq!(guest.receive.used().unwrap().1, 44);
}

#[test]
fn buffers_that_are_not_in_ram_make_the_device_need_a_reset() {
    for buffers in [
        vec![Buffer::Writable(NOWHERE, 4096)],
        vec![Buffer::Writable(AT, 44), Buffer::Writable(NOWHERE, 4096)],
        vec![
            Buffer::Writable(AT, 100),
            Buffer::Writable(u64::MAX - 10, 100),
        ],
    ] {
        let (mut guest, stream, _) = connected();
        stream.send(&pattern(1000));
        guest.device.process_events();
        guest.receive.add(&buffers);
        notify(&mut guest.device, queue::RECEIVE);
        let queue = queue::RECEIVE;
        assert!(
            matches!(error(&guest), Some(DeviceError::Queue { queue: q, source: QueueError::Buffer { .. } }) if *q == queue),
            "{buffers:?}: {:?}",
            error(&guest)
        );
    }
    let head = data(99, 1234, &[0; 100]).to_bytes();
    for payload in [NOWHERE, 0x800_0000 - 50] {
        for full in [false, true] {
            let (mut guest, stream, _) = connected();
            if full {
                let much = pattern(200_000);
                for _ in 0..6 {
                    guest.send(&data(99, 1234, &much), &much);
                }
                assert_eq!(stream.skip(0), 0);
            }
            guest.memory.write_slice(&head, GuestAddress(AT)).unwrap();
            let buffers = [Buffer::Readable(AT, 44), Buffer::Readable(payload, 100)];
            guest.transmit.add(&buffers);
            notify(&mut guest.device, queue::TRANSMIT);
            assert!(guest.needs_reset());
        }
    }
    let (mut guest, _, _) = connected();
    guest.transmit.add(&[Buffer::Readable(NOWHERE, 44)]);
    notify(&mut guest.device, queue::TRANSMIT);
    assert!(guest.needs_reset());
}

#[test]
fn streams_that_come_and_go_without_end_leave_nothing() {
    // No room to hear of any of it.
    let (mut guest, host, _) = Guest::in_memory_with(100);
    guest.start(guest::FEATURES);
    host.listen(1234, usize::MAX, 100);
    for round in 0..20_000_u32 {
        let port = round % 150;
        guest.send(&header(op::REQUEST, port, 1234), &[]);
        match round % 3 {
            0 => guest.send(&header(op::RST, port, 1234), &[]),
            1 => {
                let all = Header {
                    flags: shutdown::BOTH,
                    ..header(op::SHUTDOWN, port, 1234)
                };
                guest.send(&all, &[]);
            }
            _ => guest.send(&data(port, 1234, &[1; 200]), &[1; 200]),
        }
        while let Some(stream) = host.accept(1234) {
            if round % 7 == 0 {
                stream.close();
            }
        }
        assert!(guest.streams() <= 100);
    }
    guest.give(256, 4096);
    let mut packets = 0;
    loop {
        let some = guest.packets().len();
        packets += some;
        if some == 0 {
            break;
        }
    }
    assert!(packets < 1000, "{packets}");
}

#[test]
fn queues_may_be_reset_one_by_one() {
    let (mut guest, stream, _) = connected();
    stream.send(b"hello");
    guest.device.process_events();
    for index in [queue::RECEIVE, queue::TRANSMIT, queue::EVENT] {
        use goldcrest_virtio::driver::write;
        use goldcrest_virtio::spec::mmio;
        write(&mut guest.device, mmio::QUEUE_SEL, index.into());
        write(&mut guest.device, mmio::QUEUE_RESET, 1);
        guest.device.process_events();
    }
    assert!(!guest.needs_reset());
    assert_eq!(stream.unsent(), 5);
}
