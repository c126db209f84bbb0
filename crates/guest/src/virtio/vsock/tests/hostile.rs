//! Peers and hosts that do not.

use proptest::prelude::*;

use super::super::super::fake::Manner;
use super::*;

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
fn without_room_to_send_nothing_is_received_and_all_goes_on_later() {
    let (mut vsock, host, stream) = accepted();
    vsock.transport.registers().budget[usize::from(TRANSMIT)] = 0;
    let written = vsock.write(stream, &vec![1; 2 << 20]).unwrap();
    assert_eq!(written, usize::from(PACKETS) * (TRANSMIT_LEN - 44));
    assert_eq!(vsock.write(stream, b"x"), Ok(0));
    // Each of these needs an answer.
    for _ in 0..50 {
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
    assert_eq!(sent[..64], [op::RW; 64]);
    assert_eq!(sent[64], op::SHUTDOWN);
    assert_eq!(sent[65..], [op::CREDIT_UPDATE; 50]);
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
