//! Saving and restoring.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use goldcrest_irq::IrqLine;
use goldcrest_rate_limiter::ManualClock;
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::Mmio;
use goldcrest_virtio_net::spec::{config as space, control, feature};
use goldcrest_virtio_net::{Loopback, Net, NetConfig, NetState};
use guest::{Guest, config, frame, frame_to};

const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 7];
const FEATURES: u64 = feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_MAC_ADDR
    | feature::MQ
    | feature::STATUS
    | feature::GUEST_ANNOUNCE
    | feature::GUEST_CSUM
    | feature::CTRL_GUEST_OFFLOADS;

fn fresh(mac: &str) -> Net<Loopback> {
    let network = Loopback::new(8).silent().with_pairs(2);
    let config = NetConfig {
        mac: Some(mac.parse().unwrap()),
        queue_pairs: 2,
        rx_rate: "1000/1000".parse().unwrap(),
        tx_rate: "1000/1000".parse().unwrap(),
        ..config()
    };
    let net = Net::new(network.with_features(feature::GUEST_CSUM), &config).unwrap();
    net.with_clock(ManualClock::default())
}

/// A guest that has set all that it can.
fn busy() -> Guest<Loopback> {
    let mut guest = Guest::with(fresh(guest::MAC), FEATURES);
    for (class, command, data) in [
        (control::MAC, control::MAC_ADDR_SET, &OTHER[..]),
        (control::RX, control::RX_PROMISC, &[0]),
        (control::MQ, control::MQ_VQ_PAIRS_SET, &[2, 0]),
        (
            control::GUEST_OFFLOADS,
            control::GUEST_OFFLOADS_SET,
            &[0; 8],
        ),
    ] {
        assert_eq!(guest.command(class, command, data), control::OK);
    }
    guest.give_room(1526);
    guest.give_room(1526);
    guest.arrive(&frame_to(OTHER, 600));
    guest.send(&frame(600));
    guest.send(&frame(600));
    assert_eq!((guest.received().len(), guest.sent(0)), (1, 1));
    guest
}

/// The guest goes on with a device that was restored.
fn clone_of(guest: &mut Guest<Loopback>, net: Net<Loopback>) {
    guest.device.quiesce();
    let state = guest.device.save();
    let mut device = Mmio::new(net, guest.memory.clone(), IrqLine::detached());
    device.restore(state.clone()).unwrap();
    assert_eq!(device.save(), state);
    guest.device = device;
}

#[test]
fn a_restored_device_goes_on_where_it_was_and_has_its_address_announced() {
    let mut guest = busy();
    clone_of(&mut guest, fresh("02:00:00:00:00:99"));
    assert_eq!(guest.read_config(space::MAC), OTHER);
    let (features, pairs) = guest.backend().started().unwrap();
    assert_eq!((pairs, features.0 & feature::GUEST_OFFLOADS), (2, 0));
    // The filter, the buffers, the limits are what they were.
    guest.device.process_events();
    guest.arrive(&frame_to([2, 0, 0, 0, 0, 8], 60));
    guest.arrive(&frame_to(OTHER, 600));
    assert_eq!(guest.received(), [frame_to(OTHER, 600)]);
    assert_eq!(guest.stats().rx_filtered, 1);
    assert_eq!(guest.sent(0), 0);
    assert_eq!(guest.waits().delay, Some(Duration::from_millis(200)));
    assert_eq!(guest.read_config(space::STATUS), [3]);
    assert_eq!(
        guest.command(control::ANNOUNCE, control::ANNOUNCE_ACK, &[]),
        control::OK
    );
    // Its own address is the first device's, too.
    guest.start(FEATURES);
    assert_eq!(guest.read_config(space::MAC), [2, 0, 0, 0, 0, 1]);
}

#[test]
fn what_is_to_be_told_is_told_before_it_is_saved() {
    let mut guest = busy();
    guest.device.device_mut().announce();
    guest.backend().set_link(false);
    clone_of(&mut guest, fresh(guest::MAC));
    assert!(guest.device.save().device.announce);
    // The link is the new network's.
    assert_eq!(guest.read_config(space::STATUS), [3]);
}

#[test]
fn a_device_that_no_driver_has_started_can_be_saved() {
    let state = fresh(guest::MAC).save();
    let mut net = fresh("02:00:00:00:00:99");
    net.restore(state.clone()).unwrap();
    assert_eq!(net.save(), state);
    assert_eq!(net.mac().to_string(), guest::MAC);
}

#[test]
fn states_that_cannot_be_are_refused_and_change_nothing() {
    let refuses = |change: fn(&mut NetState)| {
        let mut net = fresh(guest::MAC);
        let before = net.save();
        let mut state = before.clone();
        change(&mut state);
        assert!(net.restore(state).is_err());
        assert_eq!(net.save(), before);
    };
    refuses(|state| state.queue_pairs = 1);
    refuses(|state| state.pairs = 0);
    refuses(|state| state.pairs = 3);
    refuses(|state| state.mtu = Some(1500));
    refuses(|state| state.offloads = Some(feature::GUEST_TSO4));
    refuses(|state| state.rx_owed = 65_563);
    refuses(|state| state.rx_rate.bytes = None);
    refuses(|state| state.tx_rate.bytes = Some(i128::MAX));
}

#[test]
fn a_state_of_features_that_were_not_agreed_on_is_bounded_by_them() {
    let mut guest = busy();
    guest.device.quiesce();
    let mut state = guest.device.save();
    state.driver_features &= !(feature::MQ | feature::CTRL_GUEST_OFFLOADS);
    let mut device = Mmio::new(fresh(guest::MAC), guest.memory.clone(), IrqLine::detached());
    device.restore(state).unwrap();
    assert_eq!(device.save().device.pairs, 1);
}
