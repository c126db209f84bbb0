//! Proves that an entropy device in use allocates nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use allocation_counter::measure;
use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{Buffer, DriverQueue, initialise, notify};
use goldcrest_virtio::{Mmio, spec::feature};
use goldcrest_virtio_rng::{Entropy, HostSource, MAX_REQUEST, QUEUE_SIZE};
use vm_memory::{GuestAddress, GuestMemoryMmap};

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
    let counted = measure(|| {
        for (head, len) in requests.into_iter().cycle().take(200) {
            queue.offer(head);
            notify(&mut device, 0);
            let used = queue.used().map(|(_, written)| written);
            assert_eq!(used, Some(len.min(MAX_REQUEST)));
        }
    });
    assert_eq!(counted.count_total, 0);
}
