//! Disks that the host changes while the guest runs: their limits, their sizes, and what they are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::time::Duration;

use goldcrest_rate_limiter::{ManualClock, RateConfig};
use goldcrest_virtio::driver::{self, Buffer};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_blk::spec::{request, status};
use goldcrest_virtio_blk::{Block, BlockConfig, FileDisk, FileDiskConfig, MemoryDisk};
use guest::{DATA, Guest, ScriptedDisk, numbered};

const SECTOR: [Buffer; 1] = [Buffer::Writable(DATA, 512)];
/// The interrupt that tells of another configuration.
const CONFIG_CHANGED: u32 = 2;

#[test]
fn another_limit_lets_go_what_the_old_one_held_back() {
    let config = BlockConfig {
        rate: "512".parse().ok(),
        ..BlockConfig::default()
    };
    let block = Block::new(MemoryDisk::new(numbered(4)), &config).unwrap();
    let mut guest = Guest::with(block.with_clock(ManualClock::default()), 0);
    for sector in 0..3 {
        guest.submit(0, request::IN, sector, &SECTOR);
    }
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 1);
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(1)));
    guest.device.device_mut().set_rate("1024".parse().unwrap());
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert_eq!(guest.answers(0).len(), 2);
    guest.submit(0, request::IN, 3, &SECTOR);
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 0);
    guest.device.device_mut().set_rate(RateConfig::default());
    guest.device.process_events();
    assert_eq!(guest.answers(0).len(), 1);
}

#[test]
fn another_disk_takes_the_place_of_one_and_the_driver_is_told() {
    let mut guest = Guest::new(MemoryDisk::new(numbered(4)));
    let before = driver::read(&mut guest.device, mmio::CONFIG_GENERATION);
    let next = MemoryDisk::new(vec![9; 8 * 512]);
    guest.device.device_mut().set_backend(next).unwrap();
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert!(guest.waits().is_empty());
    let interrupt = driver::read(&mut guest.device, mmio::INTERRUPT_STATUS);
    assert_eq!(interrupt & CONFIG_CHANGED, CONFIG_CHANGED);
    assert_ne!(
        driver::read(&mut guest.device, mmio::CONFIG_GENERATION),
        before
    );
    assert_eq!(u64::from_le_bytes(guest.config(0)), 8);
    assert_eq!(guest.run(request::IN, 7, &SECTOR), (status::OK, 513));
    assert_eq!(guest.read(DATA, 512), [9; 512]);
}

#[test]
fn what_is_under_way_on_the_old_disk_is_over_before_the_new_one_is_there() {
    let (old, new) = (ScriptedDisk::default(), ScriptedDisk::default());
    let mut guest = Guest::new(old.clone());
    old.script().pending = true;
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert!(guest.answers(0).is_empty());
    guest.device.device_mut().set_backend(new.clone()).unwrap();
    guest.device.process_events();
    assert_eq!(guest.answers(0).len(), 1);
    old.script().calls.clear();
    guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 1);
    assert!(old.script().calls.is_empty());
    assert!(!new.script().calls.is_empty());
}

#[test]
fn a_disk_is_changed_without_a_driver_too_and_never_to_one_that_is_used_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, len: u64, read_only| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        FileDisk::open(FileDiskConfig {
            read_only,
            ..FileDiskConfig::new(path)
        })
        .unwrap()
    };
    let first = file("first", 512, false);
    assert!(first.is_in(&dir.path().join("first")));
    assert!(!first.is_in(&dir.path().join("missing")));
    let mut block = Block::new(first, &BlockConfig::default()).unwrap();
    let refused = block.set_backend(file("read-only", 512, true));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("only read"), "{refused}");
    block.set_backend(file("second", 1024, false)).unwrap();
    assert!(block.backend().is_in(&dir.path().join("second")));
    // The first is not locked any more.
    file("first", 512, false);
    let mut guest = Guest::with(block, 0);
    assert_eq!(u64::from_le_bytes(guest.config(0)), 2);

    // Its file grows.
    let second = std::fs::File::options()
        .write(true)
        .open(dir.path().join("second"));
    second.unwrap().set_len(2048).unwrap();
    let block = guest.device.device_mut();
    block.backend_mut().refresh().unwrap();
    block.resize();
    guest.device.process_events();
    assert_eq!(u64::from_le_bytes(guest.config(0)), 4);
    assert_eq!(guest.run(request::IN, 3, &SECTOR), (status::OK, 513));
}
