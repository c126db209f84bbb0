//! A wire that loses, repeats and reorders frames: what is sent arrives whole and in order nevertheless.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::VecDeque;
use std::time::Duration;

use goldcrest_usernet::{Network, NetworkConfig, ScriptedHost, ScriptedKind};
use proptest::prelude::*;

use guest::{Guest, Wire, open, pattern};

mod guest;

/// Numbers that repeat themselves for the same seed.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// A wire on which one of `loss` frames is lost, repeated or late.
fn bad(seed: u64, loss: u64) -> Wire {
    let mut number = numbers(seed);
    let mut late = None;
    Box::new(move |frame: Vec<u8>, queue: &mut VecDeque<Vec<u8>>| {
        match number(loss * 3) {
            0 => {}
            1 => {
                queue.push_back(frame.clone());
                queue.push_back(frame);
            }
            2 => {
                if let Some(other) = late.replace(frame) {
                    queue.push_back(other);
                }
            }
            _ => queue.push_back(frame),
        }
        if number(4) == 0
            && let Some(frame) = late.take()
        {
            queue.push_back(frame);
        }
    })
}

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    loss: u64,
    up: usize,
    down: usize,
    buffer: usize,
    piece: usize,
    /// How many bytes the server reads at once.
    reads: usize,
    mtu: u16,
}

fn cases() -> impl Strategy<Value = Case> {
    // The guest's stack waits for ever for an open window whose frame was lost: what loses frames has a quick server.
    let wire = prop_oneof![
        (4..40_u64, Just(usize::MAX)),
        (Just(NEVER), 100..50_000_usize),
    ];
    let bytes = 0..200_000_usize;
    let mtu = prop_oneof![Just(1500), Just(9000), Just(65520)];
    (
        any::<u64>(),
        wire,
        bytes.clone(),
        bytes,
        12..17_u32,
        1..40_000_usize,
        mtu,
    )
        .prop_map(|(seed, (loss, reads), up, down, buffer, piece, mtu)| Case {
            seed,
            loss,
            up,
            down,
            buffer: 1 << buffer,
            piece,
            reads,
            mtu,
        })
}

/// Of so many frames none is lost.
const NEVER: u64 = u64::MAX / 8;

fn run(case: &Case) -> u64 {
    let host = ScriptedHost::default();
    let config = NetworkConfig {
        mtu: case.mtu,
        ..open()
    };
    let network = Network::with_host(config, host.clone()).unwrap();
    let mut guest = Guest::with_network(network, case.mtu);
    guest.to_guest = bad(case.seed, case.loss);
    guest.from_guest = bad(case.seed.rotate_left(32), case.loss);
    let mut now = Duration::from_secs(1);
    guest.manual = Some(now);
    let handle = guest.connect_with("192.0.2.7:80".parse().unwrap(), 40000, case.buffer);
    guest
        .socket(handle)
        .set_ack_delay(Some(smoltcp::time::Duration::from_millis(10)));

    let (up, down) = (pattern(3, case.up), pattern(5, case.down));
    let (mut sent, mut given) = (0, 0);
    let (mut at_server, mut at_guest) = (Vec::new(), Vec::new());
    let mut peer = None;
    let mut server_ended = false;
    for _ in 0..400_000 {
        now += Duration::from_millis(5);
        guest.manual = Some(now);
        guest.step();
        if peer.is_none() {
            peer = host.peers().pop();
            if let Some(peer) = &peer {
                assert_eq!(
                    peer.kind(),
                    Some(ScriptedKind::Tcp("192.0.2.7:80".parse().unwrap()))
                );
                peer.connect();
            }
        }
        if let Some(peer) = &peer {
            let bytes = peer.take();
            at_server.extend_from_slice(&bytes);
            peer.set_room(case.reads);
            if given < down.len() && peer.left() < 100_000 {
                let piece = case.piece.min(down.len() - given);
                peer.give(&down[given..given + piece]);
                given += piece;
            } else if given == down.len() && at_server.len() == up.len() && !server_ended {
                // Not before: the guest's stack forgets to send again once the other side has closed.
                peer.end();
                server_ended = true;
            }
        }
        let socket = guest.socket(handle);
        if sent < up.len() && socket.can_send() {
            sent += socket
                .send_slice(&up[sent..(sent + case.piece).min(up.len())])
                .unwrap();
        } else if sent == up.len() && socket.may_send() && at_guest.len() == down.len() {
            socket.close();
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    at_guest.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        if server_ended && at_guest.len() == down.len() && !guest.socket(handle).may_recv() {
            break;
        }
    }
    let stats = guest.network.stats();
    assert_eq!(
        (at_server.len(), at_guest.len()),
        (up.len(), down.len()),
        "{stats:?}"
    );
    assert!(at_server == up && at_guest == down);
    assert_eq!((stats.tcp_timed_out, host.resets()), (0, 0));
    stats.tcp_retransmitted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn data_arrives_whole_and_in_order(case in cases()) {
        run(&case);
    }
}

#[test]
fn without_loss_nothing_is_sent_twice() {
    let case = Case {
        seed: 1,
        loss: NEVER,
        up: 300_000,
        down: 300_000,
        buffer: 65536,
        piece: 20_000,
        reads: 50_000,
        mtu: 1500,
    };
    assert_eq!(run(&case), 0);
}
