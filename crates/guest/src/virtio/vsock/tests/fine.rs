//! Peers that do as they should.

use super::*;

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
    assert_eq!(vsock.poll(), Ok(Some(Event::Writable(stream))));
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
    for round in 0..2000_u32 {
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

#[test]
fn what_arrives_is_passed_on_in_order_as_far_as_there_is_room() {
    let (mut vsock, host, from) = accepted();
    let peer = Address { port: 1, ..PEER };
    let to = accept(&mut vsock, &host, peer);
    let (mut sent, mut passed, mut taken) = (Vec::new(), Vec::new(), 0);
    for round in 0..100_u32 {
        let bytes: Vec<_> = (0..700).map(|at| (round * 7 + at) as u8).collect();
        host.send(&mut vsock, data(&bytes), &bytes);
        sent.extend(bytes);
        while vsock.poll().unwrap().is_some() {}
        // The other one has room for 500 to 999 bytes.
        let credit = Header {
            from: peer,
            buf_alloc: 500 + round * 5,
            fwd_cnt: taken,
            ..packet(op::CREDIT_UPDATE)
        };
        host.send(&mut vsock, credit, &[]);
        while vsock.poll().unwrap().is_some() {}
        let count = vsock.forward(from, to).unwrap();
        assert!(count <= credit.buf_alloc as usize);
        taken += count as u32;
        for (header, payload) in host.take(&mut vsock) {
            if header.op == op::RW {
                passed.extend(payload);
            }
        }
        assert_eq!(passed.len() as u32, taken);
        assert_eq!(passed, sent[..passed.len()]);
        // So that it never has more than we can hold.
        if sent.len() - passed.len() > 8000 {
            break;
        }
    }
    assert!(passed.len() > 40_000);
    assert_eq!(read(&mut vsock, from), sent[passed.len()..]);
}

#[test]
fn no_packet_costs_an_allocation_once_a_stream_has_its_buffer() {
    let (mut vsock, host, stream) = accepted();
    let mut taken = 0;
    for round in 0..3 {
        for _ in 0..8 {
            let header = Header {
                fwd_cnt: taken,
                ..data(&[1; 1000])
            };
            host.send(&mut vsock, header, &[1; 1000]);
        }
        let counted = allocation_counter::measure(|| {
            let mut bytes = [0; 1000];
            while vsock.poll().unwrap().is_some() {
                assert_eq!(vsock.read(stream, &mut bytes), 1000);
                assert_eq!(vsock.write(stream, &bytes), Ok(1000));
            }
        });
        assert_eq!(counted.count_total * u64::from(round > 0), 0);
        taken += 8000;
        host.take(&mut vsock);
        let credit = Header {
            fwd_cnt: taken,
            ..packet(op::CREDIT_UPDATE)
        };
        host.send(&mut vsock, credit, &[]);
        assert_eq!(vsock.poll(), Ok(None));
    }
}
