//! A driver that lies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_bus::Device;
use goldcrest_memory::Contents;
use goldcrest_virtio::driver::{Buffer, write};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio::{DeviceError, QueueError};
use goldcrest_virtio_balloon::spec::{config, feature, queue};
use goldcrest_virtio_balloon::{BalloonConfig, HostPages};
use guest::{Guest, HIGH, LOW, MIB, Numbers, everything, recorded};
use vm_memory::{Bytes, GuestAddress};

const UNNEEDED: Contents = Contents::Unneeded;

/// A guest whose pages really go.
fn real(config: &BalloonConfig) -> Guest<HostPages> {
    let mut guest = Guest::new(HostPages, config, None);
    guest.start(!feature::PAGE_POISON, Numbers::Linux);
    guest
}

fn page(address: u64) -> u32 {
    u32::try_from(address / 4096).unwrap()
}

#[test]
fn pages_that_are_not_ram_are_ignored_and_counted() {
    let mut guest = real(&BalloonConfig::default());
    guest.fill(LOW - 8192, 8192, 0xaa);
    guest.fill(HIGH, 8192, 0xaa);
    let last = page(LOW) - 1;
    guest.inflate(&[
        last,
        last + 1,
        page(HIGH) - 1,
        page(HIGH),
        u32::MAX,
        0xc_0000,
    ]);
    assert!(guest.is(LOW - 4096, 4096, 0) && guest.is(HIGH, 4096, 0));
    assert!(guest.is(LOW - 8192, 4096, 0xaa) && guest.is(HIGH + 4096, 4096, 0xaa));
    assert_eq!(guest.totals().returned, 8192);
    assert_eq!((guest.totals().inflated, guest.totals().ignored), (2, 4));
    assert!(!guest.needs_reset());
}

#[test]
fn numbers_that_make_no_whole_are_ignored() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    let Buffer::Readable(at, _) = guest.numbers(&[5, 9]) else {
        unreachable!()
    };
    for (len, taken) in [(0, 0), (1, 0), (3, 0), (4, 1), (7, 1), (8, 2)] {
        guest.request(queue::INFLATE, &[Buffer::Readable(at, len)]);
        assert_eq!(pages.take().len(), taken, "{len}");
    }
    // Nor is what is to be written looked at.
    guest.request(queue::INFLATE, &[Buffer::Writable(u64::MAX, 8)]);
    guest.request(queue::DEFLATE, &[Buffer::Writable(u64::MAX, 8)]);
    guest.request(queue::REPORTING, &[Buffer::Readable(u64::MAX, 8)]);
    assert!(pages.take().is_empty());
}

#[test]
fn a_request_of_gigabytes_costs_what_a_great_one_does() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    // Every other page, so that none are neighbours.
    for index in 0..2048_u64 {
        let number = u32::try_from(index % 4096 * 2).unwrap();
        let at = GuestAddress(MIB + index * 4);
        guest.memory.write_obj(number, at).unwrap();
    }
    guest.request(queue::INFLATE, &[Buffer::Readable(MIB, 0x4000_0000)]);
    assert_eq!(pages.take().len(), 1024);
    assert_eq!(guest.totals().ignored, 0x1000_0000 - 1024);
    // Where there is no RAM after a while.
    let end = Buffer::Readable(LOW - 8, 4096);
    guest.add(queue::INFLATE, &[end]);
    guest.notify(queue::INFLATE);
    assert!(matches!(
        guest.device.core().error(),
        Some(DeviceError::Queue {
            queue: queue::INFLATE,
            source: QueueError::Buffer { .. }
        })
    ));
    assert!(guest.needs_reset());
    guest.start(u64::MAX, Numbers::Linux);
    guest.inflate(&[5]);
}

#[test]
fn what_was_never_inflated_is_not_deflated() {
    let (mut guest, _) = recorded(&BalloonConfig::default());
    guest.deflate(&[1, 2, 3]);
    guest.inflate(&[4, 5]);
    guest.request(queue::DEFLATE, &[Buffer::Readable(0, u32::MAX)]);
    let totals = guest.totals();
    assert_eq!((totals.inflated, totals.deflated, totals.held()), (2, 2, 0));
    assert_eq!(totals.ignored, 3 + u64::from(u32::MAX / 4) - 2);
}

#[test]
fn reports_of_what_is_not_ram_take_what_is() {
    let mut guest = real(&BalloonConfig::default());
    for (at, len, taken) in [
        (LOW - 4096, 1 << 20, 4096),
        (LOW, 4096, 0),
        (HIGH - 4096, 8192, 4096),
        (u64::MAX - 4095, 4095, 0),
        (u64::MAX, u32::MAX, 0),
        (u64::MAX - 4095, 4096, 0),
        (LOW - 4096, 0, 0),
        (LOW - 4097, 4096, 0),
        (LOW - 8191, 8190, 0),
        (LOW - 8191, 8191, 4096),
    ] {
        guest.fill(LOW - 8192, 8192, 0xaa);
        guest.fill(HIGH, 8192, 0xaa);
        let before = guest.totals().returned;
        guest.report(&[(at, len)]);
        assert_eq!(guest.totals().returned - before, taken, "{at:#x} {len:#x}");
        assert!(guest.is(LOW - 8192, 4096, 0xaa) && guest.is(HIGH + 4096, 4096, 0xaa));
    }
    assert!(!guest.needs_reset());
    assert_eq!(guest.totals().failed, 0);
}

#[test]
fn a_report_of_everything_takes_the_driver_s_own_rings_and_the_device_goes_on() {
    let mut guest = real(&BalloonConfig::default());
    guest.fill(8 * MIB, MIB, 0xaa);
    guest.add(queue::REPORTING, &[Buffer::Writable(0, u32::MAX)]);
    guest.notify(queue::REPORTING);
    assert!(guest.is(8 * MIB, MIB, 0));
    assert_eq!(guest.totals().reported, LOW);
    // What the rings say now is the driver's own fault, and no harm.
    for number in 0..3 {
        write(&mut guest.device, mmio::QUEUE_NOTIFY, number);
        guest.device.process_events();
    }
    guest.start(u64::MAX, Numbers::Linux);
    guest.inflate(&[5]);
}

#[test]
fn as_many_ranges_as_a_queue_has_entries_are_reported_at_once_and_not_more() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    let ranges: Vec<_> = (0..32_u64).map(|n| (MIB + n * 8192, 4096)).collect();
    guest.report(&ranges);
    assert_eq!(pages.take().len(), 32);
    let buffers: Vec<_> = (0..33_u64)
        .map(|n| Buffer::Writable(n * 8192, 4096))
        .collect();
    let head = guest
        .queue(queue::REPORTING)
        .describe_indirect(MIB, &buffers);
    guest.queue(queue::REPORTING).offer(head);
    guest.notify(queue::REPORTING);
    assert!(guest.needs_reset() && pages.take().is_empty());
}

#[test]
fn the_configuration_takes_writes_of_any_width_anywhere() {
    let (mut guest, pages) = recorded(&everything());
    let mmio = |offset: u64| mmio::CONFIG + offset;
    for offset in (0..32).chain([u64::MAX - mmio::CONFIG, 1 << 40]) {
        for width in 0..=64 {
            let _ = guest.device.write(mmio(offset), &vec![0xff; width]);
            guest.device.read(mmio(offset), &mut vec![0; width]);
        }
    }
    assert_eq!(guest.config(config::ACTUAL), u32::MAX);
    assert_eq!(guest.status().actual, u64::from(u32::MAX) * 4096);
    assert_eq!(guest.config(config::NUM_PAGES), 0);
    assert_eq!(guest.config(config::FREE_PAGE_HINT_CMD_ID), 0);
    assert_eq!(guest.config(config::POISON_VAL), 0, "the driver runs");
    guest.report(&[(MIB, 4096)]);
    assert_eq!(pages.take(), [(MIB, 4096, UNNEEDED)]);
}

#[test]
fn statistics_where_there_is_no_ram_make_it_need_a_reset() {
    let (mut guest, _) = recorded(&everything());
    guest.add(queue::STATISTICS, &[Buffer::Readable(LOW, 10)]);
    guest.notify(queue::STATISTICS);
    assert!(guest.needs_reset() && guest.waits().is_empty());
    guest.start(u64::MAX, Numbers::Linux);
    // A buffer that is given back and there again cannot be read by asking for more.
    guest.tell(&[]);
    guest.add(queue::STATISTICS, &[Buffer::Readable(u64::MAX, 10)]);
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.needs_reset());
}

#[test]
fn all_queues_fail_alike() {
    for role in [
        queue::INFLATE,
        queue::DEFLATE,
        queue::FREE_PAGE,
        queue::REPORTING,
    ] {
        let (mut guest, _) = recorded(&everything());
        guest.queue(role).set_available(0x4000);
        guest.notify(role);
        let error = guest.device.core().error();
        assert!(
            matches!(error, Some(DeviceError::Queue { queue, .. }) if *queue == role),
            "{error:?}"
        );
    }
    let (mut guest, _) = recorded(&everything());
    guest.add(queue::FREE_PAGE, &[Buffer::Readable(u64::MAX, 4)]);
    guest.notify(queue::FREE_PAGE);
    assert!(guest.needs_reset());
    let (mut guest, _) = recorded(&everything());
    guest.tell(&[]);
    guest.queue(queue::STATISTICS).set_available(0x4000);
    guest.balloon().ask_statistics();
    guest.device.process_events();
    assert!(guest.needs_reset());
}
