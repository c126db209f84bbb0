//! Connections, segment by segment: what RFC 9293 and RFC 5961 say of each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use goldcrest_usernet::{Network, NetworkConfig, RxOffload, ScriptedHost, ScriptedPeer, TxOffload};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use guest::{ADDRESS, GATEWAY, open, pattern};
use raw::{packet, parse};

mod guest;
mod raw;

const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// The guest's initial sequence number: its numbers wrap soon.
const ISS: u32 = 0xffff_fff0;

/// A segment from the network.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    data: Vec<u8>,
    options: Vec<u8>,
}

/// A guest that says what it is told to.
struct Guest {
    network: Network<ScriptedHost>,
    host: ScriptedHost,
    now: Duration,
    remote: SocketAddr,
    port: u16,
    /// The next that the guest sends, and the next that it expects.
    seq: u32,
    ack: u32,
    window: u16,
    /// The network's initial sequence number.
    iss: u32,
    scale: Option<u8>,
    offload: RxOffload,
    room: usize,
}

impl Guest {
    fn new(config: NetworkConfig) -> Self {
        let host = ScriptedHost::default();
        let mut network = Network::with_host(config, host.clone()).unwrap();
        network.process(Duration::from_secs(1));
        Self {
            network,
            host,
            now: Duration::from_secs(1),
            remote: (REMOTE, 80).into(),
            port: 40000,
            seq: ISS,
            ack: 0,
            window: 1000,
            iss: 0,
            scale: Some(7),
            offload: RxOffload::default(),
            room: 65550,
        }
    }

    /// One with a connection, and its other end.
    fn connected(config: NetworkConfig) -> (Self, ScriptedPeer) {
        let mut guest = Self::new(config);
        let peer = guest.connect();
        (guest, peer)
    }

    fn connect(&mut self) -> ScriptedPeer {
        self.say(SYN, &[]);
        self.seq = self.seq.wrapping_add(1);
        let peer = self.host.peers().pop().unwrap();
        peer.connect();
        let answer = self.one();
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, self.seq));
        self.iss = answer.seq;
        self.ack = answer.seq.wrapping_add(1);
        self.say(ACK, &[]);
        self.nothing();
        peer
    }

    fn say(&mut self, flags: u8, data: &[u8]) {
        let (seq, ack) = (self.seq, self.ack);
        self.say_at(flags, seq, ack, data);
    }

    fn say_at(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let control = match flags & (FIN | SYN | RST) {
            FIN => TcpControl::Fin,
            SYN => TcpControl::Syn,
            RST => TcpControl::Rst,
            _ => TcpControl::None,
        };
        let number = |number: u32| TcpSeqNumber(number.cast_signed());
        let repr = TcpRepr {
            src_port: self.port,
            dst_port: self.remote.port(),
            control,
            seq_number: number(seq),
            ack_number: (flags & ACK != 0).then(|| number(ack)),
            window_len: self.window,
            window_scale: (flags & SYN != 0).then_some(self.scale).flatten(),
            max_seg_size: (flags & SYN != 0).then_some(1400),
            sack_permitted: flags & SYN != 0,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: data,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        let (from, to) = (IpAddr::from(ADDRESS), self.remote.ip());
        let checksums = ChecksumCapabilities::default();
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut bytes),
            &IpAddress::from(from),
            &IpAddress::from(to),
            &checksums,
        );
        raw::send(&mut self.network, &packet(from, to, 6, &bytes));
        self.network.flush();
    }

    fn hear(&mut self) -> Option<Seen> {
        self.network.process(self.now);
        let mut frame = Vec::new();
        self.network.receive(self.room, self.offload, &mut frame)?;
        let (src, dst, number, payload) = parse(&frame);
        assert_eq!(
            (src, dst, number),
            (self.remote.ip(), ADDRESS.into(), 6),
            "{frame:x?}"
        );
        let tcp = TcpPacket::new_checked(&payload[..]).unwrap();
        if !self.offload.checksum {
            assert!(tcp.verify_checksum(&IpAddress::from(src), &IpAddress::from(dst)));
        }
        Some(Seen {
            flags: payload[13] & !8,
            seq: tcp.seq_number().0.cast_unsigned(),
            ack: tcp.ack_number().0.cast_unsigned(),
            window: tcp.window_len(),
            data: tcp.payload().to_vec(),
            options: tcp.options().to_vec(),
        })
    }

    fn one(&mut self) -> Seen {
        self.hear().expect("a segment")
    }

    fn all(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.hear()).collect()
    }

    fn nothing(&mut self) {
        assert_eq!(self.hear(), None);
    }

    /// The network says that it expects that.
    fn acknowledges(&mut self, ack: u32) -> Seen {
        let seen = self.one();
        assert_eq!((seen.flags, seen.ack, seen.data.len()), (ACK, ack, 0));
        seen
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.network.process(self.now);
    }

    fn flows(&self) -> usize {
        self.network.flows().0
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_guest_is_answered_when_the_host_has_connected() {
    let mut guest = Guest::new(open());
    guest.say(SYN, &[]);
    guest.nothing();
    // It asks again: there still is one connection.
    guest.say(SYN, &[]);
    guest.nothing();
    assert_eq!(guest.host.peers().len(), 1);
    guest.host.peers()[0].connect();
    let answer = guest.one();
    assert_eq!(answer.options, [2, 4, 0x05, 0xb4, 1, 3, 3, 7]);
    // The answer was lost: it comes again when it is asked for, and by itself, but not for ever.
    guest.say(SYN, &[]);
    assert_eq!(guest.one().seq, answer.seq);
    guest.wait(millis(200));
    assert_eq!(guest.one().seq, answer.seq);
    guest.wait(millis(399));
    guest.nothing();
    guest.wait(millis(1));
    assert_eq!(guest.one().flags, SYN | ACK);
    guest.wait(Duration::from_secs(60));
    assert_eq!(
        (
            guest.flows(),
            guest.network.stats().tcp_timed_out,
            guest.host.resets()
        ),
        (0, 1, 1)
    );
}

#[test]
fn a_guest_that_does_not_scale_windows_is_not_told_of_scaled_ones() {
    let mut guest = Guest::new(open());
    guest.scale = None;
    guest.say(SYN, &[]);
    guest.host.peers()[0].connect();
    let answer = guest.one();
    assert_eq!(answer.options, [2, 4, 0x05, 0xb4]);
    guest.seq = guest.seq.wrapping_add(1);
    guest.ack = answer.seq.wrapping_add(1);
    guest.say(ACK, &[]);
    // Much can be sent, but no more than 65535 bytes at once.
    let peer = guest.host.peers().pop().unwrap();
    peer.set_room(0);
    let mut sent = 0;
    for _ in 0..60 {
        guest.say(ACK, &pattern(sent, 1400));
        let seen = guest.one();
        assert!(u32::from(seen.window) + seen.ack.wrapping_sub(ISS + 1) <= 65535);
        if seen.ack == guest.seq {
            break;
        }
        sent += 1400;
        guest.seq = seen.ack;
    }
    peer.set_room(usize::MAX);
    guest.network.process(guest.now);
    let taken = usize::try_from(guest.seq.wrapping_sub(ISS + 1)).unwrap();
    assert!(taken >= 60000 && peer.take() == pattern(0, taken));
}

#[test]
fn what_the_host_cannot_reach_is_reset_with_the_reason() {
    for (why, code) in [
        (ErrorKind::ConnectionRefused, None),
        (ErrorKind::HostUnreachable, Some(1)),
        (ErrorKind::NetworkUnreachable, Some(0)),
        (ErrorKind::TimedOut, Some(1)),
        (ErrorKind::Other, None),
    ] {
        for at_once in [true, false] {
            let mut guest = Guest::new(open());
            if at_once {
                guest.host.refuse(why);
            }
            guest.say(SYN, &[]);
            if !at_once {
                guest.host.peers()[0].fail(why);
                guest.network.process(guest.now);
            }
            if let Some(code) = code {
                let mut frame = Vec::new();
                guest
                    .network
                    .receive(65550, RxOffload::default(), &mut frame)
                    .unwrap();
                let (src, _, number, payload) = parse(&frame);
                assert_eq!(
                    (src, number, &payload[..2]),
                    (GATEWAY.into(), 1, &[3, code][..])
                );
                assert_eq!(payload[8 + 24..8 + 28], ISS.to_be_bytes());
            }
            let reset = guest.one();
            assert_eq!((reset.flags, reset.ack), (RST | ACK, ISS + 1));
            guest.nothing();
            assert_eq!((guest.flows(), guest.network.stats().tcp_failed), (0, 1));
        }
    }
}

#[test]
fn a_host_that_never_connects_is_given_up() {
    let mut guest = Guest::new(open());
    guest.say(SYN, &[]);
    assert_eq!(
        guest.network.timeout(guest.now),
        Some(Duration::from_secs(60))
    );
    guest.wait(Duration::from_secs(60));
    let mut frame = Vec::new();
    guest
        .network
        .receive(65550, RxOffload::default(), &mut frame)
        .unwrap();
    assert_eq!(guest.one().flags, RST | ACK);
    assert!(guest.host.peers().is_empty());
    // The guest may give up before.
    let mut guest = Guest::new(open());
    guest.say(SYN, &[]);
    guest.say_at(RST, ISS + 1, 0, &[]);
    assert!(guest.flows() == 0 && guest.host.peers().is_empty());
}

#[test]
fn segments_of_no_connection_are_reset() {
    let mut guest = Guest::new(open());
    guest.say_at(ACK, 5, 77, b"data");
    let reset = guest.one();
    assert_eq!((reset.flags, reset.seq), (RST, 77));
    guest.say_at(FIN, 5, 0, b"data");
    let reset = guest.one();
    assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, 10));
    guest.say_at(RST, 5, 0, &[]);
    guest.nothing();
    assert_eq!(guest.network.stats().tcp_strays, 3);
}

#[test]
fn a_reset_is_believed_only_at_its_place() {
    let (mut guest, peer) = Guest::connected(open());
    guest.say_at(RST, guest.seq.wrapping_add(1), 0, &[]);
    guest.acknowledges(guest.seq);
    guest.say_at(RST, guest.seq.wrapping_sub(1), 0, &[]);
    guest.nothing();
    // Neither is a SYN, which may come from a guest that has forgotten.
    guest.say_at(SYN, guest.seq.wrapping_add(100), 0, &[]);
    guest.acknowledges(guest.seq);
    guest.say_at(SYN, 5, 0, &[]);
    guest.acknowledges(guest.seq);
    assert!(peer.kind().is_some());
    guest.say_at(RST, guest.seq, 0, &[]);
    guest.nothing();
    assert_eq!(
        (peer.kind(), guest.host.resets(), guest.flows()),
        (None, 1, 0)
    );
}

#[test]
fn only_what_is_new_and_in_the_window_is_taken() {
    let (mut guest, peer) = Guest::connected(open());
    let first = guest.seq;
    guest.say(ACK, b"0123456789");
    guest.acknowledges(first.wrapping_add(10));
    // Again; a part of it and more; what was never sent before it; and without an acknowledgement.
    guest.say(ACK, b"0123456789");
    guest.acknowledges(first.wrapping_add(10));
    guest.say_at(ACK, first.wrapping_add(5), guest.ack, b"56789abcde");
    guest.acknowledges(first.wrapping_add(15));
    guest.say_at(ACK, first.wrapping_add(20), guest.ack, b"later");
    guest.acknowledges(first.wrapping_add(15));
    guest.say_at(0, first.wrapping_add(15), 0, b"no");
    guest.nothing();
    // Of what was never sent, nothing can be acknowledged.
    guest.say_at(
        ACK,
        first.wrapping_add(15),
        guest.ack.wrapping_add(1),
        b"no",
    );
    guest.acknowledges(first.wrapping_add(15));
    guest.say_at(
        ACK,
        first.wrapping_add(15),
        guest.ack.wrapping_sub(1 << 30),
        b"no",
    );
    guest.acknowledges(first.wrapping_add(15));
    // Far beyond the window.
    guest.say_at(ACK, first.wrapping_add(1 << 24), guest.ack, b"no");
    guest.acknowledges(first.wrapping_add(15));
    assert_eq!(peer.take(), b"0123456789abcde");
    assert_eq!(guest.network.stats().bad_checksum, 0);
}

#[test]
fn a_segment_that_is_longer_than_the_window_is_cut() {
    let mut config = open();
    config.limits.ring = 16 << 10;
    let (mut guest, peer) = Guest::connected(config);
    peer.set_room(0);
    let mut sent = 0;
    loop {
        guest.say(ACK, &pattern(sent, 1400));
        let seen = guest.one();
        let taken = usize::try_from(seen.ack.wrapping_sub(guest.seq)).unwrap();
        guest.seq = seen.ack;
        sent += taken;
        if taken < 1400 {
            break;
        }
    }
    assert_eq!(sent, 16 << 10);
    // A closed window is asked about, and says what it is.
    guest.say(ACK, b"?");
    assert_eq!(guest.acknowledges(guest.seq).window, 0);
    peer.set_room(usize::MAX);
    let update = guest.acknowledges(guest.seq);
    assert_eq!(usize::from(update.window) << 7, 16 << 10);
    assert_eq!(peer.take(), pattern(0, sent));
}

#[test]
fn three_duplicates_bring_the_missing_segment_at_once() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(&pattern(0, 5600));
    let first = guest.ack;
    let seen = guest.all();
    assert_eq!(
        seen.iter().map(|seen| seen.data.len()).collect::<Vec<_>>(),
        [1400; 4]
    );
    for _ in 0..2 {
        guest.say_at(ACK, guest.seq, first, &[]);
        guest.nothing();
    }
    guest.say_at(ACK, guest.seq, first, &[]);
    let again = guest.one();
    assert_eq!((again.seq, again.data), (first, pattern(0, 1400)));
    guest.nothing();
    // The third was lost, too.
    guest.say_at(ACK, guest.seq, first.wrapping_add(2800), &[]);
    let again = guest.one();
    assert_eq!(
        (again.seq, again.data),
        (first.wrapping_add(2800), pattern(2800, 1400))
    );
    guest.say_at(ACK, guest.seq, first.wrapping_add(5600), &[]);
    guest.nothing();
    assert_eq!(guest.network.stats().tcp_retransmitted, 2);
}

#[test]
fn a_guest_that_never_answers_is_given_up() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(b"data");
    assert_eq!(guest.one().data, b"data");
    let started = guest.now;
    let mut tries = 0;
    while guest.flows() == 1 {
        let timeout = guest.network.timeout(guest.now).unwrap();
        guest.wait(timeout.max(millis(1)));
        tries += guest.all().len();
    }
    assert!(
        guest.now - started >= Duration::from_secs(100),
        "{:?}",
        guest.now - started
    );
    assert_eq!((tries, peer.kind(), guest.host.resets()), (10, None, 1));
    assert_eq!(guest.network.stats().tcp_timed_out, 1);
}

#[test]
fn a_closed_window_is_asked_about_for_as_long_as_the_guest_answers() {
    let (mut guest, peer) = Guest::connected(open());
    guest.window = 0;
    guest.say(ACK, &[]);
    peer.give(&pattern(0, 1000));
    guest.nothing();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let timeout = guest.network.timeout(guest.now).unwrap();
        guest.wait(timeout);
        let asked = guest.all();
        if let [probe] = &asked[..] {
            assert_eq!(
                (probe.seq, probe.data.len()),
                (guest.ack.wrapping_sub(1), 0)
            );
            waits.push(timeout);
            guest.say(ACK, &[]);
        }
        guest.nothing();
    }
    // By and by less often.
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(
        *waits.last().unwrap() >= Duration::from_secs(20),
        "{waits:?}"
    );
    guest.window = 1000;
    guest.say(ACK, &[]);
    assert_eq!(guest.one().data, pattern(0, 1000));
}

#[test]
fn a_window_that_closes_when_it_was_to_be_used_is_asked_about_later() {
    let (mut guest, peer) = Guest::connected(open());
    guest.window = 1;
    guest.say(ACK, &[]);
    peer.give(&pattern(0, 5000));
    guest.nothing();
    // It is time to use what little there is; then it is gone.
    guest.wait(guest.network.timeout(guest.now).unwrap());
    guest.window = 0;
    guest.say(ACK, &[]);
    guest.nothing();
    assert!(!guest.network.has_frame(), "it has a turn without end");
    guest.wait(guest.network.timeout(guest.now).unwrap());
    assert_eq!(guest.one().data, b"", "it is asked about");
}

#[test]
fn a_small_window_is_used_after_a_while() {
    let (mut guest, peer) = Guest::connected(open());
    guest.window = 1;
    guest.say(ACK, &[]);
    peer.give(&pattern(0, 5000));
    guest.nothing();
    guest.wait(millis(200));
    let seen = guest.all();
    assert_eq!(
        seen.iter().map(|seen| seen.data.len()).collect::<Vec<_>>(),
        [128]
    );
}

#[test]
fn both_ends_close_in_any_order() {
    // The guest first.
    let (mut guest, peer) = Guest::connected(open());
    guest.say(FIN | ACK, b"bye");
    guest.acknowledges(guest.seq.wrapping_add(4));
    assert!(peer.is_shut());
    guest.seq = guest.seq.wrapping_add(4);
    peer.give(b"and you");
    peer.end();
    let last = guest.one();
    assert_eq!((last.flags, &last.data[..]), (FIN | ACK, &b"and you"[..]));
    guest.say_at(ACK, guest.seq, last.seq.wrapping_add(8), &[]);
    guest.nothing();
    assert_eq!((guest.flows(), guest.host.resets()), (0, 0));
    assert_eq!(peer.take(), b"bye");

    // The host first: the guest's last acknowledgement is remembered for a while.
    let (mut guest, peer) = Guest::connected(open());
    peer.end();
    assert_eq!(guest.one().flags, FIN | ACK);
    guest.ack = guest.ack.wrapping_add(1);
    guest.say(ACK, &[]);
    guest.say(ACK, b"still");
    guest.seq = guest.seq.wrapping_add(5);
    guest.acknowledges(guest.seq);
    assert_eq!(peer.take(), b"still");
    guest.say(FIN | ACK, &[]);
    guest.acknowledges(guest.seq.wrapping_add(1));
    guest.say(FIN | ACK, &[]);
    guest.acknowledges(guest.seq.wrapping_add(1));
    guest.wait(millis(300));
    assert_eq!((guest.flows(), guest.host.resets()), (0, 0));

    // Both at once.
    let (mut guest, peer) = Guest::connected(open());
    peer.end();
    assert_eq!(guest.one().flags, FIN | ACK);
    guest.say(FIN | ACK, &[]);
    guest.acknowledges(guest.seq.wrapping_add(1));
    guest.seq = guest.seq.wrapping_add(1);
    guest.ack = guest.ack.wrapping_add(1);
    guest.say(ACK, &[]);
    assert_eq!((guest.flows(), guest.host.resets()), (0, 0));
}

#[test]
fn the_ports_of_a_connection_that_has_ended_can_be_used_again() {
    let (mut guest, peer) = Guest::connected(open());
    peer.end();
    guest.one();
    guest.ack = guest.ack.wrapping_add(1);
    guest.say(FIN | ACK, &[]);
    guest.acknowledges(guest.seq.wrapping_add(1));
    // One with an older number is not believed.
    guest.say_at(SYN, ISS, 0, &[]);
    guest.acknowledges(guest.seq.wrapping_add(1));
    guest.seq = guest.seq.wrapping_add(1000);
    guest.connect();
    assert_eq!(guest.flows(), 1);
}

#[test]
fn a_fin_that_is_lost_is_sent_again() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(b"last");
    peer.end();
    let last = guest.one();
    assert_eq!((last.flags, last.data.len()), (FIN | ACK, 4));
    guest.say_at(ACK, guest.seq, guest.ack.wrapping_add(4), &[]);
    guest.wait(millis(200));
    let again = guest.one();
    assert_eq!(
        (again.flags, again.seq, again.data.len()),
        (FIN | ACK, guest.ack.wrapping_add(4), 0)
    );
}

#[test]
fn what_came_before_the_host_broke_is_delivered_and_then_the_reset() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(&pattern(0, 2000));
    peer.fail(ErrorKind::ConnectionReset);
    let seen = guest.all();
    let data: Vec<u8> = seen.iter().flat_map(|seen| seen.data.clone()).collect();
    assert_eq!(data, pattern(0, 2000));
    let reset = seen.last().unwrap();
    assert_eq!(
        (reset.flags, reset.seq),
        (RST | ACK, guest.ack.wrapping_add(2000))
    );
    assert_eq!(guest.flows(), 0);

    // It breaks while the guest sends.
    let (mut guest, peer) = Guest::connected(open());
    peer.give(b"answer");
    peer.fail(ErrorKind::BrokenPipe);
    guest.say(ACK, b"request");
    let seen = guest.all();
    assert!(seen.iter().any(|seen| seen.data == b"answer"));
    assert_eq!(seen.last().unwrap().flags, RST | ACK);
    // Whoever resets in the meantime needs no reset.
    let (mut guest, peer) = Guest::connected(open());
    peer.fail(ErrorKind::ConnectionReset);
    guest.room = 10;
    guest.nothing();
    guest.say(RST, &[]);
    assert_eq!(guest.flows(), 0);
}

#[test]
fn a_guest_that_takes_nothing_keeps_a_broken_connection_for_a_minute() {
    let (mut guest, peer) = Guest::connected(open());
    peer.fail(ErrorKind::ConnectionReset);
    guest.room = 10;
    guest.nothing();
    guest.wait(Duration::from_secs(61));
    assert_eq!(guest.flows(), 0);
}

#[test]
fn an_idle_guest_is_asked_whether_it_is_there() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(b"x");
    guest.one();
    guest.ack = guest.ack.wrapping_add(1);
    guest.say(ACK, &[]);
    // At first what is not used is given back.
    guest.wait(Duration::from_secs(11));
    guest.nothing();
    guest.wait(Duration::from_secs(2 * 60 * 60));
    let asked = guest.one();
    assert_eq!(
        (asked.flags, asked.seq, asked.data.len()),
        (ACK, guest.ack.wrapping_sub(1), 0)
    );
    guest.say(ACK, &[]);
    guest.wait(Duration::from_secs(60 * 60));
    guest.nothing();
    // It has gone.
    let mut asked = 0;
    while guest.flows() == 1 {
        let timeout = guest.network.timeout(guest.now).unwrap();
        guest.wait(timeout.max(millis(1)));
        asked += guest.all().len();
    }
    assert_eq!(
        (asked, peer.kind(), guest.network.stats().tcp_timed_out),
        (10, None, 1)
    );
}

#[test]
fn buffers_are_bounded_and_given_back() {
    let mut config = open();
    config.limits.ring = 64 << 10;
    // Enough for one that may hold much, and little for another.
    config.limits.rings = 128 << 10;
    let (mut guest, first) = Guest::connected(config);
    first.give(&pattern(0, 1 << 20));
    guest.window = u16::MAX;
    guest.say(ACK, &[]);
    guest.all();
    let held = (1 << 20) - first.left();
    assert_eq!(held, 32 << 10);
    let one = (guest.seq, guest.ack);
    guest.port = 40001;
    guest.seq = ISS;
    guest.window = 1000;
    let second = guest.connect();
    second.give(&pattern(0, 1 << 20));
    guest.window = u16::MAX;
    guest.say(ACK, &[]);
    guest.all();
    let held = (1 << 20) - second.left();
    assert_eq!(held, 16 << 10);
    // A third finds nothing.
    guest.port = 40002;
    guest.seq = ISS;
    guest.say(SYN, &[]);
    assert_eq!(guest.one().flags, RST | ACK);
    assert_eq!(guest.network.stats().over_limit, 1);
    // The first ends: there is room.
    guest.port = 40000;
    (guest.seq, guest.ack) = one;
    guest.say(RST, &[]);
    guest.port = 40002;
    guest.seq = ISS;
    guest.connect();
}

#[test]
fn segments_for_the_guest_fit_into_its_buffers() {
    let (mut guest, peer) = Guest::connected(open());
    peer.give(&pattern(0, 3000));
    guest.room = 500;
    let seen = guest.all();
    assert!(seen.iter().all(|seen| seen.data.len() <= 446));
    let data: Vec<u8> = seen.into_iter().flat_map(|seen| seen.data).collect();
    assert_eq!(data, pattern(0, 3000));
    // Where nothing fits, nothing is lost.
    guest.say_at(ACK, guest.seq, guest.ack.wrapping_add(3000), &[]);
    peer.give(b"more");
    guest.room = 50;
    guest.nothing();
    guest.room = 1514;
    assert_eq!(guest.one().data, b"more");
}

#[test]
fn large_segments_are_as_large_as_ip_allows() {
    let (mut guest, peer) = Guest::connected(open());
    guest.offload = RxOffload {
        checksum: true,
        tso4: true,
        tso6: false,
    };
    guest.window = u16::MAX;
    guest.say(ACK, &[]);
    let mut given = 0;
    let mut largest = 0;
    for _ in 0..50 {
        peer.give(&pattern(given, 100_000));
        given += 100_000;
        for seen in guest.all() {
            assert!(seen.data.len() + 40 <= 65535);
            largest = largest.max(seen.data.len());
            guest.ack = seen
                .seq
                .wrapping_add(u32::try_from(seen.data.len()).unwrap());
        }
        guest.say(ACK, &[]);
    }
    assert!(largest > 60_000, "{largest}");
}

#[test]
fn a_wrong_checksum_is_not_believed_whatever_the_segment_is() {
    let (mut guest, peer) = Guest::connected(open());
    for (seq, data) in [
        (guest.seq, &b"next"[..]),
        (guest.seq.wrapping_add(3), b"later"),
        (guest.seq, b""),
    ] {
        let repr = TcpRepr {
            src_port: guest.port,
            dst_port: 80,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(seq.cast_signed()),
            ack_number: Some(TcpSeqNumber(guest.ack.cast_signed())),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: data,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut bytes),
            &IpAddress::from(IpAddr::from(ADDRESS)),
            &IpAddress::from(IpAddr::from(REMOTE)),
            &ChecksumCapabilities::default(),
        );
        bytes[16] ^= 1;
        let frame = packet(ADDRESS.into(), REMOTE.into(), 6, &bytes);
        raw::send(&mut guest.network, &frame);
        guest.nothing();
    }
    assert_eq!(guest.network.stats().bad_checksum, 3);
    assert!(peer.take().is_empty());
    // A card that completes checksums has it right in the end.
    guest.say(ACK, b"right");
    assert_eq!(peer.take(), b"right");
}

#[test]
fn a_frame_that_ends_before_its_data_is_not_taken() {
    let (mut guest, peer) = Guest::connected(open());
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&guest.port.to_be_bytes());
    header[2..4].copy_from_slice(&80_u16.to_be_bytes());
    header[4..8].copy_from_slice(&guest.seq.to_be_bytes());
    header[8..12].copy_from_slice(&guest.ack.to_be_bytes());
    header[12..14].copy_from_slice(&[0x50, ACK]);
    header.extend(pattern(0, 1000));
    let frame = packet(ADDRESS.into(), REMOTE.into(), 6, &header);
    guest.network.send(
        frame.len(),
        &mut &frame[..600],
        TxOffload { checksum: true },
    );
    assert_eq!(guest.network.stats().malformed, 1);
    guest.network.flush();
    assert!(peer.take().is_empty());
}

#[test]
fn a_connection_from_outside_waits_for_the_guest() {
    let config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    guest.remote = (GATEWAY, 5555).into();
    guest.port = 80;
    let listener = guest.host.peers().pop().unwrap();
    listener.come(&[], "192.0.2.1:5555".parse().unwrap());
    guest.network.process(guest.now);
    let peer = guest.host.peers().pop().unwrap();
    // Where the guest is, is not known: it is asked.
    let mut frame = Vec::new();
    guest
        .network
        .receive(65550, RxOffload::default(), &mut frame)
        .unwrap();
    assert_eq!(
        (&frame[12..14], &frame[38..42]),
        (&[8, 6][..], &ADDRESS.octets()[..])
    );
    guest.nothing();
    guest.wait(millis(50));
    guest
        .network
        .receive(65550, RxOffload::default(), &mut frame)
        .unwrap();
    // It is there, but does not know its address yet: it drops what it gets.
    raw::send(
        &mut guest.network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
    let syn = guest.one();
    assert_eq!((syn.flags, syn.options.len()), (SYN, 8));
    let mut again = 0;
    while guest.now < Duration::from_secs(5) {
        guest.wait(millis(10));
        again += guest.all().len();
    }
    assert!((6..20).contains(&again), "{again}");
    // What is no answer is reset; what is one is taken.
    guest.say_at(ACK, 7, syn.seq, &[]);
    assert_eq!(guest.one().flags, RST);
    guest.say_at(RST | ACK, 7, syn.seq, &[]);
    guest.say_at(ACK, 7, syn.seq.wrapping_add(1), &[]);
    guest.nothing();
    guest.say_at(SYN | ACK, ISS, syn.seq.wrapping_add(1), &[]);
    guest.acknowledges(ISS + 1);
    guest.seq = ISS + 1;
    guest.ack = syn.seq.wrapping_add(1);
    guest.say(ACK, b"hello");
    assert_eq!(peer.take(), b"hello");
}

#[test]
fn connections_that_are_opened_by_both_at_once_are_one() {
    let config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    guest.remote = (GATEWAY, 5555).into();
    guest.port = 80;
    raw::send(
        &mut guest.network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
    guest.host.peers()[0].come(&[], "192.0.2.1:5555".parse().unwrap());
    let syn = guest.one();
    let peer = guest.host.peers().pop().unwrap();
    guest.say(SYN, &[]);
    let answer = guest.one();
    assert_eq!(
        (answer.flags, answer.seq, answer.ack),
        (SYN | ACK, syn.seq, ISS + 1)
    );
    guest.seq = ISS + 1;
    guest.ack = syn.seq.wrapping_add(1);
    guest.say(ACK, b"hello");
    assert_eq!(peer.take(), b"hello");
}

#[test]
fn a_guest_that_refuses_or_never_answers_closes_the_clients_connection() {
    let config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    guest.remote = (GATEWAY, 5555).into();
    guest.port = 80;
    raw::send(
        &mut guest.network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
    let listener = guest.host.peers().pop().unwrap();
    listener.come(&[], "192.0.2.1:5555".parse().unwrap());
    let syn = guest.one();
    guest.say_at(RST | ACK, 0, syn.seq.wrapping_add(1), &[]);
    assert_eq!((guest.flows(), guest.host.resets()), (0, 1));
    listener.come(&[], "192.0.2.1:5555".parse().unwrap());
    guest.one();
    guest.wait(Duration::from_secs(30));
    assert_eq!((guest.flows(), guest.host.resets()), (0, 2));
    assert_eq!(guest.network.stats().tcp_timed_out, 1);
}

#[test]
fn clients_wait_at_the_host_while_there_is_no_room_for_them() {
    let mut config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    config.limits.tcp_flows = 1;
    let mut guest = Guest::new(config);
    guest.remote = (GATEWAY, 5555).into();
    guest.port = 80;
    raw::send(
        &mut guest.network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
    let listener = guest.host.peers().pop().unwrap();
    for _ in 0..2 {
        listener.come(&[], "192.0.2.1:5555".parse().unwrap());
    }
    let syn = guest.one();
    assert_eq!(guest.flows(), 1);
    guest.say_at(RST | ACK, 0, syn.seq.wrapping_add(1), &[]);
    assert_eq!(guest.network.timeout(guest.now), Some(Duration::ZERO));
    assert_eq!(guest.one().flags, SYN);
    // The host may have no descriptor left: it is asked again later.
    let mut guest2 = guest;
    guest2.say_at(RST | ACK, 0, 0, &[]);
    guest2.wait(Duration::from_secs(30));
    assert_eq!(guest2.flows(), 0);
    guest2.host.refuse(ErrorKind::Other);
    listener.come(&[], "192.0.2.1:5555".parse().unwrap());
    guest2.wait(millis(1));
    assert_eq!(guest2.network.stats().host_errors, 1);
    listener.come(&[], "192.0.2.1:5556".parse().unwrap());
    guest2.wait(millis(1));
    assert_eq!(
        (guest2.flows(), guest2.network.timeout(guest2.now)),
        (0, Some(millis(999)))
    );
    guest2.wait(millis(999));
    assert_eq!(guest2.flows(), 1);
}

#[test]
fn what_a_guest_loses_that_was_slow_to_start_is_sent_again_at_once() {
    let config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    let mut guest = Guest::new(config);
    guest.remote = (GATEWAY, 5555).into();
    guest.port = 80;
    raw::send(
        &mut guest.network,
        &packet(ADDRESS.into(), GATEWAY.into(), 17, &[0; 3]),
    );
    guest.host.peers()[0].come(&[], "192.0.2.1:5555".parse().unwrap());
    let syn = guest.one();
    let peer = guest.host.peers().pop().unwrap();
    while guest.now < Duration::from_secs(10) {
        guest.wait(millis(100));
        guest.all();
    }
    guest.say_at(SYN | ACK, ISS, syn.seq.wrapping_add(1), &[]);
    guest.acknowledges(ISS + 1);
    peer.give(b"hello");
    assert_eq!(guest.one().data, b"hello");
    guest.wait(millis(200));
    assert_eq!(guest.one().data, b"hello");
}

#[test]
fn a_fin_is_taken_when_the_window_is_full_and_opens_no_other() {
    for with_data in [false, true] {
        let mut config = open();
        config.limits.ring = 16 << 10;
        let (mut guest, peer) = Guest::connected(config);
        peer.set_room(0);
        let all = pattern(0, 16 << 10);
        let mut pieces = all.chunks(1024).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let fin = if with_data && last { FIN } else { 0 };
            guest.say(ACK | fin, piece);
            guest.seq = guest.seq.wrapping_add(1024 + u32::from(fin));
            guest.acknowledges(guest.seq);
        }
        if !with_data {
            guest.say(FIN | ACK, &[]);
            guest.seq = guest.seq.wrapping_add(1);
            guest.acknowledges(guest.seq);
        }
        // Asked again, it says that there is no room: there is nothing more to come.
        guest.say_at(ACK, guest.seq.wrapping_sub(1), guest.ack, &[]);
        assert_eq!(guest.acknowledges(guest.seq).window, 0);
        peer.set_room(usize::MAX);
        guest.all();
        assert!(peer.take() == all && peer.is_shut());
    }
}

#[test]
fn clients_that_come_faster_than_they_are_refused_do_not_keep_the_network() {
    let mut config = NetworkConfig {
        forwards: vec!["tcp:8080:80".parse().unwrap()],
        ..open()
    };
    // Not enough for one.
    config.limits.rings = 32 << 10;
    let mut guest = Guest::new(config);
    let listener = guest.host.peers().pop().unwrap();
    for port in 1..=1000 {
        listener.come(&[], (REMOTE, port).into());
    }
    let mut seen = 0;
    let mut calls = 0;
    while seen < 1000 {
        guest.network.process(guest.now);
        let stats = guest.network.stats();
        let before = std::mem::replace(&mut seen, stats.tcp_accepted + stats.over_limit);
        assert!((1..=256).contains(&(seen - before)), "{}", seen - before);
        let at_once = guest.network.timeout(guest.now) == Some(Duration::ZERO);
        assert_eq!(at_once, seen < 1000);
        calls += 1;
    }
    assert!(calls >= 4);
}

#[test]
fn a_guest_that_is_always_asked_whether_it_is_there_is_not_asked_without_end() {
    let mut config = open();
    config.limits.tcp_idle = Duration::ZERO;
    let mut guest = Guest::new(config);
    guest.say(SYN, &[]);
    guest.host.peers()[0].connect();
    let answer = guest.one();
    guest.seq = guest.seq.wrapping_add(1);
    guest.ack = answer.seq.wrapping_add(1);
    guest.say(ACK, &[]);
    guest.wait(millis(1));
    assert_eq!(guest.all().len(), 1);
    assert_eq!(
        guest.network.timeout(guest.now),
        Some(Duration::from_secs(1))
    );
}
