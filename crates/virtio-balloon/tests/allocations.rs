//! Proves that a balloon in use allocates nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use allocation_counter::measure;
use goldcrest_virtio::driver::{Buffer, notify};
use goldcrest_virtio_balloon::spec::{feature, queue};
use goldcrest_virtio_balloon::{BalloonHandle, HostPages};
use guest::{Guest, MIB, Numbers, everything};

#[test]
fn requests_reports_hints_and_statistics_allocate_nothing() {
    let handle = BalloonHandle::new().unwrap();
    let mut guest = Guest::new(HostPages, &everything(), Some(&handle));
    guest.start(!feature::PAGE_POISON, Numbers::Linux);
    let numbers: Vec<u32> = (0x1000..0x1100).rev().collect();
    let numbers = guest.numbers(&numbers);
    let statistics = guest.place(&[0; 100]);
    guest.balloon().start_hinting();
    let id = guest.config(goldcrest_virtio_balloon::spec::config::FREE_PAGE_HINT_CMD_ID);
    let id = guest.numbers(&[id]);
    let free = Buffer::Writable(4 * MIB, 4 << 20);
    // The driver allocates to describe buffers, not to offer them.
    let requests = [
        (queue::INFLATE, &[numbers][..]),
        (queue::DEFLATE, &[numbers]),
        (queue::STATISTICS, &[statistics]),
        (queue::FREE_PAGE, &[id]),
        (queue::FREE_PAGE, &[free]),
        (queue::REPORTING, &[free; 20]),
    ];
    let heads = requests.map(|(role, buffers)| (role, guest.queue(role).describe(buffers)));
    let counted = measure(|| {
        for round in 0..100_u64 {
            handle.set_target(round % 7 * 4096).unwrap();
            for (role, head) in heads {
                guest.queue(role).offer(head);
                notify(&mut guest.device, role);
            }
            guest.clock.advance(Duration::from_secs(5));
            guest.device.process_events();
            for (role, _) in heads {
                assert!(guest.queue(role).used().is_some(), "queue {role}");
            }
        }
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(guest.totals().ignored, 0);
}
