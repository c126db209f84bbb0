//! Split queues (§2.7): what a driver may do, and what it must not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use goldcrest_virtio::driver::{Buffer, write_descriptor};
use goldcrest_virtio::spec::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use goldcrest_virtio::{QueueError, Waits};
use guest::*;
use vm_memory::{Bytes, GuestAddress};

const TABLE: u64 = 0x6000;

/// Fails by what was made available in queue 0, and recovers.
fn fails(mut guest: Guest) -> QueueError {
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), None);
    let error = guest.queue_error();
    guest.recovers();
    error
}

/// Descriptor 0 refers to a table of `len` bytes.
fn indirect(features: u64, table: u64, len: u32, flags: u16) -> Guest {
    let mut guest = Guest::live(features);
    guest.queues[0].set_descriptor(0, table, len, DESC_F_INDIRECT | flags, 1);
    guest.queues[0].set_descriptor(1, REQUEST, 8, 0, 0);
    guest.queues[0].offer(0);
    guest
}

#[test]
fn rings_wrap_and_so_do_their_indexes() {
    let mut guest = Guest::live(BASIC);
    for _ in 0..0x1_0010 {
        guest.echo(0);
    }
    assert_eq!(guest.queues[0].used_index(), 0x10);
}

#[test]
fn a_whole_queue_is_used_by_one_notification_in_the_order_of_the_available_ring() {
    let mut guest = Guest::live(BASIC);
    for index in 0..8 {
        guest.queues[0].set_descriptor(index, ANSWER, 1, DESC_F_WRITE, 0);
    }
    for head in [7, 0, 6, 1, 5, 2, 4, 3] {
        guest.queues[0].offer(head);
    }
    guest.notify(0);
    for head in [7, 0, 6, 1, 5, 2, 4, 3] {
        assert_eq!(guest.queues[0].used(), Some((head, 0)));
    }
    assert_eq!(guest.queues[0].used(), None);
}

#[test]
fn the_used_length_is_what_was_written_and_readable_buffers_are_not() {
    let mut guest = Guest::live(BASIC);
    guest.put(REQUEST, b"0123456789");
    guest.put(ANSWER, &[0xee; 16]);
    let buffers = [
        Buffer::Readable(REQUEST, 10),
        Buffer::Writable(ANSWER, 4),
        Buffer::Writable(ANSWER + 8, 2),
    ];
    let head = guest.queues[0].add(&buffers);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 6)));
    assert_eq!(
        guest.get(ANSWER),
        *b"0123\xee\xee\xee\xee45\xee\xee\xee\xee\xee\xee"
    );
    assert_eq!(guest.get(REQUEST), *b"0123456789");
}

#[test]
fn how_a_message_is_cut_into_buffers_makes_no_difference() {
    let mut guest = Guest::live(BASIC);
    guest.put(REQUEST, b"abcdef");
    let buffers = [
        Buffer::Readable(REQUEST, 1),
        Buffer::Readable(0, 0),
        Buffer::Readable(REQUEST + 1, 5),
        Buffer::Writable(ANSWER, 3),
        Buffer::Writable(ANSWER, 0),
        Buffer::Writable(ANSWER + 3, 3),
    ];
    let head = guest.queues[0].add(&buffers);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 6)));
    assert_eq!(guest.get(ANSWER), *b"abcdef");
}

#[test]
fn buffers_may_span_regions_of_ram() {
    let mut guest = Guest::live(BASIC);
    guest.put(REQUEST, &[7; 64]);
    let spanning = Buffer::Writable(0x1_0000 - 32, 64);
    let head = guest.queues[0].add(&[Buffer::Readable(REQUEST, 64), spanning]);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 64)));
    assert_eq!(guest.get(0x1_0000 - 32), [7; 64]);
}

#[test]
fn buffers_that_leave_ram_are_refused_when_they_are_touched() {
    for address in [
        0x1_fff0,
        0x2_0000,
        0x3_fff0,
        0x4_fff0,
        1 << 40,
        u64::MAX - 3,
    ] {
        for writable in [false, true] {
            let mut guest = Guest::live(BASIC);
            let buffers = if writable {
                [Buffer::Readable(REQUEST, 32), Buffer::Writable(address, 32)]
            } else {
                [Buffer::Readable(address, 32), Buffer::Writable(ANSWER, 32)]
            };
            guest.queues[0].add(&buffers);
            let error = fails(guest);
            assert!(matches!(error, QueueError::Buffer { .. }), "{error}");
        }
    }
}

#[test]
fn an_available_index_further_ahead_than_the_queue_is_refused() {
    for (ahead, size) in [9, 0x100, 0x8000, 0xffff].map(|ahead| (ahead, 8)) {
        let guest = Guest::live(BASIC);
        let mut guest = guest;
        guest.queues[0].set_available(ahead);
        assert_eq!(fails(guest), QueueError::AvailableIndex { ahead, size });
    }
    // Nor may it go back.
    let mut guest = Guest::live(BASIC);
    guest.echo(0);
    guest.queues[0].set_available(0);
    guest.notify(0);
    let ahead = 0xffff;
    assert_eq!(
        guest.queue_error(),
        QueueError::AvailableIndex { ahead, size: 8 }
    );
}

#[test]
fn heads_and_links_beyond_the_table_are_refused() {
    for index in [8, 9, 0x7fff, 0xffff] {
        let mut guest = Guest::live(BASIC);
        guest.queues[0].offer(index);
        let expected = QueueError::DescriptorIndex { index, len: 8 };
        assert_eq!(fails(guest), expected);
        let mut guest = Guest::live(BASIC);
        guest.queues[0].set_descriptor(0, REQUEST, 1, DESC_F_NEXT, index);
        guest.queues[0].offer(0);
        assert_eq!(fails(guest), expected);
    }
}

#[test]
fn a_head_that_is_in_flight_cannot_be_made_available_again() {
    let mut guest = Guest::live(BASIC);
    guest.device.device_mut().holds = true;
    let head = guest.offer(0);
    guest.notify(0);
    guest.queues[0].offer(head);
    guest.device.device_mut().holds = false;
    assert_eq!(fails(guest), QueueError::HeadInUse(head));
}

#[test]
fn loops_are_refused() {
    for next in [0, 1, 2] {
        let mut guest = Guest::live(BASIC);
        for index in 0..3 {
            let next = if index == 2 { next } else { index + 1 };
            guest.queues[0].set_descriptor(index, REQUEST, 0, DESC_F_NEXT, next);
        }
        guest.queues[0].offer(0);
        assert_eq!(fails(guest), QueueError::ChainLength(8));
    }
}

#[test]
fn a_chain_may_be_as_long_as_the_queue_and_of_4_gib_and_no_longer() {
    let mut guest = Guest::live(BASIC);
    let head = guest.queues[0].add(&[Buffer::Readable(REQUEST, 1); 8]);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 0)));
    let head = guest.queues[0].add(&[Buffer::Readable(REQUEST, u32::MAX), Buffer::Readable(0, 1)]);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((head, 0)));
    for more in [Buffer::Readable(0, 2), Buffer::Writable(0, u32::MAX)] {
        let mut guest = Guest::live(BASIC);
        guest.queues[0].add(&[Buffer::Readable(REQUEST, u32::MAX), more]);
        assert_eq!(fails(guest), QueueError::ChainBytes);
    }
}

#[test]
fn a_readable_buffer_behind_a_writable_one_is_refused() {
    let mut guest = Guest::live(BASIC);
    guest.queues[0].add(&[Buffer::Writable(ANSWER, 1), Buffer::Readable(REQUEST, 1)]);
    assert_eq!(fails(guest), QueueError::ReadableAfterWritable);
}

#[test]
fn indirect_tables_are_followed_wherever_they_lie_and_whatever_their_write_flag() {
    let mut guest = Guest::live(INDIRECT);
    guest.put(REQUEST, b"hello");
    let buffers = [Buffer::Readable(REQUEST, 5), Buffer::Writable(ANSWER, 5)];
    // Aligned, not aligned, and in another region.
    for table in [TABLE, TABLE + 1, 0x4_0007] {
        guest.put(ANSWER, &[0; 5]);
        let head = guest.queues[0].describe_indirect(table, &buffers);
        guest.queues[0].set_descriptor(head, table, 32, DESC_F_INDIRECT | DESC_F_WRITE, 0);
        guest.queues[0].offer(head);
        guest.notify(0);
        assert_eq!(guest.queues[0].used(), Some((head, 5)));
        assert_eq!(guest.get(ANSWER), *b"hello");
    }
}

#[test]
fn an_indirect_table_may_end_a_chain_of_plain_descriptors() {
    let mut guest = Guest::live(INDIRECT);
    guest.put(REQUEST, b"hello");
    write_descriptor(&guest.memory, TABLE, ANSWER, 5, DESC_F_WRITE, 0);
    guest.queues[0].set_descriptor(4, REQUEST, 5, DESC_F_NEXT, 2);
    guest.queues[0].set_descriptor(2, TABLE, 16, DESC_F_INDIRECT, 0);
    guest.queues[0].offer(4);
    guest.notify(0);
    assert_eq!(guest.queues[0].used(), Some((4, 5)));
    assert_eq!(guest.get(ANSWER), *b"hello");
}

#[test]
fn indirect_tables_that_were_not_agreed_on_or_go_on_are_refused() {
    let guest = indirect(BASIC, TABLE, 16, 0);
    assert_eq!(fails(guest), QueueError::Indirect);
    let guest = indirect(INDIRECT, TABLE, 16, DESC_F_NEXT);
    assert_eq!(fails(guest), QueueError::Indirect);
}

#[test]
fn indirect_tables_in_indirect_tables_and_in_themselves_are_refused() {
    for inner in [TABLE, TABLE + 0x100] {
        let guest = indirect(INDIRECT, TABLE, 16, 0);
        write_descriptor(&guest.memory, TABLE, inner, 16, DESC_F_INDIRECT, 0);
        assert_eq!(fails(guest), QueueError::Indirect);
    }
    // The queue's own table as an indirect one: its first descriptor is indirect.
    let table = Guest::new().queues[0].layout.descriptors;
    let guest = indirect(INDIRECT, table, 128, 0);
    assert_eq!(fails(guest), QueueError::Indirect);
}

#[test]
fn indirect_tables_of_impossible_sizes_are_refused() {
    for bytes in [
        0,
        1,
        15,
        17,
        31,
        16 * 9,
        16 * 0x1_0000,
        16 * 0x1_0001,
        u32::MAX,
    ] {
        let guest = indirect(INDIRECT, TABLE, bytes, 0);
        assert_eq!(fails(guest), QueueError::IndirectSize(bytes));
    }
}

#[test]
fn indirect_tables_outside_ram_are_refused() {
    for address in [0x1_fff8, 0x2_0000, 0x4_fff8, u64::MAX - 7, u64::MAX] {
        let guest = indirect(INDIRECT, address, 16, 0);
        assert_eq!(fails(guest), QueueError::Buffer { address, len: 16 });
    }
}

#[test]
fn loops_and_links_in_indirect_tables_are_bounded_by_the_table_and_the_queue() {
    let guest = indirect(INDIRECT, TABLE, 32, 0);
    write_descriptor(&guest.memory, TABLE, REQUEST, 0, DESC_F_NEXT, 0);
    assert_eq!(fails(guest), QueueError::ChainLength(8));
    let guest = indirect(INDIRECT, TABLE, 32, 0);
    write_descriptor(&guest.memory, TABLE, REQUEST, 0, DESC_F_NEXT, 2);
    let expected = QueueError::DescriptorIndex { index: 2, len: 2 };
    assert_eq!(fails(guest), expected);
}

#[test]
fn descriptors_that_change_after_they_were_read_change_nothing() {
    let mut guest = Guest::live(BASIC);
    let (memory, at) = (guest.memory.clone(), guest.queues[0].layout.descriptors);
    guest.device.device_mut().hook = Some(Box::new(move || {
        write_descriptor(&memory, at, u64::MAX, u32::MAX, 0xffff, 0xffff);
        write_descriptor(&memory, at + 16, u64::MAX, u32::MAX, 0xffff, 0xffff);
    }));
    guest.echo(0);
}

#[test]
fn rings_that_overlap_each_other_do_bounded_work_and_no_harm() {
    let at = Guest::new().queues[0].layout.descriptors;
    for (available, used) in [(at, at), (at, at + 16), (at + 0x100, at), (at + 2, at + 4)] {
        let mut guest = Guest::negotiated(INDIRECT);
        let mut layout = guest.queues[0].layout;
        (layout.available, layout.used) = (available, used);
        goldcrest_virtio::driver::set_up(&mut guest.device, 0, &layout);
        goldcrest_virtio::driver::start(&mut guest.device);
        for index in 0..9 {
            guest.put(available, &[0, 0, index, 0, 1, 0, 2, 0, 3, 0]);
            let before = guest.device.core().device().chains;
            guest.notify(0);
            assert!(guest.device.core().device().chains <= before + 8);
        }
        guest.recovers();
    }
}

/// A driver that adds a request for each that is taken gets a queue's worth of work for a notification; the rest is
/// asked for later.
#[test]
fn a_driver_that_adds_without_end_does_not_keep_its_caller() {
    let mut guest = Guest::live(BASIC);
    let (memory, layout) = (guest.memory.clone(), guest.queues[0].layout);
    guest.device.device_mut().hook = Some(Box::new(move || {
        let index = GuestAddress(layout.available + 2);
        let next = memory.read_obj::<u16>(index).unwrap().wrapping_add(1);
        memory.write_obj(next, index).unwrap();
    }));
    guest.offer(0);
    let mut waits = Waits::default();
    for turn in 1..100 {
        if turn == 1 {
            guest.notify(0);
        } else {
            guest.device.process_events();
        }
        assert_eq!(guest.device.core().device().chains, 8 * turn);
        waits.clear();
        guest.device.waits(&mut waits);
        assert_eq!(waits.delay, Some(std::time::Duration::ZERO));
    }
    guest.device.device_mut().hook = None;
    guest.device.process_events();
    waits.clear();
    guest.device.waits(&mut waits);
    assert!(waits.is_empty());
}

#[test]
fn no_interrupt_is_heeded_and_used_event_ignored_without_event_idx() {
    let mut guest = Guest::live(BASIC);
    guest.queues[0].set_flags(1);
    guest.echo(0);
    assert_eq!(guest.interrupts(), 0);
    guest.queues[0].set_flags(0);
    guest.queues[0].set_used_event(0x7777);
    guest.echo(0);
    assert_eq!(guest.interrupts(), 1);
}

#[test]
fn used_event_is_heeded_and_no_interrupt_ignored_with_event_idx() {
    let mut guest = Guest::live(EVENT_IDX);
    guest.queues[0].set_flags(1);
    guest.queues[0].set_used_event(2);
    for expected in [0, 0, 1, 0, 0] {
        guest.echo(0);
        assert_eq!(guest.interrupts(), expected);
        guest.acknowledge();
    }
    // Among several that are used together.
    guest.queues[0].set_used_event(6);
    for index in 0..3 {
        guest.queues[0].set_descriptor(index, 0, 0, 0, 0);
        guest.queues[0].offer(index);
    }
    guest.notify(0);
    assert_eq!(guest.interrupts(), 1);
}

#[test]
fn interrupts_by_used_event_go_on_when_indexes_wrap() {
    let mut guest = Guest::live(EVENT_IDX);
    for used in 0..0x1_0004_u32 {
        guest.queues[0].set_used_event(0xffff);
        guest.echo(0);
        assert_eq!(guest.interrupts(), u32::from(used == 0xffff), "{used:#x}");
        guest.acknowledge();
    }
}

#[test]
fn the_device_asks_to_be_notified_of_the_next_buffer() {
    let mut guest = Guest::live(EVENT_IDX);
    for next in 1..20 {
        guest.echo(0);
        assert_eq!(guest.queues[0].available_event(), next);
    }
    let flags = |guest: &Guest| guest.get::<2>(guest.queues[0].layout.used);
    assert_eq!(flags(&guest), [0, 0]);
    let mut guest = Guest::live(BASIC);
    guest.echo(0);
    assert_eq!(flags(&guest), [0, 0]);
    assert_eq!(guest.queues[0].available_event(), 0);
}
