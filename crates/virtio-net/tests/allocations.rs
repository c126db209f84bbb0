//! Proves that a network device in use allocates nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod guest;

use allocation_counter::measure;
use goldcrest_virtio::driver::{Buffer, notify};
use goldcrest_virtio_net::spec::{MAX_FRAME, control, feature};
use goldcrest_virtio_net::{Loopback, NetConfig};
use guest::{DATA, Guest, config, frame, headed};
use vm_memory::{Bytes, GuestAddress};

const LONG: u32 = 60_000;

/// Frames of all kinds, and commands, in steady state.
#[test]
fn frames_and_commands_allocate_nothing() {
    let features = feature::MRG_RXBUF | feature::CTRL_VQ | feature::CTRL_RX | feature::MTU;
    let config = NetConfig {
        mtu: Some(1500),
        rx_rate: "100G+10000000ops".parse().unwrap(),
        tx_rate: "100G+10000000ops".parse().unwrap(),
        ..config()
    };
    let network = Loopback::new(4).with_features(feature::CSUM | feature::HOST_TSO4);
    let mut guest = Guest::new(network, &config, features);
    assert_eq!(guest.command(control::RX, control::RX_PROMISC, &[0]), 0);
    let memory = guest.memory.clone();
    let write = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    write(DATA, &headed(&frame(60)));
    write(DATA + 0x1000, &[control::RX, control::RX_ALLMULTI, 1]);
    let mut long = headed(&frame(MAX_FRAME));
    long[1] = 1;
    write(DATA + 0x2_0000, &long);
    let chains = [
        (1, Buffer::Readable(DATA, 72)),
        // Too short, too long for the MTU.
        (1, Buffer::Readable(DATA, 20)),
        (1, Buffer::Readable(DATA + 0x2_0000, 2000)),
        (2, Buffer::Readable(DATA + 0x1000, 3)),
    ];
    // The driver allocates to describe buffers, not to offer them.
    let heads = chains.map(|(queue, buffer)| {
        let answer = Buffer::Writable(DATA + 0x1100, 1);
        let head = match queue {
            2 => guest.queues[2].describe(&[buffer, answer]),
            _ => guest.queues[queue].describe(&[buffer]),
        };
        (queue, head)
    });
    let rooms: Vec<_> = (0..64)
        .map(|n| guest.queues[0].describe(&[Buffer::Writable(DATA + 0x10_0000 + 2048 * n, 1526)]))
        .collect();
    let arriving = headed(&frame(LONG as usize));
    let mut offered = 0;
    let mut round = || {
        // As many buffers as were used.
        while guest.queues[0].used().is_some() {
            offered -= 1;
        }
        if offered == 0 {
            for head in &rooms {
                guest.queues[0].offer(*head);
                offered += 1;
            }
            notify(&mut guest.device, 0);
        }
        for (queue, head) in heads {
            guest.queues[queue].offer(head);
            notify(&mut guest.device, u16::try_from(queue).unwrap());
            while guest.queues[queue].used().is_some() {}
        }
        if offered == 64 {
            assert!(guest.backend().give(&arriving));
        }
        guest.device.process_events();
    };
    (0..100).for_each(|_| round());
    let counted = measure(|| (0..300).for_each(|_| round()));
    assert_eq!(counted.count_total, 0);
    let stats = guest.stats();
    assert!(stats.rx_frames > 300 && stats.rx_dropped() > 0 && stats.tx_dropped() > 0);
}
