//! Proves that streams in use allocate nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use allocation_counter::measure;
use goldcrest_virtio::driver::{Buffer, notify};
use goldcrest_virtio_vsock::Header;
use goldcrest_virtio_vsock::spec::{op, queue};
use guest::{Guest, header, unix};
use vm_memory::{Bytes, GuestAddress};

const LEN: usize = 60_000;
const AT: u64 = 0x8_0000;

#[test]
fn packets_both_ways_allocate_nothing_whether_or_not_the_host_takes_them_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(unix(folder.path()).build().unwrap());
    let listener = UnixListener::bind(folder.path().join("vsock_1")).unwrap();
    guest.start(guest::FEATURES);
    guest.give(1, 0x1_1000);
    guest.send(&header(op::REQUEST, 99, 1), &[]);
    let (mut stream, _) = listener.accept().unwrap();
    let (first, _) = guest.receive.used().unwrap();
    // The driver allocates to describe buffers, not to offer them.
    let mut packet = Header {
        len: LEN as u32,
        ..header(op::RW, 99, 1)
    };
    let head = guest
        .transmit
        .describe(&[Buffer::Readable(AT, 44 + LEN as u32)]);
    let mut bytes = vec![7; LEN];
    let mut taken = 0_u32;
    let mut round = || {
        // More than the socket takes, so that some is kept.
        for _ in 0..5 {
            packet.fwd_cnt = taken;
            let memory = &guest.memory;
            memory
                .write_slice(&packet.to_bytes(), GuestAddress(AT))
                .unwrap();
            guest.transmit.offer(head);
            notify(&mut guest.device, queue::TRANSMIT);
            guest.transmit.used().unwrap();
        }
        for _ in 0..5 {
            stream.read_exact(&mut bytes).unwrap();
            guest.device.process_events();
        }
        stream.write_all(&bytes).unwrap();
        guest.device.process_events();
        for _ in 0..10 {
            guest.receive.offer(first);
            notify(&mut guest.device, queue::RECEIVE);
            if let Some((_, written)) = guest.receive.used() {
                taken = taken.wrapping_add(written - 44);
            }
        }
    };
    round();
    round();
    let counted = measure(|| (0..20).for_each(|_| round()));
    assert_eq!(counted.count_total, 0);
    assert_eq!(taken as usize, 22 * LEN);
}
