//! A driver makes requests of a disk in a file, with io_uring where the host has it, and without.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::os::unix::fs::FileExt;

use goldcrest_virtio::driver::{self, Buffer};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_blk::spec::{feature, request, status};
use goldcrest_virtio_blk::{
    Access, Backend, Block, BlockConfig, DiskError, FileDisk, FileDiskConfig,
};
use guest::{DATA, Guest, numbered};
use tempfile::NamedTempFile;

const SECTORS: usize = 256;

/// Guests with disks of every kind that the host has.
fn guests(
    config: &BlockConfig,
    without: u64,
) -> Vec<(&'static str, Guest<FileDisk>, NamedTempFile)> {
    let mut guests = Vec::new();
    for (name, direct, io_uring) in [
        ("waiting", false, false),
        ("ring", false, true),
        ("direct", true, false),
        ("direct ring", true, true),
    ] {
        let image = NamedTempFile::new().unwrap();
        image.as_file().write_all_at(&numbered(SECTORS), 0).unwrap();
        let file = FileDiskConfig {
            direct,
            io_uring,
            ..FileDiskConfig::new(image.path())
        };
        let disk = match FileDisk::open(file) {
            Ok(disk) => disk,
            Err(error @ DiskError::Direct { .. }) => {
                println!("skipped {name}: {error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let guest = Guest::with(Block::new(disk, config).unwrap(), without);
        if let Access::Waiting(Some(why)) = guest.disk().access() {
            println!("{name} without io_uring: {why}");
        }
        guests.push((name, guest, image));
    }
    guests
}

#[test]
fn every_kind_of_request_does_in_the_file_what_it_says() {
    for (name, mut guest, image) in guests(&BlockConfig::default(), 0) {
        // A block that direct disks can move as it is, and one that they cannot.
        for (at, len) in [(DATA, 4096), (DATA + 512, 1024)] {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 253) as u8 | 1).collect();
            guest.write(at, &bytes);
            let write = [Buffer::Readable(at, len)];
            assert_eq!(
                guest.run(request::OUT, 16, &write),
                (status::OK, 1),
                "{name}"
            );
            assert_eq!(guest.run(request::FLUSH, 0, &[]), (status::OK, 1), "{name}");
            let mut inside = vec![0; len as usize];
            image
                .as_file()
                .read_exact_at(&mut inside, 16 * 512)
                .unwrap();
            assert_eq!(inside, bytes, "{name}");
            guest.write(at, &vec![0; len as usize]);
            let read = [Buffer::Writable(at, len)];
            assert_eq!(
                guest.run(request::IN, 16, &read),
                (status::OK, len + 1),
                "{name}"
            );
            assert_eq!(guest.read(at, len as usize), bytes, "{name}");
        }
        for kind in [request::DISCARD, request::WRITE_ZEROES] {
            let mut range = [0; 16];
            (range[0], range[8]) = (if kind == request::DISCARD { 32 } else { 40 }, 8);
            guest.write(DATA, &range);
            let one = [Buffer::Readable(DATA, 16)];
            assert_eq!(guest.run(kind, 0, &one), (status::OK, 1), "{name}");
        }
        let mut inside = [1; 4096];
        image
            .as_file()
            .read_exact_at(&mut inside, 40 * 512)
            .unwrap();
        assert_eq!(inside, [0; 4096], "{name}");
        // What is not RAM, and what the file no longer has.
        let outside = [Buffer::Writable(guest::RAM - 512, 1024)];
        assert_eq!(
            guest.run(request::IN, 0, &outside),
            (status::IOERR, 1),
            "{name}"
        );
        image.as_file().set_len(4096).unwrap();
        let read = [Buffer::Writable(DATA, 4096)];
        assert_eq!(
            guest.run(request::IN, 100, &read),
            (status::IOERR, 1),
            "{name}"
        );
        assert_eq!(
            guest.run(request::IN, 0, &read),
            (status::OK, 4097),
            "{name}"
        );
    }
}

#[test]
fn many_requests_of_several_queues_are_all_answered() {
    let config = BlockConfig {
        queues: 3,
        ..BlockConfig::default()
    };
    for (name, mut guest, _image) in guests(&config, 0) {
        for round in 0..20 {
            for queue in 0..3 {
                for n in 0..30 {
                    let sector = (u64::from(queue) * 80 + n) % 128;
                    let at = DATA + sector * 512;
                    guest.submit(queue, request::IN, sector, &[Buffer::Writable(at, 512)]);
                }
                guest.notify(queue);
            }
            for queue in 0..3 {
                let answers = guest.wait(queue, 30);
                let ok = answers
                    .iter()
                    .all(|a| (a.status, a.written) == (status::OK, 513));
                assert!(ok, "{name} {round}: {answers:?}");
            }
        }
        for sector in (0..30).chain(80..110).chain(32..62) {
            let bytes = guest.read(DATA + sector * 512, 512);
            assert_eq!(bytes, [sector as u8 + 1; 512], "{name}");
        }
    }
}

#[test]
fn a_driver_without_flushes_writes_through_in_every_way() {
    for (name, mut guest, image) in guests(&BlockConfig::default(), feature::FLUSH) {
        guest.write(DATA, &[0x42; 4096]);
        let write = [Buffer::Readable(DATA, 4096)];
        assert_eq!(
            guest.run(request::OUT, 8, &write),
            (status::OK, 1),
            "{name}"
        );
        let mut inside = [0; 4096];
        image.as_file().read_exact_at(&mut inside, 8 * 512).unwrap();
        assert_eq!(inside, [0x42; 4096], "{name}");
    }
}

#[test]
fn a_reset_leaves_nothing_that_wakes_it_and_it_begins_anew() {
    for (name, mut guest, _image) in guests(&BlockConfig::default(), 0) {
        for _ in 0..5 {
            for n in 0..40 {
                let at = DATA + n * 4096;
                guest.submit(0, request::IN, n, &[Buffer::Writable(at, 4096)]);
            }
            guest.notify(0);
            driver::write(&mut guest.device, mmio::STATUS, 0);
            assert!(guest.waits().is_empty(), "{name}");
            guest.initialise(0);
            let read = [Buffer::Writable(DATA, 512)];
            assert_eq!(
                guest.run(request::IN, 99, &read),
                (status::OK, 513),
                "{name}"
            );
            assert_eq!(guest.read(DATA, 512), [100; 512], "{name}");
            // A stale signal is taken once, not for ever.
            guest.device.process_events();
            if let Some(event) = guest.disk().event_fd() {
                let mut fds = [nix::poll::PollFd::new(event, nix::poll::PollFlags::POLLIN)];
                assert_eq!(nix::poll::poll(&mut fds, 0_u8), Ok(0), "{name}");
            }
        }
    }
}
