//! Pages into the balloon and out of it, and reports of free pages.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::io;

use goldcrest_memory::Contents;
use goldcrest_virtio::Ram;
use goldcrest_virtio::driver::{self, Buffer, read};
use goldcrest_virtio::spec::{device_id, feature as transport, mmio};
use goldcrest_virtio_balloon::spec::{config, feature, queue};
use goldcrest_virtio_balloon::{
    Balloon, BalloonConfig, BalloonError, MAX_TARGET, Pages, RecordedPages,
};
use guest::{Guest, HIGH, LOW, MIB, Numbers, everything, recorded};

const UNNEEDED: Contents = Contents::Unneeded;

#[test]
fn it_is_a_balloon_with_the_features_that_are_configured() {
    let offered = |config: &BalloonConfig| {
        let (mut guest, _) = recorded(config);
        assert_eq!(read(&mut guest.device, mmio::DEVICE_ID), device_id::BALLOON);
        driver::offered_features(&mut guest.device) & transport::DEVICE_TYPE
    };
    let reporting = feature::PAGE_REPORTING | feature::PAGE_POISON;
    let usual = reporting | feature::DEFLATE_ON_OOM;
    assert_eq!(offered(&BalloonConfig::default()), usual);
    let more = feature::STATS_VQ | feature::FREE_PAGE_HINT;
    assert_eq!(offered(&everything()), usual | more);
    let nothing = BalloonConfig {
        deflate_on_oom: false,
        free_page_reporting: false,
        ..BalloonConfig::default()
    };
    assert_eq!(offered(&nothing), 0);
}

#[test]
fn queues_exist_as_far_as_features_need_them() {
    let sizes = |config: &BalloonConfig| {
        let (guest, _) = recorded(config);
        guest.device.core().spec().queue_sizes.clone()
    };
    let no_reporting = BalloonConfig {
        free_page_reporting: false,
        ..BalloonConfig::default()
    };
    assert_eq!(sizes(&no_reporting), [16, 16]);
    assert_eq!(sizes(&BalloonConfig::default()), [16, 16, 32, 32, 32]);
    assert_eq!(sizes(&everything()), [16, 16, 32, 32, 32]);
}

#[test]
fn the_size_that_is_wanted_is_whole_pages_that_can_be_counted() {
    for (target, possible) in [
        (0, true),
        (4096, true),
        (MAX_TARGET, true),
        (1, false),
        (4095, false),
        (MAX_TARGET + 4096, false),
        (u64::MAX, false),
    ] {
        let config = BalloonConfig {
            target,
            ..BalloonConfig::default()
        };
        let balloon = Balloon::new(RecordedPages::default(), &config);
        match balloon {
            Ok(balloon) => assert!(possible && balloon.status().target == target),
            Err(BalloonError::Target(bytes)) => assert!(!possible && bytes == target),
            Err(error) => panic!("{error}"),
        }
        let (mut guest, _) = recorded(&BalloonConfig::default());
        assert_eq!(guest.balloon().set_target(target).is_ok(), possible);
    }
}

#[test]
fn a_new_target_is_told_by_the_configuration() {
    let (mut guest, _) = recorded(&BalloonConfig {
        target: MIB,
        ..BalloonConfig::default()
    });
    assert_eq!(guest.config(config::NUM_PAGES), 256);
    assert!(guest.waits().is_empty());
    guest.balloon().set_target(MIB).unwrap();
    assert!(guest.waits().is_empty(), "it is the same");
    guest.balloon().set_target(2 * MIB).unwrap();
    assert!(!guest.told_of_change());
    assert_eq!(guest.waits().delay, Some(std::time::Duration::ZERO));
    let before = read(&mut guest.device, mmio::CONFIG_GENERATION);
    guest.device.process_events();
    assert!(guest.told_of_change());
    assert_eq!(guest.config(config::NUM_PAGES), 512);
    assert_ne!(read(&mut guest.device, mmio::CONFIG_GENERATION), before);
    guest.device.process_events();
    assert!(!guest.told_of_change() && guest.waits().is_empty());
    guest.write_config(config::ACTUAL, 400);
    assert_eq!(guest.config(config::ACTUAL), 400);
    assert_eq!(guest.status().actual, 400 * 4096);
    guest.write_config(config::NUM_PAGES, 7);
    assert_eq!(guest.config(config::NUM_PAGES), 512);
}

#[test]
fn neighbours_go_together_however_they_are_sorted() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    guest.inflate(&[7, 5, 6, 9, 0x10, 8, 8, 0x11]);
    let expected = [(0x5000, 0x5000, UNNEEDED), (0x1_0000, 0x2000, UNNEEDED)];
    assert_eq!(pages.take(), expected);
    let descending: Vec<u32> = (0x100..0x200).rev().collect();
    guest.inflate(&descending);
    assert_eq!(pages.take(), [(0x10_0000, MIB, UNNEEDED)]);
    assert_eq!(guest.totals().inflated, 7 + 256);
    assert_eq!(guest.totals().held(), 7 + 256);
    assert_eq!(guest.totals().returned, (7 + 256) * 4096);
    guest.deflate(&[5, 6, 7]);
    guest.deflate(&descending);
    assert_eq!(guest.totals().held(), 4);
    assert!(pages.take().is_empty(), "they come back by themselves");
    assert_eq!(guest.totals().ignored, 0);
}

#[test]
fn pages_behind_the_hole_are_pages_too() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    let high = u32::try_from(HIGH / 4096).unwrap();
    guest.inflate(&[high + 255, high]);
    let expected = [(HIGH, 4096, UNNEEDED), (HIGH + MIB - 4096, 4096, UNNEEDED)];
    assert_eq!(pages.take(), expected);
}

#[test]
fn a_request_in_pieces_is_one() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    let Buffer::Readable(at, _) = guest.numbers(&[3, 4, 5]) else {
        unreachable!()
    };
    let pieces = [(0, 3), (3, 0), (3, 6), (9, 3)];
    let pieces = pieces.map(|(offset, len)| Buffer::Readable(at + offset, len));
    guest.request(queue::INFLATE, &pieces);
    assert_eq!(pages.take(), [(0x3000, 0x3000, UNNEEDED)]);
}

#[test]
fn reported_ranges_are_taken_and_neighbours_together() {
    let (mut guest, pages) = recorded(&BalloonConfig::default());
    let two = 2 << 20;
    guest.report(&[
        (4 * MIB, two),
        (6 * MIB, two),
        (16 * MIB, two),
        (14 * MIB, two),
    ]);
    let expected = [(4 * MIB, 4 * MIB, UNNEEDED), (14 * MIB, 4 * MIB, UNNEEDED)];
    assert_eq!(pages.take(), expected);
    assert_eq!(guest.totals().reported, 8 * MIB);
    assert_eq!(guest.totals().returned, 8 * MIB);
    assert_eq!(guest.totals().held(), 0, "that is no balloon");
    // What is to be read is not free.
    guest.request(
        queue::REPORTING,
        &[Buffer::Readable(4 * MIB, 4096), Buffer::Writable(MIB, 4096)],
    );
    assert_eq!(pages.take(), [(MIB, 4096, UNNEEDED)]);
}

/// What is taken of a report by a driver that fills free pages with this.
fn taken_with_poison(poison: u32) -> (u64, Vec<(u64, u64, Contents)>) {
    let pages = RecordedPages::default();
    let mut guest = Guest::new(pages.clone(), &BalloonConfig::default(), None);
    guest.start_with(u64::MAX, Numbers::Linux, |guest| {
        guest.write_config(config::POISON_VAL, poison);
    });
    assert_eq!(guest.config(config::POISON_VAL), poison);
    // It is too late to change it (§5.5.6.6.1).
    guest.write_config(config::POISON_VAL, !poison);
    assert_eq!(guest.config(config::POISON_VAL), poison);
    guest.report(&[(4 * MIB, 2 << 20)]);
    guest.inflate(&[5]);
    (guest.totals().reported, pages.take())
}

#[test]
fn free_pages_that_are_filled_stay_what_they_are() {
    let (reported, taken) = taken_with_poison(0);
    assert_eq!(reported, 2 * MIB);
    // The driver fills pages of the balloon when it has them back.
    let expected = [
        (4 * MIB, 2 * MIB, Contents::Zeros),
        (0x5000, 4096, UNNEEDED),
    ];
    assert_eq!(taken, expected);
    for poison in [0xaaaa_aaaa, 1, u32::MAX] {
        let (reported, taken) = taken_with_poison(poison);
        assert_eq!(reported, 2 * MIB);
        assert_eq!(taken, [(0x5000, 4096, UNNEEDED)], "{poison:#x}");
    }
}

#[test]
fn a_poison_that_was_not_agreed_on_is_none() {
    let pages = RecordedPages::default();
    let mut guest = Guest::new(pages.clone(), &BalloonConfig::default(), None);
    guest.start_with(!feature::PAGE_POISON, Numbers::Linux, |guest| {
        guest.write_config(config::POISON_VAL, 0xaaaa_aaaa);
    });
    guest.report(&[(4 * MIB, 2 << 20)]);
    assert_eq!(pages.take(), [(4 * MIB, 2 * MIB, UNNEEDED)]);
}

#[test]
fn queues_are_found_by_either_way_to_number_them() {
    let optional = [
        feature::STATS_VQ,
        feature::FREE_PAGE_HINT,
        feature::PAGE_REPORTING,
    ];
    for subset in 0..8_u64 {
        let features = (0..3).filter(|bit| subset >> bit & 1 != 0);
        let features = features.fold(0, |all, bit| all | optional[bit]);
        for numbers in [Numbers::Specification, Numbers::Linux] {
            let pages = RecordedPages::default();
            let mut guest = Guest::new(pages.clone(), &everything(), None);
            guest.start(features, numbers);
            if features & feature::STATS_VQ != 0 {
                guest.tell(&[(4, 7)]);
                assert_eq!(guest.status().statistics.free, Some(7), "{features:#x}");
            }
            if features & feature::FREE_PAGE_HINT != 0 {
                guest.balloon().start_hinting();
                guest.device.process_events();
                guest.send_id(2);
                guest.hint(4 * MIB, 4096);
                assert_eq!(guest.totals().hinted, 4096, "{features:#x}");
            }
            if features & feature::PAGE_REPORTING != 0 {
                guest.report(&[(8 * MIB, 8192)]);
                assert_eq!(guest.totals().reported, 8192, "{features:#x}");
            }
            guest.inflate(&[1]);
            assert_eq!(guest.totals().ignored, 0, "{features:#x} {numbers:?}");
        }
    }
}

#[test]
fn queues_without_a_purpose_do_nothing() {
    let mut guest = Guest::new(RecordedPages::default(), &everything(), None);
    guest.start(0, Numbers::Linux);
    let extra = driver::DriverQueue::new(&guest.memory, 0x6000, 32);
    // One that no agreed feature needs can be made ready, if the driver insists.
    driver::negotiate(&mut guest.device, transport::VERSION_1);
    driver::set_up(&mut guest.device, 2, &extra.layout);
    driver::start(&mut guest.device);
    driver::notify(&mut guest.device, 2);
    assert!(!guest.needs_reset());
    assert_eq!(guest.totals(), goldcrest_virtio_balloon::Totals::default());
}

/// A host that takes nothing.
struct Refuses;

impl Pages for Refuses {
    fn discard(&mut self, _: Ram<'_>, _: u64, _: u64, _: Contents) -> io::Result<u64> {
        Err(io::ErrorKind::OutOfMemory.into())
    }
}

#[test]
fn a_host_that_refuses_pages_is_counted_and_the_guest_goes_on() {
    let mut guest = Guest::new(Box::new(Refuses) as Box<dyn Pages>, &everything(), None);
    guest.start(!feature::PAGE_POISON, Numbers::Linux);
    guest.inflate(&[5, 9]);
    guest.report(&[(4 * MIB, 4096)]);
    assert_eq!(guest.totals().failed, 3);
    assert_eq!(guest.totals().returned, 0);
    assert!(!guest.needs_reset());
}

#[test]
fn a_reset_empties_the_balloon_and_keeps_what_the_host_wants() {
    let (mut guest, _) = recorded(&BalloonConfig {
        target: MIB,
        ..everything()
    });
    guest.inflate(&[5, 9]);
    guest.write_config(config::ACTUAL, 2);
    guest.tell(&[]);
    guest.balloon().start_hinting();
    assert!(guest.status().running && guest.status().hinting);
    driver::write(&mut guest.device, mmio::STATUS, 0);
    let status = guest.status();
    assert!(!status.running && !status.hinting && guest.waits().is_empty());
    assert_eq!((status.target, status.actual), (MIB, 0));
    assert_eq!((status.totals.inflated, status.totals.held()), (2, 0));
    guest.start(u64::MAX, Numbers::Linux);
    assert_eq!(guest.config(config::NUM_PAGES), 256);
    guest.device.process_events();
    assert!(guest.waits().is_empty());
}

#[test]
fn all_of_ram_may_be_in_the_balloon_and_not_more() {
    let (mut guest, _) = recorded(&BalloonConfig::default());
    let all = (LOW + MIB) / 4096;
    let numbers: Vec<u32> = (0..256).collect();
    for _ in 0..all / 256 + 3 {
        guest.inflate(&numbers);
    }
    assert_eq!(guest.totals().held(), all);
    assert_eq!(guest.totals().ignored, 3 * 256);
}
