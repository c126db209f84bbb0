//! The guest's memory really goes back to the host. Alone in its process, which it measures.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::fs;
use std::time::Duration;

use goldcrest_virtio_balloon::spec::{cmd_id, feature};
use goldcrest_virtio_balloon::{BalloonConfig, HostPages};
use guest::{Guest, MIB, Numbers};

/// Bytes of the process that are in memory.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Where the test's memory is: 48 MiB that nothing else is in.
const AT: u64 = 8 * MIB;
const LEN: u64 = 48 * MIB;

/// Has the guest use memory, and give it away by `give`; finds it gone, zeros and usable again.
fn measure(guest: &mut Guest<HostPages>, what: &str, give: impl Fn(&mut Guest<HostPages>)) {
    guest.fill(AT, LEN, 0xaa);
    let before = resident();
    let returned = guest.totals().returned;
    give(guest);
    let after = resident();
    assert!(before - after > LEN - MIB, "{what}: {before} {after}");
    assert_eq!(guest.totals().returned - returned, LEN, "{what}");
    assert!(guest.is(AT, LEN, 0), "{what}");
    assert!(guest.is(AT - 4096, 4096, 0xbb) && guest.is(AT + LEN, 4096, 0xbb));
    guest.fill(AT, 4096, 0xaa);
    assert!(guest.is(AT, 4096, 0xaa));
}

#[test]
fn inflated_reported_and_hinted_memory_leaves_the_process() {
    let config = BalloonConfig {
        free_page_hinting: true,
        statistics: Some(Duration::from_secs(1)),
        ..BalloonConfig::default()
    };
    let mut guest = Guest::new(HostPages, &config, None);
    guest.fill(AT - 4096, 4096, 0xbb);
    guest.fill(AT + LEN, 4096, 0xbb);
    for features in [u64::MAX, !feature::PAGE_POISON] {
        guest.start(features, Numbers::Linux);
        measure(&mut guest, "inflate", |guest| {
            let numbers: Vec<u32> = (AT / 4096..(AT + LEN) / 4096)
                .map(|number| u32::try_from(number).unwrap())
                .collect();
            // As Linux does: 256 in a request, often descending.
            for some in numbers.chunks(256) {
                guest.inflate(&some.iter().rev().copied().collect::<Vec<_>>());
            }
        });
        measure(&mut guest, "report", |guest| {
            let blocks = (AT..AT + LEN).step_by(2 << 20);
            let blocks: Vec<_> = blocks.map(|at| (at, 2 << 20)).collect();
            guest.report(&blocks);
        });
        measure(&mut guest, "hint", |guest| {
            guest.balloon().start_hinting();
            guest.device.process_events();
            let id = guest.config(goldcrest_virtio_balloon::spec::config::FREE_PAGE_HINT_CMD_ID);
            guest.send_id(id);
            for at in (AT..AT + LEN).step_by(4 << 20) {
                guest.hint(at, 4 << 20);
            }
            guest.send_id(cmd_id::STOP);
        });
    }
    assert_eq!(guest.totals().failed, 0);
}
