//! Proves that disks in use allocate nothing.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use goldcrest_memory::io::{Durability, Segment};
use goldcrest_virtio_blk::{Backend, FileDisk, FileDiskConfig, MemoryDisk, Operation, Start};
use vm_memory::{GuestAddress, GuestMemoryMmap};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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

#[test]
fn steady_requests_allocate_nothing() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&vec![1; 65536], 0).unwrap();
    for io_uring in [None, Some(false), Some(true)] {
        let mut disk: Box<dyn Backend> = match io_uring {
            None => Box::new(MemoryDisk::new(vec![1; 65536]).deferred()),
            Some(io_uring) => Box::new(
                FileDisk::open(FileDiskConfig {
                    io_uring,
                    ..FileDiskConfig::new(image.path())
                })
                .unwrap(),
            ),
        };
        disk.attach(&memory, DEPTH);
        // Lists grow once, as tokens and places of the ring are used.
        (0..32).for_each(|_| round(disk.as_mut()));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..50).for_each(|_| round(disk.as_mut()));
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{io_uring:?}");
    }
}
