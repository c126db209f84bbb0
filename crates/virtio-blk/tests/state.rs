//! A disk that is saved goes on as it was, and what no disk can have been is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::time::Duration;

use goldcrest_bus::Device;
use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::{ManualClock, RateState};
use goldcrest_snapshot::{Snapshot, open, seal};
use goldcrest_virtio::Mmio;
use goldcrest_virtio::driver::{self, Buffer};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_blk::spec::{config, feature, request, status};
use goldcrest_virtio_blk::{Block, BlockConfig, BlockState, MemoryDisk};
use guest::{DATA, Guest, ScriptedDisk, memory, numbered};

const SECTOR: [Buffer; 1] = [Buffer::Writable(DATA, 512)];

fn block(rate: &str) -> Block<MemoryDisk> {
    let config = BlockConfig {
        rate: Some(rate.parse().unwrap()),
        ..BlockConfig::default()
    };
    let block = Block::new(MemoryDisk::new(numbered(8)), &config).unwrap();
    block.with_clock(ManualClock::default())
}

#[test]
fn a_disk_goes_on_where_it_was_saved() {
    let mut guest = Guest::with(block("1024"), 0);
    let _ = guest
        .device
        .write(mmio::CONFIG + config::WRITEBACK as u64, &[0]);
    let heads = [0; 3].map(|_| guest.submit(0, request::IN, 7, &SECTOR));
    guest.notify(0);
    assert_eq!(guest.answers(0).len(), 2);
    guest.device.quiesce();
    let saved = seal(&guest.device).unwrap();

    let mut restored = Mmio::new(block("1024"), guest.memory.clone(), IrqLine::detached());
    open(&mut restored, &saved).unwrap();
    assert_eq!(restored.save(), guest.device.save());
    guest.device = restored;
    assert_eq!(guest.config(config::WRITEBACK), [0]);
    // The third is where it was, and waits for its time.
    guest.device.process_events();
    assert!(guest.answers(0).is_empty());
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(500)));
    guest.device = Mmio::new(block("1M"), guest.memory.clone(), IrqLine::detached());
    open(&mut guest.device, &saved).unwrap();
    guest.write(DATA, &[0; 512]);
    // A disk whose limit is higher by now has no more in its bucket than was saved.
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert!(guest.waits().delay.unwrap() < Duration::from_millis(1));
    assert!(guest.answers(0).is_empty());
    assert_eq!(heads.len(), 3);
}

#[test]
fn what_was_under_way_is_over_when_it_is_saved() {
    let disk = ScriptedDisk::default();
    let mut guest = Guest::new(disk.clone());
    disk.script().pending = true;
    let head = guest.submit(0, request::IN, 0, &SECTOR);
    guest.notify(0);
    guest.device.quiesce();
    let saved = guest.device.save();
    let answer = guest.answers(0)[0];
    assert_eq!((answer.head, answer.status), (head, status::OK));
    let other = Block::new(ScriptedDisk::default(), &BlockConfig::default()).unwrap();
    let mut restored = Mmio::new(other, guest.memory.clone(), IrqLine::detached());
    restored.restore(saved).unwrap();
    restored.process_events();
    assert!(guest.answers(0).is_empty(), "answered again");
}

#[test]
fn what_the_driver_wrote_is_kept_and_durable_writes_stay_so() {
    for (without, value, expected) in [
        (0, 0, "write through"),
        (0, 1, "write"),
        (feature::CONFIG_WCE, 0, "write"),
        (feature::FLUSH, 1, "write through"),
    ] {
        let make = || Block::new(ScriptedDisk::default(), &BlockConfig::default()).unwrap();
        let mut guest = Guest::with(make(), without);
        let _ = guest
            .device
            .write(mmio::CONFIG + config::WRITEBACK as u64, &[value]);
        let saved = guest.device.save();
        guest.device = Mmio::new(make(), guest.memory.clone(), IrqLine::detached());
        guest.device.restore(saved).unwrap();
        guest.run(request::OUT, 0, &[Buffer::Readable(DATA, 512)]);
        assert_eq!(guest.disk().script().calls.last().unwrap(), expected);
    }
}

#[test]
fn what_no_disk_can_have_been_is_refused_and_changes_nothing() {
    let mut disk = block("1024");
    let good = disk.save();
    let rate = |bytes, operations| RateState { bytes, operations };
    for (bad, expected) in [
        (
            BlockState { sectors: 9, ..good },
            "virtio-blk: capacity is 9, not the sectors of this disk",
        ),
        (
            BlockState {
                sectors: u64::MAX,
                writeback: Some(false),
                ..good
            },
            "virtio-blk: capacity is 18446744073709551615, not the sectors of this disk",
        ),
        (
            BlockState {
                read_only: true,
                ..good
            },
            "virtio-blk: read-only is 1, not what this disk is",
        ),
        (
            BlockState {
                rate: rate(None, None),
                writeback: Some(false),
                ..good
            },
            "virtio-blk: rate is 0, not one that this disk's limit can have",
        ),
        (
            BlockState {
                rate: rate(Some(i128::MAX), None),
                ..good
            },
            "virtio-blk: rate is 0, not one that this disk's limit can have",
        ),
        (
            BlockState {
                rate: rate(Some(i128::MIN), Some(0)),
                ..good
            },
            "virtio-blk: rate is 0, not one that this disk's limit can have",
        ),
    ] {
        assert_eq!(disk.restore(bad).unwrap_err().to_string(), expected);
        assert_eq!(disk.save(), good);
    }
    // Behind its transport too: it is as after a reset then, and can be used.
    let mut guest = Guest::with(block("1024"), 0);
    let mut state = guest.device.save();
    state.device.sectors = 1;
    let mut restored = Mmio::new(block("1024"), memory(), IrqLine::detached());
    assert!(restored.restore(state).is_err());
    assert_eq!(driver::read(&mut restored, mmio::STATUS), 0);
    assert!(guest.config::<8>(config::CAPACITY) == 8_u64.to_le_bytes());
}
