//! Bytes through one port, both ways, with all that can keep them waiting.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::time::Duration;

use goldcrest_bus::Device;
use goldcrest_irq::IrqLine;
use goldcrest_snapshot::Snapshot;
use goldcrest_virtio::driver::{Buffer, DriverQueue, notify, offered_features, read, write};
use goldcrest_virtio::spec::{device_id, mmio};
use goldcrest_virtio::{DeviceError, Mmio, QueueError};
use goldcrest_virtio_console::spec::{config, feature, queue};
use goldcrest_virtio_console::{Console, ConsoleError, MemoryPort, PortConfig};
use guest::Guest;
use vm_memory::{Bytes, GuestAddress};

const RX: u16 = queue::RECEIVE;
const TX: u16 = queue::TRANSMIT;

fn one_port(capacity: usize) -> (Guest, MemoryPort) {
    let port = MemoryPort::new(capacity);
    let guest = Guest::new(vec![PortConfig::console(port.clone())], feature::SIZE);
    (guest, port)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

#[test]
fn one_port_offers_no_multiport_and_has_two_queues() {
    let (mut guest, _) = one_port(100);
    assert_eq!(read(&mut guest.device, mmio::DEVICE_ID), device_id::CONSOLE);
    let offered = offered_features(&mut guest.device) & 0xff_ffff;
    assert_eq!(offered, feature::SIZE | feature::EMERG_WRITE);
    write(&mut guest.device, mmio::QUEUE_SEL, 2);
    assert_eq!(read(&mut guest.device, mmio::QUEUE_SIZE_MAX), 0);
}

#[test]
fn ports_without_number_and_names_without_length_are_refused() {
    let ports = |count| (0..count).map(|_| PortConfig::console(MemoryPort::new(1)));
    for count in [0, 32] {
        let refused = Console::new(ports(count).collect());
        assert!(matches!(refused, Err(ConsoleError::Ports(n)) if n == count));
    }
    assert!(Console::new(ports(31).collect()).is_ok());
    for name in [String::new(), "n".repeat(65)] {
        let port = PortConfig::named(name, MemoryPort::new(1));
        assert!(matches!(
            Console::new(vec![port]),
            Err(ConsoleError::Name(_))
        ));
    }
}

#[test]
fn bytes_are_echoed_both_ways() {
    let (mut guest, port) = one_port(1000);
    guest.give(RX, 100);
    guest.send(TX, b"login: ");
    assert_eq!(port.take_output(), b"login: ");
    assert_eq!(guest.taken(TX), 1);
    port.give_input(b"root\n");
    guest.device.process_events();
    assert_eq!(guest.received(RX), [b"root\n"]);
}

#[test]
fn a_chain_of_buffers_is_one_stream() {
    let (mut guest, port) = one_port(1000);
    guest
        .memory
        .write_slice(b"abcdef", GuestAddress(0x20_0000))
        .unwrap();
    let parts = [(0, 1), (1, 0), (1, 3), (4, 2)];
    let parts = parts.map(|(at, len)| Buffer::Readable(0x20_0000 + at, len));
    guest.queues[1].add(&parts);
    notify(&mut guest.device, TX);
    assert_eq!(port.take_output(), b"abcdef");
}

#[test]
fn output_that_blocks_goes_on_without_loss_or_reordering() {
    let (mut guest, port) = one_port(777);
    let sent = pattern(20_000);
    for piece in sent.chunks(1234) {
        guest.send(TX, piece);
    }
    let mut got = Vec::new();
    assert_eq!(guest.taken(TX), 0, "the first buffer is not through");
    assert!(guest.waits().delay.is_some());
    while got.len() < sent.len() {
        let output = port.take_output();
        assert!(!output.is_empty() && output.len() <= 777);
        got.extend(output);
        guest.device.process_events();
    }
    assert!(got == sent);
    assert_eq!(guest.taken(TX), sent.chunks(1234).count());
    assert!(guest.waits().is_empty());
}

#[test]
fn input_longer_than_buffers_comes_in_pieces_and_waits_for_room() {
    let (mut guest, port) = one_port(10);
    let sent = pattern(10_000);
    port.give_input(&sent);
    let mut got = Vec::new();
    for len in [1, 100, 1, 3000, 5000].into_iter().cycle() {
        assert_eq!(port.input_left(), sent.len() - got.len(), "nothing is held");
        guest.device.process_events();
        guest.give(RX, len);
        let pieces = guest.received(RX);
        assert!(pieces.iter().all(|p| p.len() <= 4096.min(len as usize)));
        got.extend(pieces.concat());
        if got.len() == sent.len() {
            break;
        }
    }
    assert!(got == sent);
}

#[test]
fn room_of_one_byte_takes_one_byte() {
    let (mut guest, port) = one_port(10);
    port.give_input(b"abc");
    for _ in 0..5 {
        guest.give(RX, 1);
    }
    assert_eq!(guest.received(RX), [b"a", b"b", b"c"]);
    port.give_input(b"de");
    guest.device.process_events();
    assert_eq!(guest.received(RX), [b"d", b"e"]);
}

#[test]
fn output_of_4_gib_is_moved_in_bounded_turns() {
    let (mut guest, port) = one_port(1 << 30);
    // 15 MiB of RAM, described 64 times over a little less each: all in one chain.
    let parts = vec![Buffer::Readable(0x10_0000, 15 << 20); 64];
    guest.queues[1].add(&parts);
    notify(&mut guest.device, TX);
    assert_eq!(port.drop_output(usize::MAX), 256 << 10);
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    let mut total = 256 << 10;
    while guest.waits().delay.is_some() {
        guest.device.process_events();
        let moved = port.drop_output(usize::MAX);
        assert!(moved <= 256 << 10);
        total += moved;
    }
    assert_eq!(total, 64 * (15 << 20));
    assert_eq!(guest.taken(TX), 1);
}

#[test]
fn output_is_dropped_and_counted_while_nobody_is_there() {
    let (mut guest, port) = one_port(4);
    guest.send(TX, b"12345678");
    assert_eq!(guest.taken(TX), 0);
    port.set_open(false);
    guest.device.process_events();
    assert_eq!(guest.taken(TX), 1);
    assert_eq!(guest.device.device_mut().lost(0), 4);
    port.set_open(true);
    assert_eq!(port.take_output(), b"1234");
    guest.send(TX, b"new");
    assert_eq!(port.take_output(), b"new");
}

#[test]
fn the_end_of_input_is_not_asked_for_again() {
    let (mut guest, port) = one_port(4);
    guest.give(RX, 100);
    port.give_input(b"last");
    port.end_input();
    guest.device.process_events();
    guest.give(RX, 100);
    assert_eq!(guest.received(RX), [b"last"]);
    port.give_input(b"after the end");
    guest.give(RX, 100);
    assert!(guest.received(RX).is_empty());
    assert!(!guest.needs_reset());
}

#[test]
fn a_new_size_changes_the_configuration() {
    let (mut guest, _) = one_port(4);
    write(&mut guest.device, mmio::INTERRUPT_ACK, u32::MAX);
    let generation = read(&mut guest.device, mmio::CONFIG_GENERATION);
    assert_eq!(read(&mut guest.device, mmio::CONFIG), 0);
    guest.device.device_mut().resize(132, 43);
    assert_eq!(guest.waits().delay, Some(Duration::ZERO));
    guest.device.process_events();
    assert_eq!(read(&mut guest.device, mmio::CONFIG), 132 | 43 << 16);
    let status = read(&mut guest.device, mmio::INTERRUPT_STATUS);
    assert_eq!(status, mmio::INT_CONFIG_CHANGE);
    let changed = read(&mut guest.device, mmio::CONFIG_GENERATION);
    assert_ne!(changed, generation);
    // The same size again is no news.
    guest.device.device_mut().resize(132, 43);
    assert!(guest.waits().is_empty());
}

#[test]
fn configuration_is_read_in_any_way_and_not_beyond_its_end() {
    let (mut guest, _) = one_port(4);
    guest.device.device_mut().resize(0x0102, 0x0304);
    for (offset, expected) in [
        (config::COLS, &[2, 1][..]),
        (config::ROWS, &[4, 3]),
        (config::MAX_NR_PORTS, &[1, 0, 0, 0, 0, 0, 0, 0]),
        (config::COLS + 1, &[1, 4, 3]),
        (4096 - 0x100 - 1, &[0]),
    ] {
        let mut data = vec![0xff; expected.len()];
        guest.device.read(mmio::CONFIG + offset, &mut data);
        assert_eq!(data, expected);
    }
}

#[test]
fn an_emergency_write_puts_out_a_character_or_drops_it() {
    let (mut guest, port) = one_port(2);
    let at = mmio::CONFIG + config::EMERG_WR;
    for character in [b'a', b'b', b'c'] {
        write(&mut guest.device, at, 0xffff_ff00 | u32::from(character));
    }
    assert_eq!(port.take_output(), b"ab");
    assert_eq!(guest.device.device_mut().lost(0), 1);
    write(&mut guest.device, mmio::STATUS, 0);
    write(&mut guest.device, at, b'd'.into());
    assert_eq!(port.take_output(), b"d", "no driver is needed");
    write(&mut guest.device, at - 4, 7);
    let _ = guest.device.write(at + 1, &[7]);
    assert!(port.take_output().is_empty(), "no other field is written");
}

#[test]
fn an_input_buffer_without_room_makes_it_need_a_reset() {
    for buffer in [Buffer::Readable(0x10_0000, 10), Buffer::Writable(0, 0)] {
        let (mut guest, port) = one_port(4);
        port.give_input(b"x");
        guest.queues[0].add(&[buffer]);
        notify(&mut guest.device, RX);
        let error = guest.device.core().error();
        assert!(matches!(error, Some(DeviceError::Driver(_))), "{error:?}");
        assert!(guest.needs_reset());
    }
}

#[test]
fn buffers_outside_ram_make_it_need_a_reset() {
    for (queue, buffer) in [
        (RX, Buffer::Writable(u64::MAX - 7, 16)),
        (TX, Buffer::Readable(16 << 20, 1)),
    ] {
        let (mut guest, port) = one_port(4);
        port.give_input(b"0123456789abcdef");
        guest.queues[usize::from(queue)].add(&[buffer]);
        notify(&mut guest.device, queue);
        let error = guest.device.core().error();
        let expected = matches!(
            error,
            Some(DeviceError::Queue { queue: q, source: QueueError::Buffer { .. } }) if *q == queue
        );
        assert!(expected, "{error:?}");
    }
}

#[test]
fn a_buffer_that_the_driver_shortens_while_it_waits_is_through() {
    let (mut guest, port) = one_port(4);
    guest.send(TX, b"12345678");
    // The only descriptor has number 0.
    guest.queues[1].set_descriptor(0, 0x10_0000, 2, 0, 0);
    port.drop_output(4);
    guest.device.process_events();
    assert_eq!(guest.taken(TX), 1);
    guest.send(TX, b"next");
    assert_eq!(port.take_output(), b"next");
}

#[test]
fn a_reset_forgets_what_waits() {
    let (mut guest, port) = one_port(4);
    guest.send(TX, b"12345678");
    guest.start(0);
    port.drop_output(4);
    guest.device.process_events();
    assert!(guest.waits().is_empty());
    guest.send(TX, b"abcd");
    assert_eq!(port.take_output(), b"abcd");
}

#[test]
fn a_saved_device_goes_on_in_the_middle_of_a_buffer() {
    let (mut guest, port) = one_port(5);
    guest.send(TX, b"0123456789");
    assert_eq!(port.take_output(), b"01234");
    guest.give(RX, 100);
    guest.device.device_mut().resize(80, 25);
    guest.device.quiesce();
    let state = guest.device.save();
    assert_ne!(state.interrupt_status & mmio::INT_CONFIG_CHANGE, 0);

    let port = MemoryPort::new(100);
    port.give_input(b"input");
    let console = Console::new(vec![PortConfig::console(port.clone())]).unwrap();
    guest.device = Mmio::new(console, guest.memory.clone(), IrqLine::detached());
    guest.device.restore(state).unwrap();
    guest.device.process_events();
    assert_eq!(port.take_output(), b"56789");
    assert_eq!(guest.taken(TX), 1);
    assert_eq!(guest.received(RX), [b"input"]);
    assert_eq!(read(&mut guest.device, mmio::CONFIG), 80 | 25 << 16);
}

#[test]
fn states_that_cannot_be_are_refused_and_change_nothing() {
    let ports = || vec![PortConfig::console(MemoryPort::new(1))];
    let mut console = Console::new(ports()).unwrap();
    let before = console.save();
    let mut bad = vec![before.clone(); 6];
    bad[0].ports.clear();
    bad[1].ports[0].sent = (1 << 32) + 1;
    bad[2].ports[0].owed = 1 << 4;
    bad[3].ports[0].ready = true;
    bad[4].ports[0].owed = 1;
    bad[5].ready = true;
    bad[5].ports[0].open = true;
    for mut state in bad {
        state.cols = 99;
        assert!(console.restore(state.clone()).is_err(), "{state:?}");
        assert_eq!(console.save(), before);
    }
}

#[test]
fn a_queue_that_is_reset_is_left_alone() {
    let (mut guest, port) = one_port(4);
    // RING_RESET is not among what the driver took, but it may stop a queue.
    guest.send(TX, b"12345678");
    guest.give(RX, 10);
    for queue in [RX, TX] {
        write(&mut guest.device, mmio::QUEUE_SEL, queue.into());
        write(&mut guest.device, mmio::QUEUE_READY, 0);
    }
    port.drop_output(4);
    port.give_input(b"x");
    assert!(guest.waits().is_empty());
    guest.device.process_events();
    assert_eq!(port.take_output(), b"");
    let fresh = DriverQueue::new(&guest.memory, 0x8000, 64);
    assert_eq!(fresh.used_index(), 0);
    assert!(guest.received(RX).is_empty());
}
