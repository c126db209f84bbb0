//! Saved devices: their streams are gone, and their drivers know before anything else happens.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::time::Duration;

use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::ManualClock;
use goldcrest_snapshot::{Snapshot, open, seal};
use goldcrest_virtio::Mmio;
use goldcrest_virtio::driver::{initialise, notify, read};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio_vsock::spec::{EVENT_TRANSPORT_RESET, op, queue};
use goldcrest_virtio_vsock::{MemoryHost, Vsock, VsockState};
use guest::{CID, Guest, data, header};

/// Goes on in a device that was just made, with this CID, on another host.
fn moved(guest: &mut Guest<MemoryHost>, cid: u64) -> (MemoryHost, ManualClock) {
    guest.device.quiesce();
    let saved = seal(&guest.device).unwrap();
    let (host, clock) = (MemoryHost::default(), ManualClock::default());
    let device = Vsock::new(host.clone(), cid).unwrap();
    let device = device.with_clock(clock.clone());
    guest.device = Mmio::new(device, guest.memory.clone(), IrqLine::detached());
    open(&mut guest.device, &saved).unwrap();
    (host, clock)
}

/// A guest with a stream from port 99 to port 1234.
fn connected() -> Guest<MemoryHost> {
    let (mut guest, host, _) = Guest::in_memory();
    host.listen(1234, 8, 100);
    guest.send(&header(op::REQUEST, 99, 1234), &[]);
    assert_eq!(guest.ops(), [op::RESPONSE]);
    guest
}

#[test]
fn a_driver_is_told_that_its_streams_are_gone_before_new_ones_begin() {
    let mut guest = connected();
    let (host, _) = moved(&mut guest, CID);
    host.listen(1234, 8, 100);
    let program = host.connect(52, 100);
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert_eq!(guest.events(), [EVENT_TRANSPORT_RESET]);
    // It has not had the time to heed it: what begins now it would end.
    guest.send(&header(op::REQUEST, 98, 1234), &[]);
    guest.send(&data(99, 1234, b"old"), b"old");
    assert!(guest.all_packets().is_empty());
    guest.give_events(1);
    let ops: Vec<_> = guest
        .all_packets()
        .iter()
        .map(|(p, _)| (p.op, p.dst_port))
        .collect();
    let expected = [(op::RST, 99), (op::REQUEST, 52), (op::RESPONSE, 98)];
    assert_eq!(ops, expected);
    assert!(!program.is_closed() && host.accept(1234).is_some());
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(8)));
}

#[test]
fn a_driver_that_gives_no_sign_is_not_waited_for_without_end() {
    let mut guest = connected();
    let (host, clock) = moved(&mut guest, CID);
    host.connect(52, 100);
    guest.device.process_events();
    assert!(guest.all_packets().is_empty());
    assert_eq!(guest.waits().delay, Some(Duration::from_secs(2)));
    clock.advance(Duration::from_secs(2));
    guest.device.process_events();
    assert_eq!(guest.ops(), [op::REQUEST]);
}

#[test]
fn a_driver_without_buffers_for_events_is_told_once_it_has_one() {
    let (mut guest, _, _) = Guest::in_memory();
    guest.start(guest::FEATURES);
    guest.give(10, 4096);
    let (host, clock) = moved(&mut guest, CID);
    host.connect(52, 100);
    guest.device.process_events();
    assert!(guest.all_packets().is_empty());
    clock.advance(Duration::from_secs(2));
    guest.device.process_events();
    assert_eq!(guest.ops(), [op::REQUEST]);
    assert!(guest.events().is_empty());
    guest.give_events(1);
    assert_eq!(guest.events(), [EVENT_TRANSPORT_RESET]);
    guest.give_events(1);
    assert!(guest.events().is_empty(), "it is told once");
}

#[test]
fn the_device_is_notified_of_the_buffer_by_which_a_driver_shows_that_it_has_heard() {
    let mut guest = connected();
    moved(&mut guest, CID);
    guest.device.process_events();
    // Eight were given, one was used; the ninth is the sign.
    assert_eq!(guest.event.available_event(), 8);
    assert_eq!(guest.events().len(), 1);
}

#[test]
fn a_driver_may_find_another_cid() {
    let mut guest = connected();
    moved(&mut guest, CID + 5);
    assert_eq!(u64::from(read(&mut guest.device, mmio::CONFIG)), CID + 5);
}

#[test]
fn ports_of_the_host_are_not_used_again_after_it() {
    let (mut guest, host, _) = Guest::in_memory();
    let port = |guest: &mut Guest<_>, host: &MemoryHost| {
        host.connect(52, 100);
        guest.device.process_events();
        guest.packet().0.src_port
    };
    let first = port(&mut guest, &host);
    let (host, _) = moved(&mut guest, CID);
    guest.device.process_events();
    guest.give_events(1);
    assert_eq!(port(&mut guest, &host), first + 1);
}

#[test]
fn a_device_without_a_driver_has_nothing_to_tell() {
    let (mut guest, _, _) = Guest::in_memory();
    goldcrest_virtio::driver::write(&mut guest.device, mmio::STATUS, 0);
    moved(&mut guest, CID);
    let queues = [&guest.receive, &guest.transmit, &guest.event];
    initialise(&mut guest.device, guest::FEATURES, &queues);
    notify(&mut guest.device, queue::EVENT);
    assert!(guest.events().is_empty());
    assert!(guest.waits().is_empty());
}

#[test]
fn what_cannot_have_been_saved_is_refused() {
    let (guest, _, _) = Guest::in_memory();
    let saved = guest.device.core().device().save();
    assert_eq!(
        saved,
        VsockState {
            active: true,
            next_port: 1 << 30
        }
    );
    let mut device = Vsock::new(MemoryHost::default(), CID).unwrap();
    for next_port in [0, (1 << 30) - 1, 1 << 31, u32::MAX] {
        let before = device.save();
        let refused = device.restore(VsockState { next_port, ..saved });
        assert!(refused.is_err());
        assert_eq!(device.save(), before);
    }
    let last = VsockState {
        next_port: (1 << 31) - 1,
        ..saved
    };
    device.restore(last).unwrap();
    assert_eq!(device.save(), last);
}
