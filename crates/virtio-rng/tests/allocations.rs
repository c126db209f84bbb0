//! Proves that an entropy device in use allocates nothing.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
use goldcrest_virtio::{Mmio, spec::feature};
use goldcrest_virtio_rng::{Entropy, HostSource, MAX_REQUEST, QUEUE_SIZE};
use vm_memory::{GuestAddress, GuestMemoryMmap};

struct Counting;

thread_local! {
    /// Those of this thread: the test harness has one of its own, which allocates when it likes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

#[test]
fn requests_of_any_size_allocate_nothing() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut device = Mmio::new(
        Entropy::new(HostSource),
        memory.clone(),
        IrqLine::detached(),
    );
    let mut queue = DriverQueue::new(&memory, 0, QUEUE_SIZE);
    initialise(&mut device, feature::VERSION_1, &[&queue]);
    // The driver allocates to describe buffers, not to offer them.
    let requests =
        [1, 64, 5000, u32::MAX].map(|len| (queue.describe(&[Buffer::Writable(0x10000, len)]), len));
    let before = ALLOCATIONS.get();
    for (head, len) in requests.into_iter().cycle().take(200) {
        queue.offer(head);
        notify(&mut device, 0);
        let used = queue.used().map(|(_, written)| written);
        assert_eq!(used, Some(len.min(MAX_REQUEST)));
    }
    assert_eq!(ALLOCATIONS.get(), before);
}
