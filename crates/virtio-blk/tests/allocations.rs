//! Proves that disks in use allocate nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use goldcrest_memory::io::{Durability, Segment};
use goldcrest_virtio::driver::Buffer;
use goldcrest_virtio_blk::spec::{request, status};
use goldcrest_virtio_blk::{
    Backend, Block, BlockConfig, FileDisk, FileDiskConfig, MemoryDisk, Operation, Start,
};
use guest::{DATA, Guest};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const DEPTH: u32 = 16;

fn round(disk: &mut dyn Backend) {
    let segments = [0, 4096, 1, 9000].map(|address| Segment { address, len: 512 });
    let durability = Durability::WriteBack;
    let (offset, segments) = (1024, segments.as_slice());
    let operations = [
        Operation::Write {
            offset,
            segments,
            durability,
        },
        Operation::Read { offset, segments },
        Operation::Flush,
        Operation::WriteZeroes {
            offset: 8192,
            len: 4096,
            unmap: true,
            durability,
        },
    ];
    for (token, operation) in (0..DEPTH).zip(operations.iter().cycle()) {
        match disk.start(operation, token) {
            Start::Done(result) => result.unwrap(),
            Start::Pending => {}
            Start::Full => panic!("no more than its depth"),
        }
    }
    assert!(disk.submit());
    disk.wait_all(&mut |_, result| result.unwrap()).unwrap();
}

fn memory_disk() -> MemoryDisk {
    MemoryDisk::new(vec![1; 65536]).deferred()
}

/// The image is deleted; the disk keeps it.
fn file_disk(io_uring: bool) -> FileDisk {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&[1; 65536], 0).unwrap();
    FileDisk::open(FileDiskConfig {
        io_uring,
        ..FileDiskConfig::new(image.path())
    })
    .unwrap()
}

fn disks_allocate_nothing() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let disks: [Box<dyn Backend>; 3] = [
        Box::new(memory_disk()),
        Box::new(file_disk(false)),
        Box::new(file_disk(true)),
    ];
    for (n, mut disk) in disks.into_iter().enumerate() {
        disk.attach(&memory, DEPTH);
        // Lists grow once, as tokens and places of the ring are used.
        (0..32).for_each(|_| round(disk.as_mut()));
        let counted = measure(|| (0..50).for_each(|_| round(disk.as_mut())));
        assert_eq!(counted.count_total, 0, "{n}");
    }
}

/// Requests from a driver's notification to the used ring, by the registers.
fn requests_allocate_nothing(disk: impl Backend) {
    let config = BlockConfig {
        rate: "100G+1000000ops".parse().ok(),
        ..BlockConfig::default()
    };
    let mut guest = Guest::with(Block::new(disk, &config).unwrap(), 0);
    let mut allocations = 0;
    let mut waits = guest.waits();
    for round in 0..600 {
        guest.submit(0, request::IN, 3, &[Buffer::Writable(DATA, 8192)]);
        guest.submit(0, request::OUT, 3, &[Buffer::Readable(DATA, 4096)]);
        guest.submit(0, request::FLUSH, 0, &[]);
        guest.submit(0, request::GET_ID, 0, &[Buffer::Writable(DATA, 20)]);
        guest.submit(0, 77, 0, &[]);
        let counted = measure(|| {
            guest.notify(0);
            let begun = Instant::now();
            while guest.queues[0].used_index() != guest.queues[0].available {
                assert!(begun.elapsed() < Duration::from_secs(60), "not answered");
                thread::yield_now();
                waits.clear();
                guest.device.waits(&mut waits);
                guest.device.process_events();
            }
        });
        // Lists grow once.
        if round >= 300 {
            allocations += counted.count_total;
        }
        let statuses: Vec<_> = guest.answers(0).iter().map(|a| a.status).collect();
        assert_eq!(statuses.iter().filter(|&&s| s == status::OK).count(), 4);
        assert_eq!(statuses.len(), 5);
    }
    assert_eq!(allocations, 0);
}

/// One test, since another would be counted too.
#[test]
fn steady_requests_allocate_nothing() {
    disks_allocate_nothing();
    requests_allocate_nothing(MemoryDisk::new(vec![1; 65536]));
    requests_allocate_nothing(memory_disk());
    requests_allocate_nothing(file_disk(false));
    requests_allocate_nothing(file_disk(true));
}
