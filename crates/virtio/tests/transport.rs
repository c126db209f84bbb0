//! A driver that is correct and one that is not, against what all transports share: §2.1 to §2.5, §3.1.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{DeviceError, QueueError, Waits, driver, notified_queue};
use guest::*;

const STEPS: [u8; 4] = [1, 3, 11, 15];

#[test]
fn status_is_0_after_a_reset_from_any_state() {
    let mut guest = Guest::new();
    assert_eq!(guest.status(), 0);
    for steps in 0..=STEPS.len() {
        for last in [0, status::FAILED] {
            let mut guest = Guest::negotiated(BASIC);
            guest.set_status(0);
            for bits in &STEPS[..steps.min(2)] {
                guest.set_status(*bits);
            }
            guest.write(mmio::DRIVER_FEATURES_SEL, 1);
            guest.write(mmio::DRIVER_FEATURES, 1);
            for bits in STEPS.iter().take(steps).skip(2) {
                guest.set_status(*bits);
            }
            let bits = guest.status() | last;
            guest.set_status(bits);
            guest.set_status(0);
            assert_eq!(guest.status(), 0);
            assert_eq!(guest.device.core().driver_features(1), 0);
            guest.recovers();
        }
    }
}

#[test]
fn status_bits_come_in_their_order_and_never_go_but_by_a_reset() {
    let mut guest = Guest::new();
    for bits in [2, 8, 4, 12, 6] {
        guest.ignores(|guest| guest.set_status(bits));
    }
    let mut guest = Guest::live(BASIC);
    for bits in [1, 3, 11, 7, 14, 64, 128] {
        guest.ignores(|guest| guest.set_status(bits));
    }
    guest.echo(0);
}

#[test]
fn a_driver_cannot_set_device_needs_reset_or_reserved_bits() {
    let mut guest = Guest::live(BASIC);
    guest.set_status(LIVE | status::DEVICE_NEEDS_RESET | 0x30);
    assert_eq!(guest.status(), LIVE);
    guest.echo(0);
}

#[test]
fn no_buffer_is_used_and_no_interrupt_sent_before_driver_ok() {
    let mut guest = Guest::negotiated(BASIC);
    let layout = guest.queues[0].layout;
    driver::set_up(&mut guest.device, 0, &layout);
    guest.offer(0);
    guest.ignores(|guest| guest.notify(0));
    guest.device.process_events();
    assert_eq!(guest.queues[0].used(), None);
    assert_eq!(guest.device.core().device().calls, 0);
    assert_eq!(guest.interrupts(), 0);
    driver::start(&mut guest.device);
    guest.notify(0);
    assert!(guest.queues[0].used().is_some());
}

#[test]
fn a_device_whose_driver_failed_does_nothing_until_it_is_reset() {
    let mut guest = Guest::live(BASIC);
    guest.set_status(LIVE | status::FAILED);
    assert_eq!(guest.status(), LIVE | status::FAILED);
    guest.offer(0);
    guest.ignores(|guest| guest.notify(0));
    assert_eq!(guest.queues[0].used(), None);
    guest.recovers();
}

#[test]
fn a_device_that_needs_a_reset_says_so_by_a_configuration_interrupt_and_stops() {
    let mut guest = Guest::live(BASIC);
    guest.queues[0].set_available(9);
    guest.notify(0);
    let expected = QueueError::AvailableIndex { ahead: 9, size: 8 };
    assert_eq!(guest.queue_error(), expected);
    assert_eq!(guest.interrupts(), mmio::INT_CONFIG_CHANGE);
    guest.acknowledge();
    guest.offer(1);
    guest.ignores(|guest| guest.notify(1));
    guest.device.process_events();
    assert_eq!(guest.queues[1].used(), None);
    let mut waits = Waits::default();
    guest.device.waits(&mut waits);
    assert!(waits.is_empty());
    guest.recovers();
}

#[test]
fn a_device_that_fails_before_driver_ok_says_so_once_it_is_set() {
    let mut guest = Guest::negotiated(BASIC);
    let mut layout = guest.queues[0].layout;
    layout.size = 3;
    driver::set_up(&mut guest.device, 0, &layout);
    assert_eq!(guest.queue_error(), QueueError::Size { size: 3, max: 8 });
    assert_eq!(guest.interrupts(), 0);
    driver::start(&mut guest.device);
    assert_eq!(guest.interrupts(), mmio::INT_CONFIG_CHANGE);
    assert_eq!(guest.device.core().device().features, None);
}

#[test]
fn a_device_that_fails_in_one_queue_is_not_called_for_the_next() {
    let mut guest = Guest::live(BASIC);
    // Both queues have more than one turn takes: a driver that adds while the device works.
    for (queue, size) in QUEUES.into_iter().enumerate().take(2) {
        let (memory, layout) = (guest.memory.clone(), guest.queues[queue].layout);
        guest.device.device_mut().hook = Some(Box::new(move || {
            use vm_memory::{Bytes, GuestAddress};
            let index = GuestAddress(layout.available + 2);
            memory.write_obj(size + 1, index).unwrap();
        }));
        guest.offer(queue);
        guest.queues[queue].set_available(size);
        // Each entry is the same descriptor chain, which is back before the next is taken.
        guest.notify(u16::try_from(queue).unwrap());
    }
    assert_eq!(guest.status(), LIVE);
    let calls = guest.device.core().device().calls;
    guest.queues[0].set_available(0x7000);
    guest.queues[1].set_available(0x7000);
    guest.device.process_events();
    assert_ne!(guest.status() & status::DEVICE_NEEDS_RESET, 0);
    assert_eq!(guest.device.core().device().calls, calls + 1);
}

#[test]
fn a_host_that_does_not_let_a_device_begin_makes_it_need_a_reset() {
    let mut guest = Guest::negotiated(BASIC);
    guest.device.device_mut().broken = true;
    driver::start(&mut guest.device);
    assert_eq!(guest.status(), LIVE | status::DEVICE_NEEDS_RESET);
    assert!(matches!(
        guest.device.core().error(),
        Some(DeviceError::Host { what: "begin", .. })
    ));
    assert_eq!(guest.interrupts(), mmio::INT_CONFIG_CHANGE);
    guest.device.device_mut().broken = false;
    guest.recovers();
}

#[test]
fn offered_are_the_features_of_the_type_and_of_the_transport() {
    let mut guest = Guest::new();
    let transport =
        feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC | feature::RING_RESET;
    let offered = driver::offered_features(&mut guest.device);
    assert_eq!(offered, transport | FEATURE);
}

#[test]
fn every_subset_of_the_offered_features_with_version_1_is_taken() {
    let mut guest = Guest::new();
    let bits = [
        FEATURE,
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        feature::RING_RESET,
    ];
    for subset in 0..16 {
        let chosen = (0..4).filter(|bit| subset >> bit & 1 != 0);
        let features = chosen.fold(BASIC, |all, bit| all | bits[bit]);
        guest.go_live(features);
        assert_eq!(guest.device.core().device().features, Some(features));
        guest.echo(1);
    }
}

#[test]
fn features_that_are_not_offered_or_miss_version_1_are_not_agreed_to() {
    let mut guest = Guest::new();
    for features in [
        0,
        FEATURE,
        BASIC | UNKNOWN_FEATURE,
        BASIC | 1 << 30,
        BASIC | 1 << 34,
        BASIC | 1 << 63,
        u64::MAX,
    ] {
        let misuses = guest.misuses();
        assert!(!driver::negotiate(&mut guest.device, features));
        assert_eq!(guest.status(), status::ACKNOWLEDGE | status::DRIVER);
        assert_eq!(guest.misuses(), misuses + 1, "{features:#x}");
    }
    guest.recovers();
}

#[test]
fn a_feature_that_needs_another_is_not_agreed_to_without_it() {
    let mut guest = Guest::new();
    guest.device.device_mut().needy = true;
    assert!(!driver::negotiate(&mut guest.device, BASIC | FEATURE));
    assert_eq!(guest.status(), status::ACKNOWLEDGE | status::DRIVER);
    assert!(driver::negotiate(&mut guest.device, INDIRECT | FEATURE));
    assert!(driver::negotiate(&mut guest.device, BASIC));
}

#[test]
fn features_cannot_be_changed_before_driver_or_after_features_ok() {
    let mut guest = Guest::new();
    guest.ignores(|guest| guest.write(mmio::DRIVER_FEATURES, 1 << 28));
    let mut guest = Guest::negotiated(BASIC);
    for half in [0, 1] {
        guest.write(mmio::DRIVER_FEATURES_SEL, half);
        guest.ignores(|guest| guest.write(mmio::DRIVER_FEATURES, u32::MAX));
    }
    driver::start(&mut guest.device);
    guest.ignores(|guest| guest.write(mmio::DRIVER_FEATURES, 0));
    assert_eq!(guest.device.core().driver_features(0), 0);
    assert_eq!(guest.device.core().driver_features(1), 1);
}

#[test]
fn used_buffers_and_configuration_changes_are_told_apart() {
    let mut guest = Guest::live(BASIC);
    guest.echo(0);
    assert_eq!(guest.interrupts(), mmio::INT_USED_BUFFER);
    guest.device.device_mut().changes = true;
    guest.device.process_events();
    let both = mmio::INT_USED_BUFFER | mmio::INT_CONFIG_CHANGE;
    assert_eq!(guest.interrupts(), both);
    guest.write(mmio::INTERRUPT_ACK, mmio::INT_USED_BUFFER);
    assert_eq!(guest.interrupts(), mmio::INT_CONFIG_CHANGE);
    guest.acknowledge();
}

#[test]
fn notifications_for_nothing_are_harmless() {
    let mut guest = Guest::live(BASIC);
    for queue in 0..3 {
        guest.notify(queue);
    }
    assert_eq!((guest.status(), guest.interrupts()), (LIVE, 0));
    guest.echo(0);
}

#[test]
fn notifications_for_queues_that_do_not_exist_are_ignored() {
    let mut guest = Guest::live(BASIC);
    for value in [3, 0x7fff, 0xffff, 0x1_0000, 0x1_0001, u32::MAX] {
        guest.ignores(|guest| guest.write(mmio::QUEUE_NOTIFY, value));
    }
    assert_eq!(guest.device.core().device().calls, 0);
    guest.echo(0);
}

#[test]
fn a_reset_gives_up_what_is_in_flight_and_nothing_is_touched_after_it() {
    let mut guest = Guest::live(BASIC);
    guest.device.device_mut().holds = true;
    guest.offer(0);
    guest.notify(0);
    assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 1);
    guest.set_status(0);
    assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 0);
    assert_eq!(guest.device.core().device().resets, 2);
    guest.device.process_events();
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), None);
    assert_eq!(guest.interrupts(), 0);
    guest.device.device_mut().holds = false;
    guest.recovers();
}

#[test]
fn a_reset_takes_back_interrupts_queues_and_selections() {
    let mut guest = Guest::live(RING_RESET);
    guest.echo(0);
    guest.write(mmio::DEVICE_FEATURES_SEL, 1);
    guest.set_status(0);
    assert_eq!(guest.interrupts(), 0);
    assert_eq!(guest.read(mmio::DEVICE_FEATURES), 0x3000_0020);
    for queue in 0..3 {
        guest.write(mmio::QUEUE_SEL, queue);
        assert_eq!(guest.read(mmio::QUEUE_READY), 0);
        assert_eq!(guest.read(mmio::QUEUE_RESET), 0);
    }
    let layout = guest.device.core().queue_layout(0);
    assert_eq!((layout.size, layout.descriptors, layout.used), (8, 0, 0));
}

#[test]
fn configuration_is_readable_and_writable_from_the_start() {
    let mut guest = Guest::new();
    guest.device.device_mut().config = *b"goldcres";
    assert_eq!(guest.read(mmio::CONFIG), u32::from_le_bytes(*b"gold"));
    guest.write(mmio::CONFIG, 0x1122_3344);
    assert_eq!(guest.read(mmio::CONFIG), 0x1122_3344);
}

#[test]
fn the_generation_changes_with_the_configuration_and_not_else() {
    let mut guest = Guest::live(BASIC);
    let before = guest.read(mmio::CONFIG_GENERATION);
    guest.echo(0);
    guest.device.process_events();
    assert_eq!(guest.read(mmio::CONFIG_GENERATION), before);
    guest.device.device_mut().changes = true;
    guest.device.process_events();
    assert_ne!(guest.read(mmio::CONFIG_GENERATION), before);
}

#[test]
fn what_is_deferred_is_served_together_by_the_next_events_and_not_notified_of_meanwhile() {
    let mut guest = Guest::live(EVENT_IDX);
    assert_eq!(notified_queue(mmio::QUEUE_NOTIFY, &[1, 0, 0, 0]), Some(1));
    assert_eq!(notified_queue(mmio::QUEUE_NOTIFY, &[0, 0, 1, 0]), None);
    assert_eq!(notified_queue(mmio::QUEUE_SEL, &[1, 0, 0, 0]), None);
    guest.echo(1);
    let wanted = guest.queues[1].available_event();
    for _ in 0..3 {
        guest.offer(1);
        assert!(guest.device.defer_queue(1));
    }
    assert_eq!(guest.queues[1].used_index(), 1);
    assert_eq!(guest.queues[1].available_event(), wanted, "once is enough");
    let mut waits = Waits::default();
    guest.device.waits(&mut waits);
    assert_eq!(waits.delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert_eq!(guest.queues[1].used_index(), 4);
    assert_eq!(guest.device.core().last_batch(1).chains, 3);
    waits.clear();
    guest.device.waits(&mut waits);
    assert!(waits.is_empty());
    // Queues that are not, and a device that is not running, defer nothing.
    assert!(!guest.device.defer_queue(u16::MAX));
    guest.set_status(0);
    assert!(!guest.device.defer_queue(1));
}
