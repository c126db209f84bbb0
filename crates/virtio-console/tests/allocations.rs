//! Proves that a console in use allocates nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use std::fs::File;
use std::io::{Read, Write};

use allocation_counter::measure;
use goldcrest_virtio::driver::{Buffer, notify};
use goldcrest_virtio_console::spec::{event, feature, queue};
use goldcrest_virtio_console::{FilePort, MemoryPort, PortConfig};
use guest::Guest;
use vm_memory::{Bytes, GuestAddress};

const AT: u64 = 0x10_0000;

#[test]
fn bytes_and_messages_allocate_nothing() {
    let (input, typed) = nix::unistd::pipe().unwrap();
    let (shown, output) = nix::unistd::pipe().unwrap();
    let (mut typed, mut shown) = (File::from(typed), File::from(shown));
    let file = FilePort::new(Some(input), Some(output)).unwrap();
    let file = file.with_filter(Box::new(|bytes, out| out.extend(bytes)));
    let memory = MemoryPort::new(100);
    let ports = vec![
        PortConfig::console(file),
        PortConfig::named("memory", memory.clone()),
    ];
    let mut guest = Guest::new(ports, feature::MULTIPORT);
    guest.control(0, event::DEVICE_READY, 1);
    for id in 0..2 {
        guest.control(id, event::PORT_READY, 1);
        guest.control(id, event::PORT_OPEN, 1);
    }
    // The driver allocates to describe buffers, not to offer them.
    let mut message = 1_u32.to_le_bytes().to_vec();
    message.extend([event::PORT_READY, 1].map(u16::to_le_bytes).concat());
    let memory_of = &guest.memory;
    memory_of.write_slice(&message, GuestAddress(AT)).unwrap();
    let queues = [
        (queue::RECEIVE, Buffer::Writable(AT + 0x1000, 1000)),
        (queue::TRANSMIT, Buffer::Readable(AT + 0x2000, 300)),
        (queue::CONTROL_RECEIVE, Buffer::Writable(AT + 0x3000, 100)),
        (queue::CONTROL_TRANSMIT, Buffer::Readable(AT, 8)),
        (5, Buffer::Readable(AT + 0x2000, 300)),
    ];
    let heads = queues.map(|(queue, buffer)| {
        let head = guest.queues[usize::from(queue)].describe(&[buffer]);
        (queue, head)
    });
    let mut round = || {
        typed.write_all(&[b'k'; 100]).unwrap();
        let before = heads.map(|(queue, _)| guest.queues[usize::from(queue)].used_index());
        for (queue, head) in heads {
            guest.queues[usize::from(queue)].offer(head);
            notify(&mut guest.device, queue);
        }
        for _ in 0..3 {
            assert_eq!(memory.drop_output(100), 100);
            guest.device.process_events();
        }
        shown.read_exact(&mut [0; 300]).unwrap();
        for ((queue, _), before) in heads.into_iter().zip(before) {
            let now = guest.queues[usize::from(queue)].used_index();
            assert_eq!(now, before.wrapping_add(1), "queue {queue}");
        }
    };
    round();
    let counted = measure(|| (0..100).for_each(|_| round()));
    assert_eq!(counted.count_total, 0);
}
