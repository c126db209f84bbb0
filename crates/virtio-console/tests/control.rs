//! Several ports: the control protocol (§5.3.6.2), spoken well and badly.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_irq::IrqLine;
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::driver::{Buffer, notify, read};
use goldcrest_virtio::spec::mmio;
use goldcrest_virtio::{DeviceError, Mmio, QueueError};
use goldcrest_virtio_console::spec::{event, feature, queue};
use goldcrest_virtio_console::{Console, MemoryPort, PortConfig};
use guest::Guest;

const CONTROL: u16 = queue::CONTROL_RECEIVE;
/// Queues of ports 1 and 2.
const RX1: u16 = 4;
const TX1: u16 = 5;
const RX2: u16 = 6;

fn configs(ports: &[MemoryPort; 3]) -> Vec<PortConfig> {
    let [console, agent, log] = ports.clone();
    vec![
        PortConfig::console(console),
        PortConfig::named("org.example.agent", agent),
        PortConfig::named("log", log),
    ]
}

/// A console, and two ports with names, of which the last has nobody at its end.
fn three_ports() -> (Guest, [MemoryPort; 3]) {
    let ports = [(); 3].map(|()| MemoryPort::new(1000));
    ports[2].set_open(false);
    let guest = Guest::new(configs(&ports), feature::MULTIPORT | feature::SIZE);
    (guest, ports)
}

fn give_control(guest: &mut Guest, count: usize) {
    for _ in 0..count {
        guest.give(CONTROL, 100);
    }
}

/// All three ports are ready, and what was sent for that has been read.
fn shake_hands(guest: &mut Guest) {
    give_control(guest, 30);
    guest.control(0, event::DEVICE_READY, 1);
    for id in 0..3 {
        guest.control(id, event::PORT_READY, 1);
    }
    guest.controls();
    guest.taken(queue::CONTROL_TRANSMIT);
}

#[test]
fn ports_are_told_named_and_opened_in_order() {
    let (mut guest, _) = three_ports();
    let count = read(&mut guest.device, mmio::CONFIG + 4);
    assert_eq!(count, 3, "max_nr_ports");
    give_control(&mut guest, 10);
    assert!(guest.controls().is_empty(), "nothing before DEVICE_READY");
    guest.control(0, event::DEVICE_READY, 1);
    let added: Vec<_> = (0..3).map(|id| (id, event::PORT_ADD, 0, vec![])).collect();
    assert_eq!(guest.controls(), added);
    guest.control(0, event::PORT_READY, 1);
    let console = [
        (0, event::CONSOLE_PORT, 1, vec![]),
        (0, event::PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(guest.controls(), console);
    guest.control(1, event::PORT_READY, 1);
    let agent = [
        (1, event::PORT_NAME, 0, b"org.example.agent".to_vec()),
        (1, event::PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(guest.controls(), agent);
    guest.control(2, event::PORT_READY, 1);
    assert_eq!(
        guest.controls(),
        [(2, event::PORT_NAME, 0, b"log".to_vec())]
    );
    assert_eq!(guest.taken(queue::CONTROL_TRANSMIT), 4);
    assert_eq!(guest.device.device_mut().ignored(), 0);
}

#[test]
fn who_comes_and_goes_on_the_host_is_told() {
    let (mut guest, ports) = three_ports();
    shake_hands(&mut guest);
    ports[2].set_open(true);
    guest.device.process_events();
    assert_eq!(guest.controls(), [(2, event::PORT_OPEN, 1, vec![])]);
    ports[2].set_open(false);
    guest.device.process_events();
    assert_eq!(guest.controls(), [(2, event::PORT_OPEN, 0, vec![])]);
    guest.device.process_events();
    assert!(guest.controls().is_empty());
}

#[test]
fn each_port_has_a_stream_of_its_own_and_input_waits_until_it_is_open() {
    let (mut guest, ports) = three_ports();
    shake_hands(&mut guest);
    ports[1].give_input(b"to the agent");
    guest.give(RX1, 100);
    guest.give(RX2, 100);
    guest.device.process_events();
    assert!(guest.received(RX1).is_empty());
    guest.control(1, event::PORT_OPEN, 1);
    assert_eq!(guest.received(RX1), [b"to the agent"]);
    assert!(guest.received(RX2).is_empty());
    guest.send(TX1, b"from the agent");
    assert_eq!(ports[1].take_output(), b"from the agent");
    assert!(ports[0].take_output().is_empty());
    // Closed again: input stays with the host.
    guest.control(1, event::PORT_OPEN, 0);
    ports[1].give_input(b"later");
    guest.give(RX1, 100);
    guest.device.process_events();
    assert!(guest.received(RX1).is_empty());
    assert_eq!(ports[1].input_left(), 5);
}

#[test]
fn messages_wait_for_room_and_are_not_sent_twice() {
    let (mut guest, _) = three_ports();
    for _ in 0..500 {
        guest.control(0, event::DEVICE_READY, 1);
        guest.control(1, event::PORT_READY, 1);
        guest.taken(queue::CONTROL_TRANSMIT);
    }
    give_control(&mut guest, 20);
    let expected = [
        (0, event::PORT_ADD, 0, vec![]),
        (1, event::PORT_ADD, 0, vec![]),
        (1, event::PORT_NAME, 0, b"org.example.agent".to_vec()),
        (1, event::PORT_OPEN, 1, vec![]),
        (2, event::PORT_ADD, 0, vec![]),
    ];
    assert_eq!(guest.controls(), expected);
}

#[test]
fn a_new_size_is_a_message() {
    let (mut guest, _) = three_ports();
    shake_hands(&mut guest);
    guest.device.device_mut().resize(0x84, 0x2b);
    guest.device.process_events();
    let size = vec![0x84, 0, 0x2b, 0];
    assert_eq!(guest.controls(), [(0, event::RESIZE, 0, size.clone())]);
    // A port that becomes ready later is told the size too.
    guest.control(0, event::PORT_READY, 1);
    let expected = [
        (0, event::CONSOLE_PORT, 1, vec![]),
        (0, event::RESIZE, 0, size),
        (0, event::PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(guest.controls(), expected);
}

#[test]
fn messages_that_make_no_sense_are_ignored_and_counted() {
    let (mut guest, _) = three_ports();
    guest.control(0, event::PORT_READY, 1); // before DEVICE_READY
    shake_hands(&mut guest);
    assert_eq!(guest.device.device_mut().ignored(), 1);
    for (id, event, value) in [
        (3, event::PORT_READY, 1),
        (u32::MAX, event::PORT_OPEN, 1),
        (0x1_0000, event::PORT_OPEN, 1),
        (0, event::PORT_ADD, 0),
        (0, event::PORT_NAME, 1),
        (0, event::CONSOLE_PORT, 1),
        (1, 8, 0),
        (1, u16::MAX, u16::MAX),
    ] {
        guest.control(id, event, value);
    }
    for short in [&b""[..], b"\0", b"\0\0\0\0\0\0\0"] {
        guest.send(queue::CONTROL_TRANSMIT, short);
    }
    assert_eq!(guest.device.device_mut().ignored(), 1 + 8 + 3);
    assert_eq!(guest.taken(queue::CONTROL_TRANSMIT), 8 + 3, "all come back");
    assert!(guest.controls().is_empty());
    assert!(!guest.needs_reset());
}

#[test]
fn a_driver_that_fails_is_told_nothing_more() {
    let (mut guest, ports) = three_ports();
    shake_hands(&mut guest);
    guest.control(1, event::PORT_OPEN, 1);
    guest.give(RX1, 100);
    guest.control(0, event::DEVICE_READY, 0);
    ports[1].give_input(b"x");
    ports[0].set_open(false);
    guest.device.device_mut().resize(1, 1);
    guest.device.process_events();
    assert!(guest.controls().is_empty());
    assert!(guest.received(RX1).is_empty());
    assert!(guest.waits().is_empty());
}

#[test]
fn a_buffer_too_short_for_a_message_makes_it_need_a_reset() {
    let (mut guest, _) = three_ports();
    guest.give(CONTROL, 7);
    guest.control(0, event::DEVICE_READY, 1);
    let error = guest.device.core().error();
    let expected = matches!(
        error,
        Some(DeviceError::Queue {
            queue: CONTROL,
            source: QueueError::TooShort { missing: 1 }
        })
    );
    assert!(expected, "{error:?}");
}

#[test]
fn without_multiport_only_the_first_port_is_in_use() {
    let ports = [(); 3].map(|()| MemoryPort::new(1000));
    let mut guest = Guest::new(configs(&ports), 0);
    give_control(&mut guest, 3);
    guest.control(0, event::DEVICE_READY, 1);
    guest.send(TX1, b"x");
    ports[1].give_input(b"y");
    guest.give(RX1, 10);
    guest.device.process_events();
    assert!(guest.controls().is_empty());
    assert_eq!(guest.taken(queue::CONTROL_TRANSMIT), 0);
    assert_eq!(guest.taken(TX1), 0);
    assert!(guest.received(RX1).is_empty());
    ports[0].give_input(b"in");
    guest.give(queue::RECEIVE, 10);
    guest.send(queue::TRANSMIT, b"out");
    assert_eq!(guest.received(queue::RECEIVE), [b"in"]);
    assert_eq!(ports[0].take_output(), b"out");
}

#[test]
fn a_saved_device_knows_what_it_owes_and_what_has_changed() {
    let (mut guest, _) = three_ports();
    give_control(&mut guest, 3);
    guest.control(0, event::DEVICE_READY, 1);
    guest.control(0, event::PORT_READY, 1);
    guest.control(1, event::PORT_READY, 1);
    guest.control(1, event::PORT_OPEN, 1);
    assert_eq!(guest.controls().len(), 3);
    let state = guest.device.save();

    let ports = [(); 3].map(|()| MemoryPort::new(1000));
    let console = Console::new(configs(&ports)).unwrap();
    guest.device = Mmio::new(console, guest.memory.clone(), IrqLine::detached());
    guest.device.restore(state).unwrap();
    ports[1].give_input(b"hello");
    guest.give(RX1, 100);
    assert_eq!(guest.received(RX1), [b"hello"], "it is still open");
    give_control(&mut guest, 10);
    let expected = [
        (0, event::CONSOLE_PORT, 1, vec![]),
        (0, event::PORT_OPEN, 1, vec![]),
        (1, event::PORT_NAME, 0, b"org.example.agent".to_vec()),
        (1, event::PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(guest.controls(), expected);
}

#[test]
fn every_port_of_the_most_has_its_queues() {
    let ports: Vec<_> = (0..31).map(|_| MemoryPort::new(100)).collect();
    let configs = ports.iter().cloned().map(PortConfig::console).collect();
    let mut guest = Guest::new(configs, feature::MULTIPORT);
    for (index, port) in (0_u16..).zip(&ports) {
        let transmit = if index == 0 { 1 } else { 2 * index + 3 };
        guest.send(transmit, &index.to_le_bytes());
        assert_eq!(port.take_output(), index.to_le_bytes());
    }
    notify(&mut guest.device, 64);
    assert_eq!(guest.device.core().misuses(), 1);
    guest.queues[3].add(&[Buffer::Writable(0, 8)]);
    notify(&mut guest.device, 3);
    assert_eq!(guest.device.device_mut().ignored(), 1);
}
