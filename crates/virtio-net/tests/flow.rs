//! How frames go on after something was full, slow, limited, stopped or broken.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use goldcrest_rate_limiter::ManualClock;
use goldcrest_virtio::driver::{read, write};
use goldcrest_virtio::spec::{feature::RING_RESET, mmio};
use goldcrest_virtio::{Features, Ram, Segment, Waits};
use goldcrest_virtio_net::spec::{control, feature, queue};
use goldcrest_virtio_net::{Header, Loopback, Net, NetBackend, NetConfig, scatter, total};
use guest::{Guest, config, frame, headed};
use proptest::prelude::*;

/// What a network does when it is asked for a frame, one after the other: gives one of this length, or fails so.
#[derive(Debug, Default)]
struct Script(VecDeque<Result<usize, io::ErrorKind>>, u32);

impl NetBackend for Script {
    fn features(&self) -> u64 {
        0
    }

    fn start(&mut self, _: Features, _: u16) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, _: u16, _: Ram<'_>, _: &Header, _: &[Segment]) -> io::Result<()> {
        match self.0.pop_front() {
            Some(Err(kind)) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, _: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        self.1 += 1;
        let next = self.0.front().copied();
        match next.unwrap_or(Err(io::ErrorKind::WouldBlock)) {
            Ok(len) => {
                let bytes = headed(&frame(len))[..len].to_vec();
                if len <= total(room) {
                    scatter(ram, room, 0, &bytes).unwrap();
                    self.0.pop_front();
                }
                Ok(len)
            }
            Err(kind) => {
                self.0.pop_front();
                Err(kind.into())
            }
        }
    }

    fn discard(&mut self, _: u16) {
        self.0.pop_front();
    }

    fn waits(&self, _: u16, receive: bool, _: bool, waits: &mut Waits) {
        if receive {
            waits.within(Duration::from_millis(5));
        }
    }

    fn reset(&mut self) {}
}

fn script(steps: &[Result<usize, io::ErrorKind>]) -> (Net<Script>, ManualClock) {
    let clock = ManualClock::default();
    let script = Script(steps.iter().copied().collect(), 0);
    let net = Net::new(script, &config()).unwrap();
    (net.with_clock(clock.clone()), clock)
}

const NOT_NOW: Result<usize, io::ErrorKind> = Err(io::ErrorKind::WouldBlock);
const BROKEN: Result<usize, io::ErrorKind> = Err(io::ErrorKind::Other);

proptest! {
    /// CVE-2020-16843 in another monitor was that receiving stopped for ever, if the host had nothing, or the guest no
    /// room, at the wrong moment. Whatever comes in between: what fits comes, in its order, as soon as there are both.
    #[test]
    fn receiving_never_stops_for_ever(
        merge: bool,
        steps in proptest::collection::vec(
            prop_oneof![Just(NOT_NOW), Just(BROKEN), (0_usize..4000).prop_map(Ok), Just(Ok(70_000))], 0..30),
        rooms in proptest::collection::vec((0_u8..4, 26_u32..2000), 0..60),
    ) {
        let (net, clock) = script(&steps);
        let mut guest = Guest::with(net, if merge { feature::MRG_RXBUF } else { 0 });
        let mut frames = Vec::new();
        for (notify, len) in rooms {
            guest.offer_room(0, &[len]);
            if notify & 1 != 0 {
                guest.notify(0);
            }
            if notify & 2 != 0 {
                guest.device.process_events();
            }
            frames.extend(guest.received());
        }
        // From now on there is room for anything, and time passes as the device asks for.
        for _ in 0..100 {
            guest.offer_room(0, &[4100]);
        }
        guest.notify(0);
        for _ in 0..300 {
            clock.advance(guest.waits().delay.unwrap_or_default());
            guest.device.process_events();
            frames.extend(guest.received());
        }
        let stats = guest.stats();
        let count = |test: fn(usize) -> bool| steps.iter().flatten().filter(|len| test(**len)).count() as u64;
        let frame_count = count(|len| (26..70_000).contains(&len));
        prop_assert_eq!(frames.len() as u64 + stats.rx_too_long, frame_count + count(|len| len == 70_000));
        prop_assert_eq!(stats.rx_too_short, count(|len| len < 26));
        prop_assert_eq!(frames.len() as u64, stats.rx_frames);
        // In their order, none twice.
        let mut given = steps.iter().flatten();
        for received in &frames {
            prop_assert!(given.any(|len| *len == received.len() + 12));
        }
        if merge {
            // None of them was dropped for want of room that came in time.
            prop_assert!(stats.rx_too_long >= count(|len| len == 70_000));
        }
        prop_assert!(!guest.needs_reset());
    }
}

#[test]
fn a_network_that_fails_is_asked_again_in_a_while_and_not_at_once() {
    let (net, clock) = script(&[BROKEN, BROKEN, Ok(72)]);
    let mut guest = Guest::with(net, 0);
    guest.give_room(1526);
    assert_eq!(guest.stats().rx_errors, 1);
    let delay = guest.waits().delay.unwrap();
    assert_eq!(delay, Duration::from_millis(100));
    clock.advance(delay);
    guest.device.process_events();
    clock.advance(guest.waits().delay.unwrap());
    guest.device.process_events();
    assert_eq!(
        (guest.received(), guest.stats().rx_errors),
        (vec![frame(60)], 2)
    );
}

#[test]
fn a_frame_that_never_fits_does_not_keep_those_behind_it() {
    // As long as every buffer that the queue can have, and more.
    for (len, count) in [(60_000, 256), (65_563, 10), (1 << 20, 10)] {
        let (net, _) = script(&[Ok(len), Ok(72)]);
        let mut guest = Guest::with(net, feature::MRG_RXBUF);
        for _ in 0..count {
            guest.offer_room(0, &[200]);
        }
        guest.notify(0);
        assert_eq!(guest.received(), [frame(60)], "{len}");
        assert_eq!(guest.stats().rx_too_long, 1);
    }
}

#[test]
fn a_network_without_end_does_not_keep_the_caller() {
    // Frames that use no buffer, and frames that do.
    for len in [0, 1 << 20, 72] {
        let steps = vec![Ok(len); 10_000];
        let (net, _) = script(&steps);
        let mut guest = Guest::with(net, 0);
        for _ in 0..256 {
            guest.offer_room(0, &[1526]);
        }
        guest.notify(0);
        let asked = guest.device.core().device().backend().1;
        assert!(asked <= 257, "{len}: {asked}");
        let used = guest.received().len();
        assert_eq!(used, if len == 72 { 256 } else { 0 });
        if used == 0 {
            assert_eq!(guest.waits().delay, Some(Duration::ZERO));
        }
    }
}

#[test]
fn a_driver_without_end_does_not_keep_the_caller() {
    let mut guest = Guest::new(Loopback::new(600).silent(), &config(), 0);
    // The index says that there is a whole queue more, over and over.
    for _ in 0..queue::SIZE {
        guest.add(1, &[]);
    }
    guest.notify(1);
    assert!(!guest.needs_reset());
    for _ in 0..300 {
        guest.send(&frame(60));
    }
    assert_eq!(guest.stats().tx_frames, 300);
}

#[test]
fn frames_that_the_host_refuses_are_dropped_and_counted() {
    let (net, _) = script(&[BROKEN, Err(io::ErrorKind::InvalidInput)]);
    let mut guest = Guest::with(net, 0);
    for _ in 0..3 {
        guest.send(&frame(60));
    }
    assert_eq!(guest.sent(0), 3);
    assert_eq!((guest.stats().tx_errors, guest.stats().tx_frames), (2, 1));
    assert_eq!(guest.stats().tx_dropped(), 2);
}

#[test]
fn what_the_host_does_not_let_begin_makes_the_device_need_a_reset() {
    let mut network = Loopback::new(1);
    network.fail_to_start();
    let mut guest = Guest::new(network, &config(), 0);
    assert!(guest.needs_reset());
    assert_eq!(guest.error(), "cannot start a network device");
    guest.start(0);
    assert!(!guest.needs_reset());
}

/// With 10,000 bytes a second, of which 2,000 at once.
fn limited() -> (Guest<Loopback>, ManualClock) {
    let rate: goldcrest_rate_limiter::RateConfig = "10000/2000+100ops/10".parse().unwrap();
    let config = NetConfig {
        rx_rate: rate,
        tx_rate: rate,
        queue_pairs: 2,
        ..config()
    };
    let clock = ManualClock::default();
    let network = Loopback::new(64).silent().with_pairs(2);
    let net = Net::new(network, &config).unwrap();
    let features = feature::CTRL_VQ | feature::MQ;
    let mut guest = Guest::with(net.with_clock(clock.clone()), features);
    let pairs = control::MQ_VQ_PAIRS_SET;
    assert_eq!(guest.command(control::MQ, pairs, &[2, 0]), control::OK);
    (guest, clock)
}

#[test]
fn what_the_guest_sends_is_limited_and_nothing_lost() {
    let (mut guest, clock) = limited();
    for _ in 0..3 {
        guest.send(&frame(1000));
    }
    assert_eq!(guest.sent(0), 2);
    // Another pair has to wait behind, or its small frames would keep the large one from ever going.
    guest.send_parts(1, &headed(&frame(60)), &[]);
    assert_eq!(guest.sent(1), 0);
    let delay = guest.waits().delay.unwrap();
    assert_eq!(delay, Duration::from_millis(100));
    clock.advance(delay / 2);
    guest.device.process_events();
    assert_eq!((guest.sent(0), guest.sent(1)), (0, 0));
    clock.advance(delay / 2);
    guest.device.process_events();
    assert_eq!((guest.sent(0), guest.sent(1)), (1, 0));
    clock.advance(guest.waits().delay.unwrap());
    guest.device.process_events();
    assert_eq!(guest.sent(1), 1);
    // A reset brings nothing.
    guest.start(0);
    guest.send(&frame(1000));
    assert_eq!(guest.sent(0), 0);
    // Many small ones are limited by their number.
    clock.advance(Duration::from_secs(10));
    guest.device.process_events();
    for _ in 0..20 {
        guest.send(&frame(14));
    }
    assert_eq!(guest.sent(0), 10);
    assert_eq!(guest.stats().tx_dropped(), 0);
}

#[test]
fn what_the_network_had_no_room_for_is_counted_when_it_goes() {
    let rate = "10000/1000".parse().unwrap();
    let config = NetConfig {
        tx_rate: rate,
        ..config()
    };
    let clock = ManualClock::default();
    let net = Net::new(Loopback::new(1).silent(), &config).unwrap();
    let mut guest = Guest::with(net.with_clock(clock.clone()), 0);
    guest.send(&frame(500));
    for _ in 0..10 {
        guest.send(&frame(500));
    }
    assert_eq!(guest.sent(0), 1);
    guest.backend().take_sent();
    guest.device.process_events();
    assert_eq!(guest.sent(0), 1);
}

#[test]
fn another_limit_lets_go_what_the_old_one_held_back() {
    let (mut guest, _clock) = limited();
    for _ in 0..8 {
        guest.offer_room(0, &[1526]);
    }
    guest.notify(0);
    for _ in 0..4 {
        guest.arrive(&frame(1000));
    }
    assert_eq!(guest.received().len(), 3);
    for _ in 0..5 {
        guest.send(&frame(1000));
    }
    let held = 5 - guest.sent(0);
    assert!(held > 0);
    let free = goldcrest_rate_limiter::RateConfig::default();
    guest.device.device_mut().set_rates(Some(free), None);
    guest.device.process_events();
    assert_eq!((guest.received().len(), guest.sent(0)), (1, 0));
    guest.device.device_mut().set_rates(None, Some(free));
    guest.device.process_events();
    assert_eq!(guest.sent(0), held);
    assert_eq!(guest.stats().tx_dropped() + guest.stats().rx_dropped(), 0);
}

#[test]
fn what_the_guest_receives_is_limited_and_nothing_lost() {
    let (mut guest, clock) = limited();
    for _ in 0..8 {
        guest.offer_room(0, &[1526]);
    }
    guest.notify(0);
    for _ in 0..4 {
        guest.arrive(&frame(1000));
    }
    // How long a frame is shows when it is there: it is paid for afterwards.
    assert_eq!(guest.received().len(), 3);
    let delay = guest.waits().delay.unwrap();
    assert_eq!(delay, Duration::from_millis(100));
    clock.advance(delay);
    guest.device.process_events();
    assert_eq!(guest.received().len(), 1);
    guest.arrive(&frame(60));
    assert_eq!(guest.received().len(), 0);
    // A reset brings nothing.
    guest.start(0);
    guest.give_room(1526);
    assert_eq!(guest.received().len(), 0);
    clock.advance(Duration::from_secs(1));
    guest.device.process_events();
    assert_eq!(guest.received(), [frame(60)]);
    assert_eq!(guest.stats().rx_dropped(), 0);
}

#[test]
fn a_reset_gives_up_all_and_touches_no_buffer_after_it() {
    let mut guest = Guest::silent(feature::MRG_RXBUF);
    for _ in 0..10 {
        guest.give_room(1526);
    }
    assert_eq!(guest.in_flight(0), 1);
    write(&mut guest.device, mmio::STATUS, 0);
    assert!(guest.waits().is_empty());
    assert_eq!(guest.backend().started(), None);
    guest.arrive(&frame(60));
    assert_eq!(guest.received(), [[0; 0]; 0]);
    guest.start(0);
    guest.give_room(1526);
    assert_eq!(guest.received(), [frame(60)]);
}

#[test]
fn queues_are_reset_one_by_one() {
    let (mut guest, clock) = limited();
    guest.start(RING_RESET);
    guest.give_room(1526);
    for _ in 0..3 {
        guest.send(&frame(1000));
    }
    assert!(guest.waits().delay.is_some());
    for index in [0, 1, 2] {
        write(&mut guest.device, mmio::QUEUE_SEL, index);
        write(&mut guest.device, mmio::QUEUE_RESET, 1);
        assert_eq!(read(&mut guest.device, mmio::QUEUE_READY), 0);
    }
    assert!(guest.waits().is_empty(), "{:?}", guest.waits());
    clock.advance(Duration::from_secs(10));
    guest.arrive(&frame(60));
    assert_eq!((guest.received().len(), guest.sent(0)), (0, 2));
    assert!(!guest.needs_reset());
}

#[test]
fn a_limit_wakes_nobody_for_frames_that_have_no_room_any_more() {
    let (mut guest, clock) = limited();
    guest.start(RING_RESET);
    for _ in 0..4 {
        guest.give_room(1526);
    }
    for _ in 0..3 {
        guest.arrive(&frame(1000));
    }
    assert!(guest.waits().delay.is_some());
    write(&mut guest.device, mmio::QUEUE_SEL, 0);
    write(&mut guest.device, mmio::QUEUE_RESET, 1);
    clock.advance(Duration::from_secs(1));
    guest.device.process_events();
    assert!(guest.waits().is_empty(), "{:?}", guest.waits());
}

#[test]
fn a_frame_that_does_not_fit_wakes_nobody_while_the_limit_holds_it_back() {
    let (mut guest, clock) = limited();
    guest.start(feature::MRG_RXBUF | feature::CTRL_VQ | feature::MQ);
    let pairs = control::MQ_VQ_PAIRS_SET;
    assert_eq!(guest.command(control::MQ, pairs, &[2, 0]), control::OK);
    // By the one pair a frame waits for room, by the other many wait for the limit.
    guest.give_room(100);
    guest.arrive(&frame(1000));
    for _ in 0..3 {
        guest.offer_room(1, &[2100]);
        assert!(guest.backend().give_by(1, &headed(&frame(2000))));
    }
    guest.notify(2);
    assert_eq!(guest.received_by(1).len(), 2);
    clock.advance(Duration::from_millis(150));
    guest.device.process_events();
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(50)));
    // None is lost by that.
    clock.advance(Duration::from_secs(1));
    for _ in 0..10 {
        guest.offer_room(0, &[1000]);
    }
    guest.notify(0);
    assert_eq!(guest.received(), [frame(1000)]);
}

#[test]
fn who_waits_behind_a_frame_that_is_given_up_goes_on() {
    let (mut guest, clock) = limited();
    guest.start(RING_RESET | feature::CTRL_VQ | feature::MQ);
    let pairs = control::MQ_VQ_PAIRS_SET;
    assert_eq!(guest.command(control::MQ, pairs, &[2, 0]), control::OK);
    for _ in 0..3 {
        guest.send(&frame(1000));
    }
    guest.send_parts(1, &headed(&frame(60)), &[]);
    write(&mut guest.device, mmio::QUEUE_SEL, 1);
    write(&mut guest.device, mmio::QUEUE_RESET, 1);
    for _ in 0..2 {
        clock.advance(guest.waits().delay.unwrap());
        guest.device.process_events();
    }
    assert_eq!(guest.sent(1), 1);
    assert!(guest.waits().is_empty(), "{:?}", guest.waits());
}

#[test]
fn a_device_that_goes_on_after_it_was_saved_misses_nothing() {
    let (net, _) = script(&[Ok(60_000); 5]);
    let mut guest = Guest::with(net, feature::MRG_RXBUF);
    for _ in 0..5 {
        guest.offer_room(0, &[60_000]);
    }
    guest.notify(0);
    assert_eq!(guest.received().len(), 3);
    guest.device.quiesce();
    assert_eq!((guest.in_flight(0), guest.received().len()), (0, 0));
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert_eq!(guest.received().len(), 2);
}

#[test]
fn receive_buffers_are_put_back_in_their_order() {
    let mut guest = Guest::silent(feature::MRG_RXBUF);
    for len in [30, 40, 50, 1000, 1000, 1000] {
        guest.offer_room(0, &[len]);
    }
    guest.notify(0);
    assert_eq!((guest.in_flight(0), guest.indexes(0)), (5, (5, 0)));
    guest.arrive(&frame(40));
    assert_eq!(guest.received(), [frame(40)]);
    guest.device.quiesce();
    assert_eq!((guest.in_flight(0), guest.indexes(0)), (0, (2, 2)));
    guest.arrive(&frame(60));
    guest.arrive(&frame(61));
    assert_eq!(guest.received(), [frame(60), frame(61)]);
    assert!(guest.waits().delay.is_some());
}
