//! Proves that a ring in use allocates nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::fd::AsFd;

use allocation_counter::measure;
use goldcrest_memory::io::{Durability, Ring, Segment, read_at, write_at};
use vm_memory::{GuestAddress, GuestMemoryMmap};

#[test]
fn steady_transfers_allocate_nothing() {
    let file = tempfile::tempfile().unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut ring = match Ring::new(memory.clone(), 32, &[file.as_fd()]) {
        Ok(ring) => ring,
        Err(error) => return println!("skipped: {error}"),
    };
    let segments = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| Segment {
        address: i * 4096,
        len: 512,
    });
    let mut round = || {
        for token in 0..32 {
            let back = Durability::WriteBack;
            ring.prepare_write(0, &segments, 0, back, token).unwrap();
        }
        ring.wait_all(|_, result| assert_eq!(result.unwrap(), 4096))
            .unwrap();
        ring.prepare_read(0, &segments, 0, 0).unwrap();
        ring.wait_all(|_, result| assert_eq!(result.unwrap(), 4096))
            .unwrap();
        read_at(&file, &memory, &segments, 0).unwrap();
        write_at(&file, &memory, &segments, 0, Durability::WriteBack).unwrap();
    };
    // The lists of parts grow once, as the places of the queue are used.
    (0..32).for_each(|_| round());
    let counted = measure(|| (0..100).for_each(|_| round()));
    assert_eq!(counted.count_total, 0);
}
