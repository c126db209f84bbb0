//! A driver that does not keep to the rules, and disks that fail.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_blk::spec::{request, status};
use goldcrest_virtio_blk::{BlockConfig, MemoryDisk};
use guest::{DATA, Guest, RAM, ScriptedDisk, numbered};
use nix::libc;

const SECTOR: [Buffer; 1] = [Buffer::Writable(DATA, 512)];

#[test]
fn what_is_not_on_the_disk_is_an_io_error_and_nothing_is_touched() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)));
    guest.write(DATA, &[0x99; 1024]);
    for (kind, sector, data) in [
        (request::IN, 8, Buffer::Writable(DATA, 512)),
        (request::IN, 7, Buffer::Writable(DATA, 1024)),
        (request::IN, u64::MAX, Buffer::Writable(DATA, 512)),
        (request::IN, 1 << 55, Buffer::Writable(DATA, 512)),
        (request::IN, 0, Buffer::Writable(DATA, 511)),
        (request::IN, 0, Buffer::Readable(DATA, 512)),
        (request::OUT, 8, Buffer::Readable(DATA, 512)),
        (request::OUT, 0, Buffer::Readable(DATA, 100)),
        (request::OUT, 0, Buffer::Writable(DATA, 512)),
    ] {
        let answer = guest.run(kind, sector, &[data]);
        assert_eq!(answer, (status::IOERR, 1), "{kind} {sector:#x} {data:?}");
    }
    assert_eq!(guest.read(DATA, 1024), [0x99; 1024]);
    assert!(guest.disk().bytes() == numbered(8));
}

#[test]
fn what_it_does_not_know_is_unsupported() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)));
    for kind in [2, 3, 5, 10, 14, 0x8000_0000, u32::MAX] {
        let answer = guest.run(kind, 0, &SECTOR);
        assert_eq!(answer, (status::UNSUPP, 1), "{kind}");
    }
}

#[test]
fn data_outside_of_ram_fails_its_own_request_only() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)));
    for address in [RAM - 100, RAM, u64::MAX - 100, 1 << 63] {
        for (kind, data) in [
            (request::IN, Buffer::Writable(address, 512)),
            (request::OUT, Buffer::Readable(address, 512)),
            (request::GET_ID, Buffer::Writable(address.max(RAM - 19), 20)),
            (request::DISCARD, Buffer::Readable(address.max(RAM), 16)),
        ] {
            let answer = guest.run(kind, 0, &[data]);
            assert_eq!(answer, (status::IOERR, 1), "{kind} {address:#x}");
        }
    }
    assert!(!guest.needs_reset());
    assert_eq!(guest.run(request::IN, 7, &SECTOR), (status::OK, 513));
}

#[test]
fn a_request_that_cannot_be_answered_needs_a_reset_which_mends_it() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)).deferred());
    let header = guest.header(request::IN, 0);
    for buffers in [
        // No status byte.
        vec![Buffer::Readable(header, 16)],
        vec![Buffer::Readable(header, 16), Buffer::Writable(DATA, 0)],
        // A header that is short, missing, or not in RAM.
        vec![Buffer::Readable(header, 15), Buffer::Writable(DATA, 1)],
        vec![Buffer::Writable(DATA, 600)],
        vec![Buffer::Readable(RAM - 15, 16), Buffer::Writable(DATA, 1)],
        // A status byte that is not in RAM.
        vec![Buffer::Readable(header, 16), Buffer::Writable(RAM, 1)],
        vec![
            Buffer::Readable(header, 16),
            Buffer::Writable(u64::MAX - 513, 513),
        ],
        // A direction after the other.
        vec![Buffer::Writable(DATA, 600), Buffer::Readable(header, 16)],
    ] {
        // One before it is under way meanwhile.
        guest.submit(0, request::IN, 1, &SECTOR);
        guest.queues[0].add(&buffers);
        guest.notify(0);
        assert!(guest.needs_reset(), "{buffers:?}");
        let seen = guest.queues[0].used_index();
        assert!(guest.waits().is_empty());
        guest.submit(0, request::IN, 1, &SECTOR);
        guest.notify(0);
        guest.device.process_events();
        assert_eq!(guest.queues[0].used_index(), seen);

        guest.initialise(0);
        assert!(!guest.needs_reset());
        assert_eq!(guest.run(request::IN, 7, &SECTOR), (status::OK, 513));
        assert_eq!(guest.read(DATA, 512), [8; 512]);
    }
}

#[test]
fn a_chain_that_is_under_way_cannot_be_made_available_again() {
    let disk = ScriptedDisk::default();
    disk.script().pending = true;
    let mut guest = Guest::new(disk.clone());
    let head = guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert_eq!(disk.script().under_way.len(), 1);
    guest.queues[0].offer(head);
    guest.notify(0);
    assert!(guest.needs_reset());
    // It has given up what was under way: nothing touches guest RAM behind the driver's back.
    assert!(disk.script().under_way.is_empty());
    assert!(guest.answers(0).is_empty());
}

#[test]
fn the_same_buffers_in_several_requests_do_no_harm() {
    for disk in [
        MemoryDisk::new(numbered(8)),
        MemoryDisk::new(numbered(8)).deferred(),
    ] {
        let mut guest = Guest::new(disk);
        let header = guest.header(request::IN, 5);
        // The status byte lies in the data, and all requests share both.
        let buffers = [
            Buffer::Readable(header, 16),
            Buffer::Writable(DATA, 512),
            Buffer::Writable(DATA + 256, 512),
            Buffer::Writable(DATA + 100, 1),
        ];
        for _ in 0..10 {
            guest.offer(0, &buffers, DATA + 100);
        }
        guest.notify(0);
        let answers = guest.answers(0);
        assert_eq!(answers.len(), 10);
        assert!(
            answers
                .iter()
                .all(|a| (a.status, a.written) == (status::OK, 1025))
        );
        assert_eq!(guest.read(DATA + 256, 512), [7; 512]);
    }
}

#[test]
fn what_the_disk_fails_is_an_io_error_and_the_chain_is_given_back() {
    for pending in [false, true] {
        let disk = ScriptedDisk::default();
        let mut guest = Guest::new(disk.clone());
        for (kind, name, errno, data) in [
            (
                request::OUT,
                "write",
                libc::ENOSPC,
                Buffer::Readable(DATA, 512),
            ),
            (request::IN, "read", libc::EIO, Buffer::Writable(DATA, 512)),
            (
                request::FLUSH,
                "flush",
                libc::EIO,
                Buffer::Readable(DATA, 0),
            ),
        ] {
            disk.script().errors.insert(name, errno);
            disk.script().pending = pending;
            // More than the queue has entries: none is lost.
            for _ in 0..200 {
                let head = guest.submit(0, kind, 0, &[data]);
                guest.notify(0);
                if pending {
                    assert!(guest.answers(0).is_empty());
                    disk.script().end(0, Err(errno));
                    guest.device.process_events();
                }
                let answer = guest.answers(0)[0];
                assert_eq!(answer.head, head);
                assert_eq!((answer.status, answer.written), (status::IOERR, 1));
            }
            disk.script().errors.clear();
            disk.script().pending = false;
            assert_eq!(guest.run(kind, 0, &[data]).0, status::OK);
        }
        assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 0);
    }
}

#[test]
fn a_driver_that_adds_without_end_does_not_keep_the_device() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(8)));
    for _ in 0..85 {
        guest.submit(0, request::IN, 0, &SECTOR);
    }
    // More is claimed to be available than a queue can hold.
    let queue = &mut guest.queues[0];
    queue.set_available(queue.available.wrapping_add(400));
    guest.notify(0);
    assert!(guest.needs_reset());
    assert!(guest.answers(0).is_empty());
}

#[test]
fn a_queue_that_does_not_exist_is_not_served() {
    let config = BlockConfig {
        queues: 2,
        ..BlockConfig::default()
    };
    let mut guest = Guest::configured(MemoryDisk::new(numbered(8)), &config);
    for queue in [2, 255, u16::MAX] {
        guest.notify(queue);
    }
    assert_eq!(guest.device.core().misuses(), 3);
    assert_eq!(guest.run(request::IN, 7, &SECTOR), (status::OK, 513));
}
