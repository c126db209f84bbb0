//! The control queue (§5.1.6.5), the configuration (§5.1.4) and features (§5.1.3).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod guest;

use goldcrest_irq::IrqLine;
use goldcrest_virtio::driver::{Buffer, negotiate, offered_features, read};
use goldcrest_virtio::spec::feature::VERSION_1;
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio::{Features, Mmio};
use goldcrest_virtio_net::spec::control::{self, ERR, OK};
use goldcrest_virtio_net::spec::{config as space, feature};
use goldcrest_virtio_net::{Loopback, Net, NetBackend, NetConfig, NetError};
use guest::{Guest, config, frame, frame_to};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];

const CONTROL: u64 = feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_RX_EXTRA
    | feature::CTRL_MAC_ADDR
    | feature::STATUS
    | feature::GUEST_ANNOUNCE;
const OFFLOADS: u64 = feature::HOST_OFFLOADS | feature::GUEST_OFFLOADS;

/// A device with all that there is, and `pairs` pairs of queues.
fn net(pairs: u16) -> Net<Loopback> {
    let network = Loopback::new(16).silent().with_pairs(pairs);
    let config = NetConfig {
        queue_pairs: pairs,
        mtu: Some(1500),
        ..config()
    };
    Net::new(network.with_features(OFFLOADS), &config).unwrap()
}

fn transport(net: Net<Loopback>) -> Mmio<Net<Loopback>> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    Mmio::new(net, memory, IrqLine::detached())
}

/// Which of these the guest gets frames to.
fn gets(guest: &mut Guest<Loopback>) -> [bool; 4] {
    [OWN, OTHER, GROUP, EVERYBODY].map(|to| {
        guest.give_room(1526);
        guest.arrive(&frame_to(to, 60));
        let got = guest.received();
        assert!(got.is_empty() || got == [frame_to(to, 60)]);
        !got.is_empty()
    })
}

#[test]
fn what_the_backend_cannot_do_is_not_offered() {
    let offered = |net: Net<Loopback>| offered_features(&mut transport(net));
    let basic = offered(Net::new(Loopback::new(1), &config()).unwrap());
    let extras = feature::MQ | feature::MTU | feature::CTRL_GUEST_OFFLOADS;
    assert_eq!(basic & (OFFLOADS | extras | feature::CTRL_VLAN), 0);
    assert_eq!(
        basic & (CONTROL | feature::MAC | feature::MRG_RXBUF),
        CONTROL | feature::MAC | feature::MRG_RXBUF
    );
    assert_eq!(offered(net(2)) & (OFFLOADS | extras), OFFLOADS | extras);
    // Nothing that needs what it cannot.
    let network = Loopback::new(1).with_features(OFFLOADS & !feature::CSUM);
    let some = offered(Net::new(network, &config()).unwrap());
    assert_eq!(some & OFFLOADS, feature::GUEST_OFFLOADS);
}

#[test]
fn a_driver_that_takes_a_feature_without_what_it_needs_is_refused() {
    use feature::*;
    let mut device = transport(net(2));
    for (needy, needed) in [
        (GUEST_TSO4, GUEST_CSUM),
        (GUEST_TSO6, GUEST_CSUM),
        (GUEST_UFO, GUEST_CSUM),
        (GUEST_USO4, GUEST_CSUM),
        (GUEST_USO6, GUEST_CSUM),
        (GUEST_ECN, GUEST_CSUM | GUEST_TSO6),
        (HOST_TSO4, CSUM),
        (HOST_TSO6, CSUM),
        (HOST_UFO, CSUM),
        (HOST_USO, CSUM),
        (HOST_ECN, CSUM | HOST_TSO4),
        (CTRL_RX, CTRL_VQ),
        (GUEST_ANNOUNCE, CTRL_VQ),
        (MQ, CTRL_VQ),
        (CTRL_MAC_ADDR, CTRL_VQ),
        (CTRL_GUEST_OFFLOADS, CTRL_VQ),
        (CTRL_RX_EXTRA, CTRL_VQ | CTRL_RX),
    ] {
        assert!(!negotiate(&mut device, VERSION_1 | needy), "{needy:#x}");
        assert!(
            negotiate(&mut device, VERSION_1 | needy | needed),
            "{needy:#x}"
        );
    }
}

#[test]
fn the_configuration_has_address_link_pairs_and_mtu() {
    let mut guest = Guest::with(net(3), CONTROL);
    assert_eq!(
        guest.read_config(0),
        [2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0xdc, 5]
    );
    assert_eq!(guest.read_config(10), [0xdc, 5, 0, 0]);
    assert_eq!(guest.read_config(u64::MAX), [0; 8]);
    guest.backend().set_link(false);
    guest.device.process_events();
    assert_eq!(guest.read_config(space::STATUS), [0]);
    assert_eq!(read(&mut guest.device, mmio::INTERRUPT_STATUS), 2);
    // Without a word of it, one is chosen.
    let [one, other] = [(); 2].map(|()| {
        let net = Net::new(Loopback::new(1), &NetConfig::default()).unwrap();
        net.mac()
    });
    assert_ne!(one, other);
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let with = |change: fn(&mut NetConfig)| {
        let mut config = config();
        change(&mut config);
        Net::new(Loopback::new(1).with_pairs(9), &config).unwrap_err()
    };
    let pairs = |error: &NetError| matches!(error, NetError::Pairs { most: 8, .. });
    assert!(pairs(&with(|config| config.queue_pairs = 0)));
    assert!(pairs(&with(|config| config.queue_pairs = 9)));
    let error = with(|config| config.mtu = Some(67));
    assert_eq!(error.to_string(), "MTU 67 is below the least, 68");
}

#[test]
fn the_driver_gets_the_frames_that_it_wants() {
    let mut guest = Guest::with(net(1), CONTROL);
    let set = |guest: &mut Guest<Loopback>, mode: u8, on: u8| {
        assert_eq!(guest.command(control::RX, mode, &[on]), OK);
    };
    assert_eq!(gets(&mut guest), [true; 4]);
    set(&mut guest, control::RX_PROMISC, 0);
    assert_eq!(gets(&mut guest), [true, false, false, true]);
    set(&mut guest, control::RX_ALLMULTI, 1);
    assert_eq!(gets(&mut guest), [true, false, true, true]);
    set(&mut guest, control::RX_NOBCAST, 1);
    set(&mut guest, control::RX_ALLMULTI, 0);
    let tables = |single: &[[u8; 6]], groups: &[[u8; 6]]| {
        let mut data = Vec::new();
        for table in [single, groups] {
            data.extend((table.len() as u32).to_le_bytes());
            data.extend(table.as_flattened());
        }
        data
    };
    let table_set = control::MAC_TABLE_SET;
    let one_each = tables(&[[9; 6], OTHER], &[GROUP]);
    assert_eq!(guest.command(control::MAC, table_set, &one_each), OK);
    assert_eq!(gets(&mut guest), [true, true, true, false]);
    assert_eq!(
        guest.command(control::MAC, table_set, &tables(&[], &[])),
        OK
    );
    assert_eq!(gets(&mut guest), [true, false, false, false]);
    // More than there is room for is all of them.
    let many = tables(&vec![[8; 6]; 65], &[]);
    assert_eq!(guest.command(control::MAC, table_set, &many), OK);
    assert_eq!(gets(&mut guest), [true, true, false, false]);
    for wrong in [
        &many[..many.len() - 1],
        &many[..3],
        &[],
        &[one_each, vec![0]].concat(),
        &[0xff; 400],
    ] {
        assert_eq!(guest.command(control::MAC, table_set, wrong), ERR);
    }
    let address_set = control::MAC_ADDR_SET;
    assert_eq!(
        guest.command(control::MAC, table_set, &tables(&[], &[])),
        OK
    );
    assert_eq!(guest.command(control::MAC, address_set, &OTHER), OK);
    assert_eq!(guest.read_config(space::MAC), OTHER);
    assert_eq!(gets(&mut guest), [false, true, false, false]);
    for wrong in [&GROUP[..], &[0; 6], &OTHER[..5], &[2; 7]] {
        assert_eq!(guest.command(control::MAC, address_set, wrong), ERR);
    }
    assert!(guest.stats().rx_filtered > 0);
    // All of it is over with a reset.
    guest.start(CONTROL);
    assert_eq!(guest.read_config(space::MAC), OWN);
    assert_eq!(gets(&mut guest), [true; 4]);
}

#[test]
fn commands_that_do_not_exist_or_were_not_agreed_on_are_refused() {
    let mut guest = Guest::with(net(2), feature::CTRL_VQ);
    for (class, command, data) in [
        (control::RX, control::RX_PROMISC, &[1][..]),
        (control::RX, control::RX_ALLUNI, &[1]),
        (control::MAC, control::MAC_ADDR_SET, &OTHER),
        (control::MAC, control::MAC_TABLE_SET, &[0; 8]),
        (control::ANNOUNCE, control::ANNOUNCE_ACK, &[]),
        (control::MQ, control::MQ_VQ_PAIRS_SET, &[1, 0]),
        (
            control::GUEST_OFFLOADS,
            control::GUEST_OFFLOADS_SET,
            &[0; 8],
        ),
    ] {
        assert_eq!(
            guest.command(class, command, data),
            ERR,
            "{class} {command}"
        );
    }
    let all = CONTROL | feature::MQ | feature::CTRL_GUEST_OFFLOADS;
    let mut guest = Guest::with(net(2), all);
    for class in 0..=255 {
        for command in [0, 1, 6, 255] {
            if (class, command) != (control::ANNOUNCE, control::ANNOUNCE_ACK) {
                assert_eq!(guest.command(class, command, &[]), ERR, "{class} {command}");
            }
        }
    }
    for wrong in [&[2][..], &[1, 1], &[]] {
        assert_eq!(guest.command(control::RX, control::RX_PROMISC, wrong), ERR);
    }
    assert_eq!(guest.command(control::RX, 6, &[1]), ERR);
    assert_eq!(guest.command_with(&[], 1), Some(ERR));
    assert_eq!(guest.command_with(&[0], 1), Some(ERR));
    // The answer is its first byte, whatever room there is.
    assert_eq!(guest.command_with(&[0, 0, 1], 100), Some(OK));
    assert!(guest.stats().control_errors > 1000);
}

#[test]
fn a_command_that_cannot_be_answered_makes_the_device_need_a_reset() {
    let mut guest = Guest::with(net(1), CONTROL);
    assert_eq!(guest.command_with(&[0, 0, 1], 0), None);
    assert!(
        guest.error().contains("1 bytes too short"),
        "{}",
        guest.error()
    );
    guest.start(CONTROL);
    guest.add(
        2,
        &[
            Buffer::Readable(guest::RAM, 3),
            Buffer::Writable(guest::DATA, 1),
        ],
    );
    guest.notify(2);
    assert!(
        guest.error().contains("does not lie in RAM"),
        "{}",
        guest.error()
    );
    guest.start(CONTROL);
    assert_eq!(guest.command(control::RX, control::RX_PROMISC, &[1]), OK);
}

#[test]
fn without_a_control_queue_nothing_is_done_there() {
    let mut guest = Guest::with(net(1), 0);
    assert_eq!(guest.command_with(&[0, 0, 1], 1), None);
    assert!(!guest.needs_reset());
    assert_eq!(guest.in_flight(2), 0);
}

#[test]
fn as_many_pairs_are_used_as_the_driver_says() {
    let features = CONTROL | feature::MQ;
    let mut guest = Guest::with(net(4), features);
    let set = |guest: &mut Guest<Loopback>, pairs: u16| {
        guest.command(control::MQ, control::MQ_VQ_PAIRS_SET, &pairs.to_le_bytes())
    };
    let by = |guest: &mut Guest<Loopback>, pair: u16| {
        let given = [vec![0; 12], frame(60)].concat();
        assert!(guest.backend().give_by(pair, &given));
        guest.device.process_events();
        guest.received_by(pair.into()).len()
    };
    for pair in 0..4 {
        guest.offer_room(pair, &[1526]);
        guest.offer_room(pair, &[1526]);
        guest.notify(2 * pair);
        guest.send_parts(pair, &[vec![0; 12], frame(60)].concat(), &[]);
    }
    // One at first: of the others nothing is taken.
    assert_eq!([0, 1, 2, 3].map(|pair| guest.sent(pair)), [1, 0, 0, 0]);
    assert_eq!([0, 1, 2, 3].map(|pair| by(&mut guest, pair)), [1, 0, 0, 0]);
    for wrong in [0, 5, 0x8000] {
        assert_eq!(set(&mut guest, wrong), ERR);
    }
    // What waited there goes both ways.
    assert_eq!(set(&mut guest, 3), OK);
    assert_eq!(guest.backend().started().unwrap().1, 3);
    assert_eq!([0, 1, 2, 3].map(|pair| guest.sent(pair)), [0, 1, 1, 0]);
    assert_eq!(
        [0, 1, 2, 3].map(|pair| guest.received_by(pair).len()),
        [0, 1, 1, 0]
    );
    assert_eq!([0, 1, 2].map(|pair| by(&mut guest, pair)), [1, 1, 1]);
    // What is not in use any more is given back.
    guest.offer_room(2, &[1526]);
    guest.notify(4);
    assert_eq!(guest.in_flight(4), 1);
    assert_eq!(set(&mut guest, 1), OK);
    assert_eq!(guest.in_flight(4), 0);
    assert_eq!(by(&mut guest, 2), 0);
    assert_eq!(set(&mut guest, 3), OK);
    assert_eq!(guest.received_by(2).len(), 1);
    // Without the feature, the control queue is the third, and there is one pair.
    guest.start(CONTROL);
    assert_eq!(guest.backend().started().unwrap().1, 1);
    assert_eq!(guest.command(control::RX, control::RX_PROMISC, &[1]), OK);
    guest.notify(3);
    guest.notify(8);
    assert!(!guest.needs_reset());
}

#[test]
fn offloads_are_turned_off_and_on_again_within_what_was_agreed_on() {
    let agreed = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_ECN;
    let features = feature::CTRL_VQ | feature::CTRL_GUEST_OFFLOADS | agreed | feature::CSUM;
    let mut guest = Guest::with(net(1), features);
    let set = |guest: &mut Guest<Loopback>, offloads: u64| {
        let data = offloads.to_le_bytes();
        guest.command(control::GUEST_OFFLOADS, control::GUEST_OFFLOADS_SET, &data)
    };
    let started = |guest: &mut Guest<Loopback>| {
        let (Features(features), _) = guest.backend().started().unwrap();
        features & OFFLOADS
    };
    assert_eq!(started(&mut guest), agreed | feature::CSUM);
    assert_eq!(set(&mut guest, feature::GUEST_CSUM), OK);
    assert_eq!(started(&mut guest), feature::GUEST_CSUM | feature::CSUM);
    // What needs another is nothing without it.
    assert_eq!(set(&mut guest, feature::GUEST_TSO4), OK);
    assert_eq!(started(&mut guest), feature::CSUM);
    for wrong in [feature::GUEST_TSO6, feature::CSUM, u64::MAX, 1 << 63] {
        assert_eq!(set(&mut guest, wrong), ERR);
    }
    assert_eq!(set(&mut guest, agreed), OK);
    assert_eq!(started(&mut guest), agreed | feature::CSUM);
    guest.backend().fail_to_start();
    assert_eq!(set(&mut guest, 0), ERR);
    assert_eq!(set(&mut guest, 0), OK);
}

#[test]
fn the_driver_is_asked_to_announce_its_address_until_it_has() {
    let mut guest = Guest::with(net(1), CONTROL);
    let status = |guest: &mut Guest<Loopback>| guest.read_config::<1>(space::STATUS)[0];
    assert_eq!(status(&mut guest), 1);
    guest.device.device_mut().announce();
    assert!(guest.waits().delay.is_some_and(|delay| delay.is_zero()));
    guest.device.process_events();
    assert_eq!(status(&mut guest), 3);
    assert_eq!(read(&mut guest.device, mmio::INTERRUPT_STATUS), 2);
    assert_eq!(
        guest.command(control::ANNOUNCE, control::ANNOUNCE_ACK, &[1]),
        ERR
    );
    assert_eq!(status(&mut guest), 3);
    assert_eq!(
        guest.command(control::ANNOUNCE, control::ANNOUNCE_ACK, &[]),
        OK
    );
    assert_eq!(status(&mut guest), 1);
    // A driver that cannot is not asked.
    guest.start(feature::STATUS);
    guest.device.device_mut().announce();
    guest.device.process_events();
    assert_eq!(status(&mut guest), 1);
}

#[test]
fn frames_beyond_the_mtu_are_dropped_unless_they_will_be_cut() {
    let mut guest = Guest::with(net(1), feature::MTU | feature::MRG_RXBUF);
    let mut long = vec![0; 12];
    long.extend(frame(1515));
    for (change, passes) in [
        (None, false),
        (Some((1, 1)), true),
        (Some((1, 0x80)), false),
        // The type of a frame with a tag, which makes its header longer.
        (Some((12 + 12, 0x81)), true),
    ] {
        let mut frame = long.clone();
        if let Some((at, byte)) = change {
            frame[at] = byte;
        }
        guest.give_room(2048);
        assert!(guest.backend().give(&frame));
        guest.device.process_events();
        assert_eq!(guest.received().len(), usize::from(passes), "{change:?}");
    }
    assert_eq!(guest.stats().rx_over_mtu, 2);
    guest.give_room(2048);
    guest.arrive(&frame(1514));
    assert_eq!(guest.received().len(), 1);
    // Who has not agreed to the MTU gets all.
    guest.start(0);
    guest.give_room(2048);
    guest.arrive(&frame(1515));
    assert_eq!(guest.received().len(), 1);
}

#[test]
fn addresses_and_types_are_found_however_buffers_are_cut() {
    let mut guest = Guest::with(net(1), CONTROL | feature::MTU | feature::MRG_RXBUF);
    assert_eq!(guest.command(control::RX, control::RX_PROMISC, &[0]), OK);
    // Many times, so that room is used up and made anew.
    for round in 0..100 {
        for parts in [
            &[1, 12, 2, 2000][..],
            &[7, 5, 3, 3, 2000],
            &[12, 6, 1, 2000],
        ] {
            guest.offer_room(0, parts);
            guest.notify(0);
            guest.arrive(&frame_to(OTHER, 60));
            guest.arrive(&frame_to(OWN, 1515));
            guest.arrive(&frame_to(OWN, 60));
            assert_eq!(guest.received(), [frame_to(OWN, 60)], "{round} {parts:?}");
        }
    }
    assert_eq!(guest.stats().rx_filtered, 300);
    assert_eq!(guest.stats().rx_over_mtu, 300);
}

#[test]
fn a_network_whose_kind_is_known_later_is_the_same() {
    let network: Box<dyn NetBackend> =
        Box::new(Loopback::new(4).with_features(OFFLOADS).with_pairs(2));
    let config = NetConfig {
        queue_pairs: 2,
        ..config()
    };
    let mut guest = Guest::new(network, &config, feature::CTRL_VQ | feature::MQ);
    guest.give_room(1526);
    guest.send(&frame(60));
    assert_eq!(guest.received(), [frame(60)]);
    guest.give_room(20);
    guest.send(&frame(60));
    assert_eq!(guest.stats().rx_too_long, 1);
    guest.device.process_events();
    assert!(guest.waits().delay.is_some());
    guest.start(0);
}
