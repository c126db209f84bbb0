//! The user-mode network: a guest that sends any frames, and a host whose sockets do anything.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use goldcrest_usernet::{
    DnsConfig, Event, Forward, Network, NetworkConfig, RxOffload, ScriptedHost, ScriptedKind,
    TxOffload,
};

const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x15];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Each of the guest's connections begins with this sequence number.
const ISS: u32 = 0xffff_f000;
/// More frames than this cannot be owed without anything new.
const MOST_FRAMES: usize = 100_000;
/// The most that a stream of the host's is given at once.
const PIECE: usize = 8 << 10;

/// Runs the target.
pub fn run(data: &[u8]) {
    let _ = drive(&mut Unstructured::new(data));
}

/// A connection, as the guest knows it: its port and the other end.
pub(crate) type Key = (u16, [u8; 4], u16);

struct World {
    network: Network<ScriptedHost>,
    host: ScriptedHost,
    limit: usize,
    now: Duration,
    /// What the network has said last: its initial sequence number, the next one and its acknowledgement.
    flows: HashMap<Key, (u32, u32, u32)>,
    /// How many bytes each peer has given and taken.
    peers: HashMap<u64, (usize, usize)>,
    /// A frame of any bytes may have been a segment: streams may have any bytes, too.
    is_tainted: bool,
}

fn drive(input: &mut Unstructured<'_>) -> Result<()> {
    let mut world = World::new(input)?;
    while !input.is_empty() {
        match input.int_in_range(0..=9)? {
            0 => world.wait(input)?,
            1 => world.send_any(input)?,
            2..=4 => world.send_segment(input)?,
            5 => world.send_datagram(input)?,
            6 | 7 => world.act_as_host(input)?,
            _ => world.receive(input)?,
        }
        world.check();
    }
    world.drain(RxOffload::default(), 65550);
    Ok(())
}

impl World {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let bits: u8 = input.arbitrary()?;
        let mut config = NetworkConfig {
            host_loopback: bits & 1 != 0,
            mtu: if bits & 2 != 0 { 1500 } else { 65520 },
            dns: match bits & 4 {
                0 => DnsConfig::None,
                _ => DnsConfig::Upstream(SocketAddr::from(([192, 0, 2, 53], 53))),
            },
            forwards: vec![forward("tcp:8080:80"), forward("udp:5353:53")],
            seed: Some([bits; 16]),
            ..NetworkConfig::default()
        };
        config.limits.tcp_flows = usize::from(bits >> 4) + 1;
        config.limits.udp_flows = usize::from(bits >> 4) + 1;
        config.limits.ring = 16 << 10 << (bits >> 3 & 1);
        config.limits.rings = 256 << 10;
        let limit = config.limits.tcp_flows;
        let host = ScriptedHost::default();
        let network = Network::with_host(config, host.clone()).expect("the configuration is right");
        Ok(Self {
            network,
            host,
            limit,
            now: Duration::ZERO,
            flows: HashMap::new(),
            peers: HashMap::new(),
            is_tainted: false,
        })
    }

    fn wait(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let millis: u16 = input.arbitrary()?;
        // At times very long, else short.
        let factor = if millis & 7 == 0 { 1000 } else { 1 };
        self.now += Duration::from_millis(u64::from(millis) * factor);
        self.network.process(self.now);
        Ok(())
    }

    fn send(&mut self, frame: &[u8], offload: TxOffload) {
        self.network.send(frame.len(), &mut &frame[..], offload);
    }

    fn send_any(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let len = input.int_in_range(0..=300)?;
        let mut frame = input.bytes(len.min(input.len()))?.to_vec();
        let bits: u8 = input.arbitrary().unwrap_or(0);
        // From the guest to the gateway, else hardly any frame gets far.
        if bits & 1 != 0 && frame.len() >= 14 {
            frame[..6].copy_from_slice(&GATEWAY_MAC);
            frame[6..12].copy_from_slice(&MAC);
            frame[12..14].copy_from_slice(
                &[[8, 0], [0x86, 0xdd], [8, 6], [8, 0]][usize::from(bits >> 1 & 3)],
            );
        }
        if bits & 8 != 0 && frame.len() >= 34 {
            frame[14] = 0x45 | frame[14] & 1;
            let [high, low] = u16::try_from(frame.len() - 14).unwrap_or(0).to_be_bytes();
            frame[16..18].copy_from_slice(&[high, low]);
            finish_ipv4(&mut frame);
        }
        self.is_tainted = true;
        // The frame may be shorter than it is said to be.
        let said = frame.len() + usize::from(bits & 16 != 0);
        let offload = TxOffload {
            checksum: bits & 32 != 0,
        };
        self.network.send(said, &mut &frame[..], offload);
        Ok(())
    }

    /// A segment whose numbers are near those that are right.
    fn send_segment(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bits: u8 = input.arbitrary()?;
        let key = self.pick_flow(bits);
        let (_, next, ack) = self.flows.get(&key).copied().unwrap_or((0, 0, ISS));
        let flags = [0x02, 0x10, 0x18, 0x11, 0x14, 0x10, 0x12, 0x19][usize::from(bits >> 2 & 7)];
        let flags = if bits & 0x80 != 0 {
            input.arbitrary::<u8>()? & 0x3f
        } else {
            flags
        };
        let near = |input: &mut Unstructured<'_>, number: u32| -> Result<u32> {
            Ok(match input.arbitrary::<u8>()? {
                0..=200 => number,
                201..=230 => number.wrapping_sub(input.arbitrary::<u16>()?.into()),
                231..=250 => number.wrapping_add(input.arbitrary::<u16>()?.into()),
                _ => input.arbitrary()?,
            })
        };
        // What is sent at each number is settled, so that it is known what the host is to get.
        let seq = if flags & 2 != 0 {
            ISS
        } else {
            near(input, ack)?
        };
        let ack = near(input, next)?;
        let window: u16 = input.arbitrary()?;
        let len: u16 = input.arbitrary()?;
        let len = usize::from(len) >> (bits >> 5 & 3);
        let data: Vec<u8> = (0..len)
            .map(|i| byte(seq.wrapping_add(u32::try_from(i).expect("short"))))
            .collect();
        let data = if flags & 2 == 0 { &data[..] } else { &[] };
        let options: &[u8] = match (flags & 2, bits >> 5 & 1) {
            (0, _) => &[],
            (_, 0) => &[2, 4, 5, 180, 1, 3, 3, 7],
            _ => &[2, 4, 0, 1],
        };
        let frame = segment(key, (seq, ack, flags, window), options, data);
        self.send(&frame, TxOffload { checksum: true });
        Ok(())
    }

    /// One of a few connections: of the guest's, or of those to its port 80.
    fn pick_flow(&self, bits: u8) -> Key {
        let inbound = self.flows.keys().filter(|key| key.0 == 80).min();
        match (bits & 3, inbound) {
            (3, Some(key)) => *key,
            (number, _) => (40000 + u16::from(number), [192, 0, 2, 7], 80),
        }
    }

    fn send_datagram(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bits: u8 = input.arbitrary()?;
        let to =
            [[192, 0, 2, 9], [10, 0, 2, 2], [10, 0, 2, 3], [127, 0, 0, 1]][usize::from(bits & 3)];
        let port = [53, 67, 9, 49152][usize::from(bits >> 2 & 3)];
        let len = usize::from(input.arbitrary::<u8>()?) << (bits >> 4 & 3);
        let from = 5000 + u16::from(bits >> 6);
        let mut payload = Vec::new();
        if bits & 0x30 == 0x30 {
            // An echo request.
            payload.extend([8, 0, 0, 0, 0, bits >> 6, 0, 1]);
            payload.resize(8 + len, 1);
            let sum = checksum(&payload);
            payload[2..4].copy_from_slice(&sum.to_be_bytes());
            let frame = ipv4(to, 1, &payload);
            self.send(&frame, TxOffload::default());
            return Ok(());
        }
        payload.extend(from.to_be_bytes());
        payload.extend(u16::to_be_bytes(port));
        payload.extend(u16::try_from(8 + len).expect("short").to_be_bytes());
        payload.extend([0, 0]);
        payload.resize(8 + len, 2);
        let frame = ipv4(to, 17, &payload);
        self.send(&frame, TxOffload::default());
        Ok(())
    }

    fn act_as_host(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let peers = self.host.peers();
        let index = usize::from(input.arbitrary::<u8>()?);
        let Some(peer) = peers.get(index % peers.len().max(1)) else {
            return Ok(());
        };
        let (given, _) = self.peers.entry(peer.id()).or_default();
        let from = SocketAddr::from(([192, 0, 2, 77], 1000 + u16::from(index as u8 >> 4)));
        match input.int_in_range(0..=8)? {
            0 | 1 => peer.connect(),
            2 => {
                let len = usize::from(input.arbitrary::<u16>()?) % PIECE;
                let bytes: Vec<u8> = (*given..*given + len).map(stream_byte).collect();
                if peer.left() < 16 * PIECE {
                    peer.give(&bytes);
                    *given += len;
                }
            }
            3 => peer.end(),
            4 => peer.fail(
                [
                    ErrorKind::ConnectionReset,
                    ErrorKind::ConnectionRefused,
                    ErrorKind::BrokenPipe,
                ][index % 3],
            ),
            5 => peer.set_room(input.arbitrary::<u16>()?.into()),
            6 => {
                let len = usize::from(input.arbitrary::<u16>()?) % 4000;
                peer.come(&vec![3; len], from);
            }
            7 => self.host.refuse(
                [
                    ErrorKind::NetworkUnreachable,
                    ErrorKind::Other,
                    ErrorKind::WouldBlock,
                ][index % 3],
            ),
            _ => self.host.event(Event {
                token: input.arbitrary()?,
                readable: true,
                writable: true,
                hang_up: index & 1 != 0,
            }),
        }
        self.network.process(self.now);
        Ok(())
    }

    fn receive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let bits: u8 = input.arbitrary()?;
        let checksum = bits & 1 != 0;
        let offload = RxOffload {
            checksum,
            tso4: bits & 2 != 0,
            tso6: bits & 4 != 0,
        };
        let room = if bits & 8 != 0 {
            65550
        } else {
            usize::from(input.arbitrary::<u16>()?)
        };
        if bits & 16 != 0 {
            self.drain(offload, room);
        } else {
            self.receive_one(offload, room);
        }
        Ok(())
    }

    /// Without anything new there is an end to what is owed, and it is said that nothing is if there is room.
    fn drain(&mut self, offload: RxOffload, room: usize) {
        let mut count = 0;
        while self.receive_one(offload, room) || room > 65535 && self.network.has_frame() {
            count += 1;
            assert!(count < MOST_FRAMES, "frames without end");
        }
    }

    fn receive_one(&mut self, offload: RxOffload, room: usize) -> bool {
        let mut frame = Vec::new();
        let Some(info) = self.network.receive(room, offload, &mut frame) else {
            return false;
        };
        assert_eq!(info.len, frame.len());
        assert!(info.len <= room);
        assert!(info.checksum.is_none() || offload.checksum);
        assert!(info.gso.is_none() || offload.checksum && (offload.tso4 || offload.tso6));
        if frame[12..14] == [8, 0] {
            assert_eq!(checksum(&frame[14..34]), 0, "header");
            if frame[23] == 6 {
                self.learn(&frame, info.checksum.is_some());
            }
        }
        true
    }

    /// Takes what a segment says, and looks whether it carries what the host has given.
    fn learn(&mut self, frame: &[u8], is_partial: bool) {
        let word = |at: usize| {
            u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
        };
        let short = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if !is_partial {
            let mut pseudo = frame[26..34].to_vec();
            pseudo.extend([0, 6]);
            pseudo.extend(
                u16::try_from(frame.len() - 34)
                    .expect("not longer")
                    .to_be_bytes(),
            );
            pseudo.extend(&frame[34..]);
            assert_eq!(checksum(&pseudo), 0, "segment");
        }
        let key = (
            short(36),
            [frame[26], frame[27], frame[28], frame[29]],
            short(34),
        );
        let (seq, ack, flags) = (word(38), word(42), frame[47]);
        let payload = &frame[34 + usize::from(frame[46] >> 4) * 4..];
        let taken = u32::try_from(payload.len()).expect("short")
            + u32::from(flags & 1)
            + u32::from(flags >> 1 & 1);
        if flags & 4 != 0 {
            // It may be an answer to something odd, and the connection goes on.
            return;
        }
        let known = self.flows.entry(key).or_insert((seq, seq, ISS));
        if flags & 2 != 0 {
            *known = (seq, seq, ISS.wrapping_add(1));
        }
        let first = seq.wrapping_sub(known.0).wrapping_sub(1);
        if !self.is_tainted {
            for (index, byte) in (first as usize..).zip(payload) {
                assert_eq!(*byte, stream_byte(index), "byte {index} of a stream");
            }
        }
        known.1 = seq.wrapping_add(taken);
        if flags & 0x10 != 0 {
            known.2 = ack;
        }
    }

    fn check(&mut self) {
        let (tcp, udp) = self.network.flows();
        assert!(tcp <= self.limit && udp <= self.limit);
        let peers = self.host.peers();
        assert!(peers.len() <= tcp + udp + 2);
        for peer in peers {
            let Some(ScriptedKind::Tcp(_)) = peer.kind() else {
                while peer.take_datagram().is_some() {}
                continue;
            };
            let (_, taken) = self.peers.entry(peer.id()).or_default();
            for byte in peer.take() {
                let seq = ISS
                    .wrapping_add(1)
                    .wrapping_add(u32::try_from(*taken).expect("short"));
                assert!(
                    self.is_tainted || byte == self::byte(seq),
                    "byte {taken} at the host"
                );
                *taken += 1;
            }
        }
        let _ = self.network.timeout(self.now);
        let _ = self.network.stats();
    }
}

fn forward(text: &str) -> Forward {
    text.parse().expect("a forward")
}

/// What the guest sends at a sequence number.
fn byte(seq: u32) -> u8 {
    (seq.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// What the host sends at a place in its stream.
fn stream_byte(index: usize) -> u8 {
    (index.wrapping_mul(0x85eb_ca6b) >> 16) as u8
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ipv4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY_MAC, MAC].concat();
    let [high, low] = u16::try_from(20 + payload.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    frame.extend([8, 0, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(GUEST.octets());
    frame.extend(to);
    finish_ipv4(&mut frame);
    frame.extend(payload);
    frame
}

pub(crate) fn finish_ipv4(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 0xf) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    if let Some(header) = frame.get(14..14 + len) {
        let sum = checksum(header);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
}

pub(crate) fn segment(
    key: Key,
    (seq, ack, flags, window): (u32, u32, u8, u16),
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(key.0.to_be_bytes());
    payload.extend(key.2.to_be_bytes());
    payload.extend(seq.to_be_bytes());
    payload.extend(ack.to_be_bytes());
    let words = u8::try_from(5 + options.len() / 4).expect("few options");
    payload.extend([words << 4, flags]);
    payload.extend(window.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(options);
    let most = 65535 - 20 - payload.len();
    payload.extend(&data[..data.len().min(most)]);
    ipv4(key.1, 6, &payload)
}
