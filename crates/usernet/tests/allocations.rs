//! Proves that a network in use allocates nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use goldcrest_usernet::{Network, RxOffload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use guest::{ADDRESS, GATEWAY, open};
use raw::{packet, parse, send, udp};

mod guest;
mod raw;

fn segment(port: u16, control: TcpControl, seq: u32, ack: Option<u32>, data: &[u8]) -> Vec<u8> {
    let number = |number: u32| TcpSeqNumber(number.cast_signed());
    let repr = TcpRepr {
        src_port: 40000,
        dst_port: port,
        control,
        seq_number: number(seq),
        ack_number: ack.map(number),
        window_len: 65535,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: data,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    let (from, to) = (IpAddress::Ipv4(ADDRESS), IpAddress::Ipv4(GATEWAY));
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &from,
        &to,
        &ChecksumCapabilities::default(),
    );
    packet(ADDRESS.into(), GATEWAY.into(), 6, &bytes)
}

fn receive(network: &mut Network, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    network
        .receive(1514, RxOffload::default(), buffer)
        .is_some()
}

#[test]
fn bytes_in_both_directions_allocate_nothing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut network = Network::new(open()).unwrap();
    let started = Instant::now();
    let mut buffer = Vec::with_capacity(2000);
    send(&mut network, &segment(port, TcpControl::Syn, 0, None, &[]));
    while !receive(&mut network, &mut buffer) {
        network.process(started.elapsed());
    }
    let (_, _, _, answer) = parse(&buffer);
    let iss = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
    let (mut seq, mut ack) = (1_u32, iss.wrapping_add(1));
    send(
        &mut network,
        &segment(port, TcpControl::None, seq, Some(ack), &[]),
    );
    let (mut stream, _) = listener.accept().unwrap();
    let data = [7; 1400];
    let mut bytes = [0; 1400];
    let mut round = || {
        // The frames are the guest's: what it allocates for them does not count.
        let next = segment(port, TcpControl::None, seq, Some(ack), &data);
        seq += 1400;
        stream.write_all(&data).unwrap();
        let mut received = 0;
        let counted = measure(|| {
            send(&mut network, &next);
            network.flush();
            while received < 1400 {
                network.process(started.elapsed());
                while receive(&mut network, &mut buffer) {
                    received += buffer.len() - 54;
                }
            }
        });
        stream.read_exact(&mut bytes).unwrap();
        ack = ack.wrapping_add(1400);
        let last = segment(port, TcpControl::None, seq, Some(ack), &[]);
        counted.count_total + measure(|| send(&mut network, &last)).count_total
    };
    // At first buffers are made.
    for _ in 0..50 {
        round();
    }
    assert_eq!((0..200).map(|_| round()).sum::<u64>(), 0);
}

#[test]
fn datagrams_and_answers_of_the_gateway_allocate_nothing() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut network = Network::new(open()).unwrap();
    let started = Instant::now();
    let mut buffer = Vec::with_capacity(2000);
    let datagram = udp((ADDRESS, 5000), (GATEWAY, port), &[1; 1000]);
    let echo = raw::echo(ADDRESS.into(), GATEWAY.into(), 1, 1, &[2; 1000]);
    let mut bytes = [0; 2000];
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut round = || {
        let counted = measure(|| {
            send(&mut network, &datagram);
            send(&mut network, &echo);
        });
        let (len, from) = server.recv_from(&mut bytes).unwrap();
        server.send_to(&bytes[..len], from).unwrap();
        let mut received = 0;
        let more = measure(|| {
            while received < 2 {
                network.process(started.elapsed());
                received += usize::from(receive(&mut network, &mut buffer));
            }
        });
        counted.count_total + more.count_total
    };
    for _ in 0..10 {
        round();
    }
    assert_eq!((0..200).map(|_| round()).sum::<u64>(), 0);
}
