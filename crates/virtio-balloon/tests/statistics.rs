//! Statistics: when they are asked for, and what is understood of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::driver::{self, Buffer, DriverQueue};
use goldcrest_virtio::spec::feature;
use goldcrest_virtio_balloon::spec::feature::STATS_VQ;
use goldcrest_virtio_balloon::spec::{queue, statistic as tag};
use goldcrest_virtio_balloon::{BalloonConfig, RecordedPages, Statistics};
use guest::{Guest, everything, recorded};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_tag_has_its_field_in_any_order() {
    let (mut guest, _) = recorded(&everything());
    let all: Vec<(u16, u64)> = (tag::SWAP_IN..=tag::DIRECT_RECLAIM)
        .rev()
        .map(|tag| (tag, 100 + u64::from(tag)))
        .collect();
    assert_eq!(all.len(), 16);
    guest.tell(&all);
    let told = guest.status().statistics;
    for (field, tag) in [
        (told.swap_in, tag::SWAP_IN),
        (told.swap_out, tag::SWAP_OUT),
        (told.major_faults, tag::MAJFLT),
        (told.minor_faults, tag::MINFLT),
        (told.free, tag::MEMFREE),
        (told.total, tag::MEMTOT),
        (told.available, tag::AVAIL),
        (told.caches, tag::CACHES),
        (told.huge_allocations, tag::HTLB_PGALLOC),
        (told.huge_failures, tag::HTLB_PGFAIL),
        (told.oom_kills, tag::OOM_KILL),
        (told.stalls, tag::ALLOC_STALL),
        (told.background_scans, tag::ASYNC_SCAN),
        (told.direct_scans, tag::DIRECT_SCAN),
        (told.background_reclaims, tag::ASYNC_RECLAIM),
        (told.direct_reclaims, tag::DIRECT_RECLAIM),
    ] {
        assert_eq!(field, Some(100 + u64::from(tag)), "tag {tag}");
    }
    assert_eq!(guest.totals().statistics, 1);
}

#[test]
fn what_is_not_known_is_ignored_and_what_is_not_told_is_nothing() {
    let (mut guest, _) = recorded(&everything());
    guest.tell(&[(16, 1), (tag::MEMFREE, u64::MAX), (u16::MAX, 2)]);
    let expected = |free| {
        let mut expected = Statistics::default();
        expected.free = free;
        expected
    };
    assert_eq!(guest.status().statistics, expected(Some(u64::MAX)));
    assert_eq!(guest.totals().ignored, 2);
    assert!(!guest.asked());
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.asked());
    guest.tell(&[]);
    assert_eq!(guest.status().statistics, expected(None));
}

/// Linux does so, and notifies before the device is live.
#[test]
fn a_buffer_that_is_there_before_the_driver_is_ready_is_found() {
    let mut guest = Guest::new(RecordedPages::default(), &everything(), None);
    assert!(driver::negotiate(
        &mut guest.device,
        feature::VERSION_1 | feature::EVENT_IDX | STATS_VQ
    ));
    for number in 0..3 {
        let queue = DriverQueue::new(&guest.memory, u64::from(number) * 0x1000, 16);
        driver::set_up(&mut guest.device, number, &queue.layout);
        guest.queues.push(Some((number, queue)));
    }
    guest.tell(&[(tag::MEMFREE, 3)]);
    assert_eq!(guest.totals().statistics, 0);
    driver::start(&mut guest.device);
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert!(!guest.asked());
    assert_eq!(guest.status().statistics.free, Some(3));
    assert_eq!(guest.waits().delay, Some(5 * SECOND));
    guest.clock.advance(5 * SECOND);
    guest.device.process_events();
    assert!(guest.asked());
    guest.tell(&[(tag::MEMFREE, 4)]);
    assert_eq!(guest.status().statistics.free, Some(4));
}

#[test]
fn who_asks_before_the_first_buffer_was_seen_has_it_asked_by_at_once() {
    let (mut guest, _) = recorded(&everything());
    let buffer = guest.place(&[]);
    guest.add(queue::STATISTICS, &[buffer]);
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.asked());
    assert!(guest.waits().is_empty());
}

#[test]
fn they_are_asked_for_at_intervals_as_long_as_the_driver_answers() {
    let (mut guest, _) = recorded(&everything());
    guest.device.process_events();
    assert!(guest.waits().is_empty(), "there is nothing to ask by");
    guest.clock.advance(100 * SECOND);
    guest.tell(&[(tag::MEMFREE, 1)]);
    for round in 2..5 {
        assert_eq!(guest.waits().delay, Some(5 * SECOND));
        guest.clock.advance(4 * SECOND);
        guest.device.process_events();
        assert!(!guest.asked());
        assert_eq!(guest.waits().delay, Some(SECOND));
        guest.clock.advance(SECOND);
        guest.device.process_events();
        assert!(guest.asked());
        // However long it takes.
        assert!(guest.waits().is_empty());
        guest.clock.advance(100 * SECOND);
        guest.device.process_events();
        assert!(guest.waits().is_empty());
        guest.tell(&[(tag::MEMFREE, round)]);
        assert_eq!(guest.status().statistics.free, Some(round));
        assert_eq!(guest.totals().statistics, round);
    }
}

#[test]
fn without_an_interval_they_are_asked_for_on_request() {
    let (mut guest, _) = recorded(&BalloonConfig {
        statistics: Some(Duration::ZERO),
        ..BalloonConfig::default()
    });
    // Before there is a buffer: it is remembered.
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.waits().is_empty());
    guest.tell(&[]);
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert!(guest.asked());
    guest.tell(&[]);
    assert!(guest.waits().is_empty());
    guest.clock.advance(100 * SECOND);
    guest.device.process_events();
    assert!(!guest.asked());
}

#[test]
fn a_driver_is_not_asked_without_the_feature() {
    let (mut guest, _) = recorded(&BalloonConfig::default());
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.waits().is_empty());
}

#[test]
fn intervals_are_no_load() {
    let (mut guest, _) = recorded(&BalloonConfig {
        statistics: Some(Duration::from_nanos(1)),
        ..BalloonConfig::default()
    });
    guest.tell(&[]);
    assert_eq!(guest.waits().delay, Some(SECOND / 10));
}

#[test]
fn buffers_of_odd_and_great_length_are_read_as_far_as_they_make_sense() {
    for (len, statistics, ignored) in [(0, 0, 0), (9, 0, 1), (13, 1, 1), (10, 1, 0)] {
        let (mut guest, _) = recorded(&everything());
        let mut bytes = vec![0; 20];
        bytes[0] = 4;
        bytes[2] = 9;
        let Buffer::Readable(at, _) = guest.place(&bytes) else {
            unreachable!()
        };
        guest.add(queue::STATISTICS, &[Buffer::Readable(at, len)]);
        guest.notify(queue::STATISTICS);
        assert_eq!(guest.totals().ignored, ignored, "{len}");
        let free = (statistics == 1).then_some(9);
        assert_eq!(guest.status().statistics.free, free, "{len}");
    }
    let (mut guest, _) = recorded(&everything());
    guest.add(queue::STATISTICS, &[Buffer::Readable(0, 4 << 20)]);
    guest.notify(queue::STATISTICS);
    assert!(!guest.needs_reset());
    assert!(guest.totals().ignored <= 65);
}

#[test]
fn more_buffers_than_one_come_back_one_by_one() {
    let (mut guest, _) = recorded(&everything());
    for free in 1..=40 {
        if free <= 32 {
            guest.tell(&[(tag::MEMFREE, free)]);
        }
    }
    assert_eq!(guest.status().statistics.free, Some(1));
    for free in 2..=32 {
        guest.balloon().ask_statistics();
        guest.device.process_events();
        assert!(guest.asked() && !guest.asked());
        assert_eq!(guest.status().statistics.free, Some(free));
    }
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.asked());
    assert!(guest.waits().is_empty());
}

#[test]
fn a_buffer_that_was_reset_away_is_not_asked_by() {
    let (mut guest, _) = recorded(&everything());
    guest.tell(&[]);
    let number = guest.queues[usize::from(queue::STATISTICS)]
        .as_ref()
        .unwrap()
        .0;
    use goldcrest_virtio::driver::write;
    use goldcrest_virtio::spec::mmio;
    write(&mut guest.device, mmio::QUEUE_SEL, number.into());
    write(&mut guest.device, mmio::QUEUE_READY, 0);
    guest.clock.advance(100 * SECOND);
    guest.device.process_events();
    assert!(guest.waits().is_empty(), "it must not spin");
}

#[test]
fn a_saved_device_goes_on_asking_by_the_buffer_that_waits() {
    let (mut guest, pages) = recorded(&everything());
    guest.tell(&[(tag::MEMFREE, 3)]);
    guest.device.quiesce();
    let state = guest.device.save();
    let mut other = Guest::new(pages, &everything(), None);
    other.memory = guest.memory.clone();
    other.device = goldcrest_virtio::Mmio::new(
        goldcrest_virtio_balloon::Balloon::with_clock(
            goldcrest_virtio_balloon::RecordedPages::default(),
            &everything(),
            other.clock.clone(),
        )
        .unwrap(),
        guest.memory.clone(),
        goldcrest_irq::IrqLine::detached(),
    );
    other.queues = std::mem::take(&mut guest.queues);
    other.device.restore(state).unwrap();
    other.device.process_events();
    assert_eq!(other.status().statistics.free, Some(3));
    other.clock.advance(5 * SECOND);
    other.device.process_events();
    assert!(other.asked());
}
