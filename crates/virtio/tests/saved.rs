//! Saved state of a device: it goes on where it was, and what could not have been saved is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_irq::IrqLine;
use goldcrest_snapshot::{Snapshot, open, seal};
use goldcrest_virtio::spec::{feature, mmio, status};
use goldcrest_virtio::{Mmio, MmioState, driver};
use guest::*;

/// The same guest with a fresh device in the old one's state.
fn restored(guest: &Guest) -> Guest {
    let line = IrqLine::detached();
    let mut device = Mmio::new(Echo::default(), guest.memory.clone(), line.clone());
    open(&mut device, &seal(&guest.device).unwrap()).unwrap();
    assert_eq!(device.save(), guest.device.save());
    Guest {
        memory: guest.memory.clone(),
        line,
        device,
        queues: Vec::new(),
    }
}

/// A device that is given this state refuses it, and works after that.
fn refuses(change: impl FnOnce(&mut MmioState<[u8; 8]>)) {
    let guest = Guest::live(BASIC);
    let mut state = guest.device.save();
    state.config_generation = 5;
    change(&mut state);
    let mut other = Guest::new();
    assert!(other.device.restore(state.clone()).is_err(), "{state:?}");
    assert_eq!((other.status(), other.interrupts()), (0, 0));
    assert_eq!(other.device.save(), Guest::new().device.save());
    other.recovers();
}

#[test]
fn a_device_goes_on_where_it_was() {
    let mut guest = Guest::live(EVENT_IDX);
    for _ in 0..5 {
        guest.queues[1].set_used_event(guest.queues[1].used_index());
        guest.echo(1);
    }
    let mut copy = restored(&guest);
    assert_eq!(copy.interrupts(), mmio::INT_USED_BUFFER);
    copy.queues = guest.queues;
    copy.acknowledge();
    assert_eq!(copy.device.core().device().features, Some(EVENT_IDX));
    copy.queues[1].set_used_event(5);
    copy.echo(1);
    assert_eq!(copy.interrupts(), mmio::INT_USED_BUFFER);
    assert_eq!(copy.queues[1].used_index(), 6);
}

#[test]
fn a_device_in_every_state_of_its_set_up_can_be_saved() {
    let mut guest = Guest::new();
    restored(&guest);
    for bits in [1, 3] {
        guest.set_status(bits);
        restored(&guest);
    }
    let mut guest = Guest::negotiated(RING_RESET);
    let layout = guest.queues[0].layout;
    driver::set_up(&mut guest.device, 0, &layout);
    let mut copy = restored(&guest);
    driver::start(&mut copy.device);
    copy.queues = guest.queues;
    copy.echo(0);
    copy.write(mmio::QUEUE_READY, 0);
    let mut copy = restored(&copy);
    copy.ignores(|copy| copy.write(mmio::QUEUE_READY, 1));
    copy.set_status(LIVE | status::FAILED);
    restored(&copy);
}

#[test]
fn what_was_made_available_without_a_word_is_found_after_it() {
    let mut guest = Guest::live(BASIC);
    guest.offer(0);
    let mut copy = restored(&guest);
    copy.device.process_events();
    assert!(guest.queues[0].used().is_some());
    assert_eq!(copy.interrupts(), mmio::INT_USED_BUFFER);
}

#[test]
fn quiescing_leaves_nothing_in_flight() {
    let mut guest = Guest::live(BASIC);
    guest.device.device_mut().holds = true;
    guest.offer(0);
    guest.notify(0);
    guest.device.quiesce();
    assert_eq!(guest.device.core().queue(0).unwrap().in_flight(), 0);
    assert!(guest.queues[0].used().is_some());
    assert_eq!(guest.interrupts(), mmio::INT_USED_BUFFER);
}

#[test]
fn a_driver_hears_of_a_host_that_does_not_let_the_copy_begin() {
    let guest = Guest::live(BASIC);
    let mut other = Guest::new();
    other.device.device_mut().broken = true;
    other.device.restore(guest.device.save()).unwrap();
    assert_eq!(other.status(), LIVE | status::DEVICE_NEEDS_RESET);
    assert_eq!(other.interrupts(), mmio::INT_CONFIG_CHANGE);
}

#[test]
fn status_out_of_order_and_features_that_are_not_offered_are_refused() {
    for bits in [2, 4, 8, 5, 7, 10, 0x10, 0x2f] {
        refuses(|state| state.status = bits);
    }
    for features in [0, FEATURE, BASIC | UNKNOWN_FEATURE, u64::MAX] {
        refuses(|state| state.driver_features = features);
    }
    refuses(|state| state.interrupt_status = 4);
    // A queue cannot be ready before features are agreed on.
    refuses(|state| state.status = status::ACKNOWLEDGE | status::DRIVER);
}

#[test]
fn queues_that_could_not_have_been_set_up_are_refused() {
    for size in [0, 3, 16, 0x1_0008, u32::MAX] {
        refuses(|state| state.queues[0].size = size);
    }
    for address in [1, 0x2_0000, u64::MAX - 15, u64::MAX] {
        refuses(|state| state.queues[0].descriptors = address);
        refuses(|state| state.queues[1].available = address);
        refuses(|state| state.queues[2].used = address);
    }
    refuses(|state| state.queues.truncate(2));
    refuses(|state| state.queues.push(state.queues[0]));
    refuses(|state| state.queues.clear());
}

#[test]
fn indexes_out_of_range_are_refused_or_found_out_at_the_first_access() {
    refuses(|state| state.queues[0].signalled = 1);
    refuses(|state| state.queues[0].signalled = 0xfff0);
    for next_available in [1, 0x8000, 0xffff] {
        let mut guest = Guest::live(INDIRECT);
        let mut state = guest.device.save();
        state.queues[0].next_available = next_available;
        state.queue_sel = u32::MAX;
        state.device_features_sel = u32::MAX;
        state.driver_features_sel = u32::MAX;
        guest.device.restore(state).unwrap();
        guest.device.process_events();
        guest.notify(0);
        assert!(guest.device.core().device().chains <= 16);
        guest.recovers();
    }
}

#[test]
fn features_that_are_not_agreed_on_yet_are_checked_when_they_are() {
    let mut guest = Guest::new();
    let mut state = guest.device.save();
    state.status = status::ACKNOWLEDGE | status::DRIVER;
    state.driver_features = feature::VERSION_1 | UNKNOWN_FEATURE;
    guest.device.restore(state).unwrap();
    guest.ignores(|guest| guest.set_status(11));
    guest.recovers();
}
