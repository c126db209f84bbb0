#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::fake::{Fake, Manner};
use super::*;
use spec::{EVENT, RECEIVE, TRANSMIT, TYPE_STREAM};

const CID: u64 = 42;
const PEER: Address = Address {
    cid: HOST_CID,
    port: 1000,
};
const HERE: Address = Address { cid: CID, port: 7 };

type Packet = (Header, Vec<u8>);

/// The other side of the device.
#[derive(Clone, Default)]
struct Host {
    /// What each queue to the driver gets next.
    given: [Rc<RefCell<VecDeque<Vec<u8>>>>; 3],
    sent: Rc<RefCell<Vec<Packet>>>,
}

impl Host {
    fn give(&self, vsock: &mut Vsock<Fake>, queue: u16, bytes: Vec<u8>) {
        self.given[usize::from(queue)].borrow_mut().push_back(bytes);
        let device = vsock.transport.registers();
        device.budget[usize::from(queue)] += 1;
        device.work();
    }

    fn send(&self, vsock: &mut Vsock<Fake>, header: Header, payload: &[u8]) {
        let bytes = [&header.to_bytes()[..], payload].concat();
        self.give(vsock, RECEIVE, bytes);
    }

    /// What was sent since the last time.
    fn take(&self, vsock: &mut Vsock<Fake>) -> Vec<Packet> {
        vsock.flush().unwrap();
        core::mem::take(&mut self.sent.borrow_mut())
    }

    /// The kinds of the packets that were sent since the last time.
    fn ops(&self, vsock: &mut Vsock<Fake>) -> Vec<u16> {
        self.take(vsock)
            .iter()
            .map(|(header, _)| header.op)
            .collect()
    }
}

fn packet(op: u16) -> Header {
    Header {
        from: PEER,
        to: HERE,
        len: 0,
        kind: TYPE_STREAM,
        op,
        flags: 0,
        buf_alloc: 1 << 20,
        fwd_cnt: 0,
    }
}

fn data(payload: &[u8]) -> Header {
    Header {
        len: payload.len() as u32,
        ..packet(op::RW)
    }
}

fn fake() -> (Fake, Host) {
    let host = Host::default();
    let device = host.clone();
    let mut fake = Fake::new(id::SOCKET, move |mut request| {
        if request.queue == TRANSMIT {
            let bytes = request.readable.concat();
            let (header, payload) = bytes.split_first_chunk().unwrap();
            let header = Header::from_bytes(header);
            assert_eq!(header.len as usize, payload.len());
            device.sent.borrow_mut().push((header, payload.to_vec()));
            return 0;
        }
        let given = &device.given[usize::from(request.queue)];
        let bytes = given.borrow_mut().pop_front().unwrap();
        request.writable[0][..bytes.len()].copy_from_slice(&bytes);
        bytes.len() as u32
    });
    fake.offered |= spec::F_STREAM;
    fake.config = CID.to_le_bytes().to_vec();
    fake.budget[usize::from(RECEIVE)] = 0;
    fake.budget[usize::from(EVENT)] = 0;
    (fake, host)
}

const LIMITS: Limits = Limits {
    streams: 8,
    buffer: 10_000,
};

fn vsock() -> (Vsock<Fake>, Host) {
    let (fake, host) = fake();
    let mut vsock = Vsock::with_registers(fake, LIMITS).unwrap();
    assert_eq!(vsock.cid(), CID);
    vsock.listen(HERE.port);
    (vsock, host)
}

/// A stream that a peer has opened.
fn accepted() -> (Vsock<Fake>, Host, StreamId) {
    let (mut vsock, host) = vsock();
    let stream = accept(&mut vsock, &host, PEER);
    (vsock, host, stream)
}

fn accept(vsock: &mut Vsock<Fake>, host: &Host, from: Address) -> StreamId {
    let request = Header {
        from,
        ..packet(op::REQUEST)
    };
    host.send(vsock, request, &[]);
    let Some(Event::Accepted { stream, port, peer }) = vsock.poll().unwrap() else {
        panic!("it is not accepted");
    };
    assert_eq!((port, peer), (HERE.port, from));
    let sent = host.take(vsock);
    let expected = Header {
        from: HERE,
        to: from,
        buf_alloc: LIMITS.buffer,
        ..packet(op::RESPONSE)
    };
    assert_eq!(sent.last(), Some(&(expected, vec![])));
    stream
}

fn read(vsock: &mut Vsock<Fake>, stream: StreamId) -> Vec<u8> {
    let mut bytes = vec![0; 20_000];
    let len = vsock.read(stream, &mut bytes);
    bytes.truncate(len);
    bytes
}

#[test]
fn a_peer_opens_a_stream_both_write_and_both_say_that_they_are_done() {
    let (mut vsock, host, stream) = accepted();
    host.send(&mut vsock, data(b"hello"), b"hello");
    host.send(&mut vsock, data(b" you"), b" you");
    assert_eq!(vsock.poll(), Ok(Some(Event::Readable(stream))));
    assert_eq!(vsock.received(stream), b"hello");
    assert_eq!(vsock.poll(), Ok(Some(Event::Readable(stream))));
    assert_eq!(read(&mut vsock, stream), b"hello you");
    assert_eq!((vsock.poll(), vsock.is_finished(stream)), (Ok(None), false));
    assert_eq!(vsock.write(stream, b"and you"), Ok(7));
    let sent = host.take(&mut vsock);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0.op, sent[0].0.fwd_cnt), (op::RW, 9));
    assert_eq!(sent[0].1, b"and you");
    // The peer is done first, and we are later.
    let end = Header {
        flags: shutdown::SEND,
        ..packet(op::SHUTDOWN)
    };
    host.send(&mut vsock, end, &[]);
    assert_eq!(vsock.poll(), Ok(Some(Event::Readable(stream))));
    assert!(vsock.is_finished(stream));
    assert_eq!(vsock.write(stream, b"bye"), Ok(3));
    assert_eq!(vsock.shut_down(stream), Ok(()));
    assert_eq!(vsock.shut_down(stream), Ok(()), "once is enough");
    assert_eq!(vsock.write(stream, b"more"), Err(Error::Ended));
    vsock.close(stream);
    vsock.close(stream);
    let sent = host.take(&mut vsock);
    let said: Vec<_> = sent
        .iter()
        .map(|(header, _)| (header.op, header.flags))
        .collect();
    let (send, both) = (shutdown::SEND, shutdown::BOTH);
    assert_eq!(
        said,
        [(op::RW, 0), (op::SHUTDOWN, send), (op::SHUTDOWN, both)]
    );
    assert_eq!(vsock.write(stream, b"more"), Err(Error::Ended));
    host.send(&mut vsock, packet(op::RST), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    assert_eq!(vsock.write(stream, b"more"), Err(Error::NoStream));
    assert!(host.ops(&mut vsock).is_empty());
}

#[test]
fn a_peer_that_closes_is_answered_and_what_it_sent_can_still_be_read() {
    let (mut vsock, host, stream) = accepted();
    host.send(&mut vsock, data(b"last"), b"last");
    let end = Header {
        flags: shutdown::BOTH,
        ..packet(op::SHUTDOWN)
    };
    host.send(&mut vsock, end, &[]);
    assert_eq!(vsock.poll(), Ok(Some(Event::Readable(stream))));
    assert_eq!(vsock.poll(), Ok(Some(Event::Closed(stream))));
    assert_eq!(host.ops(&mut vsock), [op::RST]);
    assert!(!vsock.is_finished(stream));
    assert_eq!(vsock.write(stream, b"x"), Err(Error::Ended));
    assert_eq!(read(&mut vsock, stream), b"last");
    assert!(vsock.is_finished(stream) && !vsock.is_reset(stream));
    vsock.close(stream);
    assert!(
        host.ops(&mut vsock).is_empty(),
        "there is nothing more to say"
    );
}

#[test]
fn a_stream_is_opened_to_a_peer_that_accepts_or_refuses() {
    let (mut vsock, host) = vsock();
    for (op, expected) in [(op::RESPONSE, true), (op::RST, false)] {
        let stream = vsock.connect(PEER).unwrap();
        assert_eq!(vsock.write(stream, b"early"), Ok(0));
        let sent = host.take(&mut vsock);
        let [(request, _)] = sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!((request.op, request.to), (op::REQUEST, PEER));
        let answer = Header {
            to: request.from,
            ..packet(op)
        };
        host.send(&mut vsock, answer, &[]);
        let event = vsock.poll().unwrap().unwrap();
        if expected {
            assert_eq!(event, Event::Connected(stream));
            assert_eq!(vsock.poll(), Ok(Some(Event::Writable(stream))));
            assert_eq!(vsock.write(stream, b"hello"), Ok(5));
            assert_eq!(host.ops(&mut vsock), [op::RW]);
        } else {
            assert_eq!(event, Event::Closed(stream));
            assert!(vsock.is_reset(stream) && vsock.is_finished(stream));
        }
        vsock.close(stream);
        host.take(&mut vsock);
    }
    // One that was given up before the answer.
    let stream = vsock.connect(PEER).unwrap();
    vsock.close(stream);
    let sent = host.ops(&mut vsock);
    assert_eq!(sent[sent.len() - 2..], [op::REQUEST, op::RST]);
}

#[test]
fn what_no_stream_is_for_is_refused_and_a_reset_is_not_answered() {
    let (mut vsock, host) = vsock();
    vsock.unlisten(HERE.port);
    let unknown = Header {
        kind: 2,
        ..packet(op::REQUEST)
    };
    let all = [
        op::REQUEST,
        op::RESPONSE,
        op::SHUTDOWN,
        op::RW,
        op::CREDIT_UPDATE,
        0,
        99,
    ];
    let packets = all.into_iter().map(packet).chain([unknown]);
    for given in packets {
        host.send(&mut vsock, given, &[]);
        assert_eq!(vsock.poll(), Ok(None));
        let sent = host.take(&mut vsock);
        assert_eq!(sent, [(given.refusal(), vec![])], "{given:?}");
        assert_eq!((sent[0].0.from, sent[0].0.to), (HERE, PEER));
    }
    host.send(&mut vsock, packet(op::RST), &[]);
    let elsewhere = Header {
        to: Address { cid: 43, port: 7 },
        ..packet(op::REQUEST)
    };
    host.send(&mut vsock, elsewhere, &[]);
    assert_eq!(vsock.poll(), Ok(None));
    assert!(host.ops(&mut vsock).is_empty());
    assert_eq!(vsock.dropped(), 1);
}

#[test]
fn a_peer_that_makes_no_sense_has_its_stream_reset_and_no_other() {
    let lies: [(&str, Header, usize); 8] = [
        (
            "taken what was not sent",
            Header {
                fwd_cnt: 1,
                ..packet(op::CREDIT_UPDATE)
            },
            0,
        ),
        (
            "taken less than before",
            Header {
                fwd_cnt: u32::MAX,
                ..data(&[0])
            },
            1,
        ),
        ("no such operation", packet(77), 0),
        ("opened twice", packet(op::REQUEST), 0),
        ("answered what was not asked", packet(op::RESPONSE), 0),
        ("no such operation, 0", packet(0), 0),
        ("more than there is credit for", data(&[0; 4000]), 4000),
        ("bytes after the end", data(&[0; 10]), 10),
    ];
    for (what, lie, len) in lies {
        let (mut vsock, host, stream) = accepted();
        let other = accept(&mut vsock, &host, Address { port: 1, ..PEER });
        match len {
            4000 => {
                for _ in 0..2 {
                    host.send(&mut vsock, data(&[0; 4000]), &[0; 4000]);
                }
            }
            10 => {
                let flags = shutdown::SEND;
                host.send(
                    &mut vsock,
                    Header {
                        flags,
                        ..packet(op::SHUTDOWN)
                    },
                    &[],
                );
            }
            _ => {}
        }
        while vsock.poll().unwrap().is_some() {}
        assert!(host.ops(&mut vsock).is_empty(), "{what}");
        host.send(&mut vsock, lie, &vec![0; len]);
        assert_eq!(vsock.poll(), Ok(Some(Event::Closed(stream))), "{what}");
        assert_eq!(host.take(&mut vsock), [(lie.refusal(), vec![])], "{what}");
        assert!(vsock.is_reset(stream));
        // Whatever it sends later is refused as if it were unknown, and the program hears nothing of it.
        host.send(&mut vsock, data(b"x"), b"x");
        assert_eq!(vsock.poll(), Ok(None));
        assert_eq!(host.ops(&mut vsock), [op::RST]);
        assert_eq!(vsock.write(other, b"fine"), Ok(4));
        vsock.close(stream);
        accept(&mut vsock, &host, PEER);
    }
}

#[test]
fn a_device_that_gives_no_whole_packet_is_shut_down() {
    let short = packet(op::RW).to_bytes()[..43].to_vec();
    let huge = Header {
        len: u32::MAX,
        ..packet(op::RW)
    };
    let truncated = [&data(b"12").to_bytes()[..], b"1"].concat();
    for (bytes, limit) in [
        (vec![], 44),
        (short, 44),
        (truncated, 46),
        (huge.to_bytes().to_vec(), u32::MAX),
    ] {
        let (mut vsock, host, stream) = accepted();
        let len = bytes.len() as u32;
        host.give(&mut vsock, RECEIVE, bytes);
        assert_eq!(vsock.poll(), Err(Error::Short { len, limit }));
        assert!(!vsock.transport.registers().is_running());
        assert_eq!(vsock.poll(), Err(Error::Broken));
        assert_eq!(vsock.wait(None), Err(Error::Broken));
        assert_eq!(vsock.write(stream, b"x"), Err(Error::Broken));
        assert_eq!(vsock.connect(PEER), Err(Error::Broken));
        vsock.close(stream);
    }
    let cases = [Manner::TooLong, Manner::Runaway, Manner::Forgets];
    for manner in cases {
        let (mut vsock, host, _) = accepted();
        vsock.transport.registers().manner = manner;
        host.send(&mut vsock, data(b"x"), b"x");
        let found = loop {
            match vsock.wait(None) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_ne!(found, Error::Broken);
        assert_eq!(vsock.poll(), Err(Error::Broken), "{manner:?}");
    }
}

#[test]
fn no_more_is_sent_than_the_peer_has_room_for() {
    let (mut vsock, host, stream) = accepted();
    let credit = |buf_alloc, fwd_cnt| Header {
        buf_alloc,
        fwd_cnt,
        ..packet(op::CREDIT_UPDATE)
    };
    host.send(&mut vsock, credit(10, 0), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    assert_eq!(vsock.write(stream, b"123456789abcd"), Ok(10));
    assert_eq!(vsock.write(stream, b"x"), Ok(0));
    assert_eq!(vsock.write(stream, b"x"), Ok(0));
    let asked = [op::RW, op::CREDIT_REQUEST];
    assert_eq!(host.ops(&mut vsock), asked, "it is asked once");
    // Less room than is on its way: that is no room, and no lie.
    host.send(&mut vsock, credit(3, 5), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    host.send(&mut vsock, credit(10, 6), &[]);
    assert_eq!(vsock.poll(), Ok(Some(Event::Writable(stream))));
    assert_eq!(vsock.write(stream, b"123456789abcd"), Ok(6));
    // The counters wrap around.
    host.take(&mut vsock);
    host.send(&mut vsock, credit(1 << 20, 16), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    let mut total = 16_u32;
    let chunk = vec![0; 1 << 19];
    for _ in 0..0x2004 {
        assert_eq!(vsock.write(stream, &chunk), Ok(1 << 19));
        total = total.wrapping_add(1 << 19);
        let last = host.take(&mut vsock).pop().unwrap();
        assert_eq!(last.0.len as usize, last.1.len());
        host.send(&mut vsock, credit(1 << 20, total), &[]);
        assert_eq!(vsock.poll(), Ok(None));
    }
}

#[test]
fn a_peer_hears_of_what_was_read_before_its_credit_is_used_up() {
    let (mut vsock, host, stream) = accepted();
    let mut told = 0;
    let (mut sent, mut updates) = (0_u32, 0);
    for round in 0..2000 {
        // As much as the credit allows, up to 1,000 bytes.
        let len = (LIMITS.buffer - (sent - told)).min(1000);
        assert!(len > 0, "nothing is lost, and the peer is never stuck");
        let bytes = vec![round as u8; len as usize];
        host.send(&mut vsock, data(&bytes), &bytes);
        sent += len;
        assert_eq!(vsock.poll(), Ok(Some(Event::Readable(stream))));
        assert_eq!(read(&mut vsock, stream), bytes);
        for (header, _) in host.take(&mut vsock) {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            told = header.fwd_cnt;
            updates += 1;
        }
    }
    assert!(updates < 1000, "not for every packet: {updates}");
    host.send(&mut vsock, packet(op::CREDIT_REQUEST), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    let answer = host.take(&mut vsock);
    assert_eq!(
        (answer[0].0.op, answer[0].0.fwd_cnt),
        (op::CREDIT_UPDATE, sent)
    );
}

#[test]
fn streams_are_bounded_and_one_that_is_closing_makes_place() {
    let (mut vsock, host) = vsock();
    let peer = |port| Address { port, ..PEER };
    let streams: Vec<_> = (0..8).map(|n| accept(&mut vsock, &host, peer(n))).collect();
    let request = |n| Header {
        from: peer(n),
        ..packet(op::REQUEST)
    };
    host.send(&mut vsock, request(8), &[]);
    assert_eq!(
        (vsock.poll(), vsock.connect(PEER)),
        (Ok(None), Err(Error::Full))
    );
    assert_eq!(host.ops(&mut vsock), [op::RST]);
    // The peer of a closed stream does not confirm it.
    vsock.close(streams[3]);
    vsock.close(streams[5]);
    assert_eq!(host.ops(&mut vsock), [op::SHUTDOWN, op::SHUTDOWN]);
    accept(&mut vsock, &host, peer(8));
    // It opens the other anew instead.
    accept(&mut vsock, &host, peer(5));
    host.send(&mut vsock, request(9), &[]);
    assert_eq!(vsock.poll(), Ok(None));
    for _ in 0..10_000 {
        vsock.close(streams[0]);
        host.send(
            &mut vsock,
            Header {
                from: peer(0),
                ..packet(op::RST)
            },
            &[],
        );
        assert_eq!(vsock.poll(), Ok(None));
        let next = accept(&mut vsock, &host, peer(0));
        assert_ne!(next, streams[0]);
        vsock.reset(next);
    }
}

#[test]
fn thousands_of_streams_are_served_at_once() {
    let (fake, host) = fake();
    let mut vsock = Vsock::with_registers(
        fake,
        Limits {
            buffer: 10_000,
            ..Limits::default()
        },
    )
    .unwrap();
    vsock.listen(7);
    let peer = |n: u32| Address { cid: 2, port: n };
    let streams: Vec<_> = (0..4096)
        .map(|n| accept(&mut vsock, &host, peer(n)))
        .collect();
    for (n, stream) in (0..).zip(&streams) {
        let payload = u32::to_le_bytes(n);
        host.send(
            &mut vsock,
            Header {
                from: peer(n),
                ..data(&payload)
            },
            &payload,
        );
        assert_eq!(vsock.poll(), Ok(Some(Event::Readable(*stream))));
    }
    for (n, stream) in (0..).zip(&streams) {
        assert_eq!(read(&mut vsock, *stream), u32::to_le_bytes(n));
        vsock.write(*stream, &u32::to_le_bytes(!n)).unwrap();
    }
    let sent = host.take(&mut vsock);
    assert_eq!(sent.len(), 4096);
    for (n, (header, payload)) in (0..).zip(sent) {
        assert_eq!(
            (header.to, payload),
            (peer(n), u32::to_le_bytes(!n).to_vec())
        );
    }
}

#[test]
fn without_room_to_send_nothing_is_received_and_all_goes_on_later() {
    let (mut vsock, host, stream) = accepted();
    vsock.transport.registers().budget[usize::from(TRANSMIT)] = 0;
    let written = vsock.write(stream, &vec![1; 1 << 20]).unwrap();
    assert_eq!(written, 128 * (8192 - 44));
    assert_eq!(vsock.write(stream, b"x"), Ok(0));
    // Each of these needs an answer.
    for _ in 0..100 {
        host.send(&mut vsock, packet(op::CREDIT_REQUEST), &[]);
    }
    assert_eq!(vsock.poll(), Ok(None));
    assert_eq!(vsock.shut_down(stream), Ok(()));
    assert_eq!(vsock.wait(Some(0)), Ok(None));
    vsock.transport.registers().budget[usize::from(TRANSMIT)] = u32::MAX;
    vsock.transport.registers().work();
    assert_eq!(vsock.wait(None), Ok(Some(Event::Writable(stream))));
    while vsock.poll().unwrap().is_some() {}
    let sent = host.ops(&mut vsock);
    assert_eq!(sent[..128], [op::RW; 128]);
    assert_eq!(sent[128], op::SHUTDOWN);
    assert_eq!(sent[129..], [op::CREDIT_UPDATE; 100]);
}

#[test]
fn a_machine_that_was_moved_has_no_streams_and_another_name() {
    let (mut vsock, host, stream) = accepted();
    vsock.transport.registers().config = 77_u64.to_le_bytes().to_vec();
    host.give(&mut vsock, EVENT, vec![0; 4]);
    assert_eq!(vsock.wait(None), Ok(Some(Event::Closed(stream))));
    assert_eq!(vsock.wait(None), Ok(Some(Event::Moved)));
    assert_eq!((vsock.cid(), vsock.poll()), (77, Ok(None)));
    assert!(host.ops(&mut vsock).is_empty(), "nobody is told");
    assert!(vsock.is_reset(stream));
    vsock.close(stream);
    // Ports are still listened on, under the new name.
    let to = Address { cid: 77, port: 7 };
    host.send(
        &mut vsock,
        Header {
            to,
            ..packet(op::REQUEST)
        },
        &[],
    );
    assert!(matches!(vsock.poll(), Ok(Some(Event::Accepted { .. }))));
    // An event that nobody knows.
    host.give(&mut vsock, EVENT, vec![9; 8]);
    assert_eq!(vsock.poll(), Ok(None));
    host.give(&mut vsock, EVENT, vec![0; 3]);
    assert_eq!(vsock.poll(), Err(Error::Short { len: 3, limit: 4 }));
}

proptest! {
    #[test]
    fn nothing_that_a_host_says_does_any_harm(
        packets in prop::collection::vec(
            (0..9_u16, 0..4_u32, 0..3_u32, 0..300_usize, 0..4_u32, 0..400_u32, any::<bool>(), 0..6_u8), 1..200)
    ) {
        let (mut vsock, host) = vsock();
        let mut streams = vec![vsock.connect(PEER).unwrap()];
        for (op, port, flags, len, buf_alloc, fwd_cnt, later, action) in packets {
            let header = Header {
                from: Address { port: 1000 + port, ..PEER },
                to: Address { port: if later { HERE.port } else { 49152 + flags }, ..HERE },
                op,
                flags,
                len: len as u32,
                kind: if len == 299 { 2 } else { TYPE_STREAM },
                buf_alloc: buf_alloc * 100,
                fwd_cnt,
            };
            host.send(&mut vsock, header, &vec![0; len]);
            while let Some(event) = vsock.poll().unwrap() {
                if let Event::Accepted { stream, .. } = event {
                    streams.push(stream);
                }
            }
            let stream = streams[len % streams.len()];
            match action {
                0 => { vsock.read(stream, &mut [0; 100]); }
                1 => { let _ = vsock.write(stream, &[0; 200]); }
                2 => vsock.close(stream),
                3 => vsock.reset(stream),
                4 => streams.extend(vsock.connect(header.from)),
                _ => { let _ = vsock.shut_down(stream); }
            }
            prop_assert!(vsock.streams.ids().count() <= 8);
            prop_assert!(vsock.events.len() <= 40 && vsock.owed.is_empty());
            vsock.flush().unwrap();
        }
    }
}
