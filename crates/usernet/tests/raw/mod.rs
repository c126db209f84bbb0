//! Frames of a guest, byte by byte.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::IpAddr;

use goldcrest_usernet::{Host, Network, TxOffload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, UdpPacket, UdpRepr,
};

use crate::guest::MAC;

/// The gateway's place on the link.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

pub(crate) fn send<H: Host>(network: &mut Network<H>, frame: &[u8]) {
    network.send(frame.len(), &mut &frame[..], TxOffload::default());
}

/// A frame with a packet of IP.
pub(crate) fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY_MAC, MAC].concat();
    let len = u16::try_from(payload.len()).unwrap();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [a, b] = (len + 20).to_be_bytes();
            let mut header = vec![0x45, 0, a, b, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(header);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [a, b] = len.to_be_bytes();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, a, b, protocol, 255]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => panic!("two kinds of addresses"),
    }
    frame.extend(payload);
    frame
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

pub(crate) fn udp(
    src: (impl Into<IpAddr>, u16),
    dst: (impl Into<IpAddr>, u16),
    data: &[u8],
) -> Vec<u8> {
    let (from, to) = (src.0.into(), dst.0.into());
    let repr = UdpRepr {
        src_port: src.1,
        dst_port: dst.1,
    };
    let mut bytes = vec![0; 8 + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &IpAddress::from(from),
        &IpAddress::from(to),
        data.len(),
        |to| to.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    packet(from, to, 17, &bytes)
}

pub(crate) fn echo(src: IpAddr, dst: IpAddr, ident: u16, seq_no: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + data.len()];
    let checksums = ChecksumCapabilities::default();
    match (src, dst) {
        (IpAddr::V4(_), _) => {
            let repr = Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &checksums);
            packet(src, dst, 1, &bytes)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let repr = Icmpv6Repr::EchoRequest {
                ident,
                seq_no,
                data,
            };
            repr.emit(
                &from,
                &to,
                &mut Icmpv6Packet::new_unchecked(&mut bytes),
                &checksums,
            );
            packet(src, dst, 58, &bytes)
        }
        _ => panic!("two kinds of addresses"),
    }
}

/// What a frame carries: from whom, to whom, which protocol, and the payload.
pub(crate) fn parse(frame: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let address = |range: std::ops::Range<usize>| -> IpAddr {
        match <[u8; 4]>::try_from(&frame[range.clone()]) {
            Ok(bytes) => bytes.into(),
            Err(_) => <[u8; 16]>::try_from(&frame[range]).unwrap().into(),
        }
    };
    match frame[12..14] {
        [8, 0] => {
            assert_eq!(sum(&frame[14..34]), 0);
            (
                address(26..30),
                address(30..34),
                frame[23],
                frame[34..].to_vec(),
            )
        }
        [0x86, 0xdd] => (
            address(22..38),
            address(38..54),
            frame[20],
            frame[54..].to_vec(),
        ),
        _ => panic!("not IP"),
    }
}

/// A frame's packet in pieces of so many bytes, behind headers of that length.
pub(crate) fn fragments(frame: &[u8], headers: usize, len: usize, ident: u16) -> Vec<Vec<u8>> {
    let (src, dst, protocol, payload) = parse(frame);
    assert_eq!(payload.len(), frame.len() - headers);
    let len = len / 8 * 8;
    let count = payload.len().div_ceil(len);
    let pieces = payload.chunks(len).enumerate().map(|(index, piece)| {
        let more = index + 1 < count;
        let offset = u16::try_from(index * len).unwrap();
        let [a, b] = ident.to_be_bytes();
        if src.is_ipv6() {
            let [high, low] = (offset | u16::from(more)).to_be_bytes();
            let header = [protocol, 0, high, low, 0, 0, a, b];
            return packet(src, dst, 44, &[&header, piece].concat());
        }
        let mut frame = packet(src, dst, protocol, piece);
        frame[18..20].copy_from_slice(&[a, b]);
        let bits = (offset / 8) | (u16::from(more) << 13);
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    });
    pieces.collect()
}
