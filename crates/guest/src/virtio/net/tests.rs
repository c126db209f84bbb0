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

use super::super::fake::{Fake, Manner};
use super::super::spec::feature as common;
use super::spec::{RECEIVE, TRANSMIT};
use super::*;

const MAC: [u8; 6] = [2, 1, 2, 3, 4, 5];

/// What is on the wire: frames with their headers.
#[derive(Clone, Default)]
pub(super) struct Wire {
    /// To the driver.
    arriving: Rc<RefCell<VecDeque<Vec<u8>>>>,
    /// From the driver.
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Wire {
    /// Has a frame arrive, as soon as the device works.
    pub(super) fn send(&self, net: &mut Net<Fake>, header: [u8; 12], frame: &[u8]) {
        let bytes = [&header[..], frame].concat();
        self.arriving.borrow_mut().push_back(bytes);
        net.transport.registers().budget[usize::from(RECEIVE)] += 1;
    }

    /// Takes what was sent.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.sent.borrow_mut())
    }
}

/// A network card that serves what is sent at once, and receives what is on the wire.
pub(super) fn fake() -> (Fake, Wire) {
    let wire = Wire::default();
    let device = wire.clone();
    let mut fake = Fake::new(id::NETWORK, move |mut request| match request.queue {
        RECEIVE => {
            let frame = device.arriving.borrow_mut().pop_front().unwrap_or_default();
            request.writable[0][..frame.len()].copy_from_slice(&frame);
            frame.len() as u32
        }
        _ => {
            assert_eq!(request.queue, TRANSMIT);
            device.sent.borrow_mut().push(request.readable.concat());
            0
        }
    });
    fake.offered |= feature::MAC | feature::MTU | feature::STATUS;
    fake.config = [&MAC[..], &[1, 0, 0, 0], &1500_u16.to_le_bytes()].concat();
    fake.budget[usize::from(RECEIVE)] = 0;
    (fake, wire)
}

pub(super) fn net() -> (Net<Fake>, Wire) {
    let (fake, wire) = fake();
    (Net::with_registers(fake).unwrap(), wire)
}

/// The frame number `number`, of 14 bytes and more.
fn frame(number: usize) -> Vec<u8> {
    let len = 14 + number * 7 % 1500;
    (0..len).map(|at| (number + at) as u8).collect()
}

#[test]
fn frames_arrive_in_order_and_their_buffers_go_back_many_at_once() {
    for event_idx in [false, true] {
        let (mut fake, wire) = fake();
        if !event_idx {
            fake.offered &= !common::EVENT_IDX;
        }
        let mut net = Net::with_registers(fake).unwrap();
        let mut next = 0;
        for burst in [1, 2, 256, 100, 255, 256, 130] {
            for number in next..next + burst {
                wire.send(&mut net, [0; 12], &frame(number));
            }
            assert_eq!(net.wait(None), Ok(true));
            for number in next..next + burst {
                let received = net.receive().unwrap().unwrap();
                assert_eq!(*received, frame(number)[..]);
            }
            assert!(net.receive().unwrap().is_none());
            next += burst;
        }
        assert_eq!(net.wait(Some(0)), Ok(false), "nothing more arrives");
        // Once at the start; once for each burst, and where half of the buffers were used.
        let told = net.transport.registers().notifications;
        assert!(told < 20, "{told}");
        assert_eq!(net.dropped(), 0);
    }
}

#[test]
fn a_frame_that_is_forgotten_costs_no_buffer() {
    let (mut net, wire) = net();
    for number in 0..600 {
        wire.send(&mut net, [0; 12], &frame(number));
        assert_eq!(net.wait(None), Ok(true));
        let received = net.receive().unwrap().unwrap();
        assert_eq!(*received, frame(number)[..]);
        core::mem::forget(received);
    }
}

#[test]
fn frames_are_sent_as_they_were_written_and_told_of_together() {
    let (mut net, wire) = net();
    let mut expected = Vec::new();
    for round in 0..50 {
        for number in 0..20 {
            let frame = frame(round + number);
            let len = net.transmit(frame.len(), |bytes| {
                bytes.copy_from_slice(&frame);
                bytes.len()
            });
            assert_eq!(len, Ok(frame.len()));
            expected.push([&[0; 12][..], &frame].concat());
        }
        assert_eq!(net.flush(), Ok(()));
        assert_eq!(net.flush(), Ok(()), "nothing is new");
    }
    assert_eq!(wire.take(), expected);
    assert_eq!(net.transport.registers().notifications, 1 + 50);
    let limit = 14 + 4 + 1500;
    let too_long = Error::TooLong { len: 1519, limit };
    assert_eq!(net.transmit(1519, |_| ()), Err(too_long));
    assert_eq!(net.transmit(limit, |_| ()), Ok(()));
}

#[test]
fn when_there_is_no_room_it_is_waited_for() {
    let (mut fake, wire) = fake();
    fake.manner = Manner::Later;
    let mut net = Net::with_registers(fake).unwrap();
    for _ in 0..256 {
        assert_eq!(net.transmit(60, |bytes| bytes.fill(7)), Ok(()));
    }
    assert_eq!(net.transmit(60, |_| ()), Err(Error::Full));
    assert_eq!(wire.take().len(), 0);
    assert_eq!(net.wait(None), Ok(true));
    assert_eq!(wire.take().len(), 256);
    assert_eq!(net.transmit(60, |_| ()), Ok(()));
    // A device that sends nothing any more.
    net.transport.registers().budget = [0; 3];
    while net.transmit(60, |_| ()).is_ok() {}
    assert_eq!(net.wait(Some(0)), Ok(false));
}

#[test]
fn the_card_is_what_the_host_says_it_is() {
    let (mut card, _) = net();
    assert_eq!((card.mac(), card.mtu(), card.is_up()), (MAC, 1500, true));
    card.transport.registers().config[6] = 0;
    assert!(!card.is_up());
    let (mut plain, _) = fake();
    plain.offered = common::VERSION_1;
    let card = Net::with_registers(plain).unwrap();
    assert_eq!((card.mtu(), card.is_up()), (1500, true));
    assert_eq!(card.mac()[0] & 3, 2, "administered locally, unicast");
    for (mtu, expected) in [
        (67, Err(Error::Answer { found: 67 })),
        (68, Ok(68)),
        (9000, Ok(9000)),
        (u16::MAX, Ok(u16::MAX)),
    ] {
        let (mut fake, _) = fake();
        fake.config[10..].copy_from_slice(&mtu.to_le_bytes());
        let found = Net::with_registers(fake).map(|net| net.mtu());
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_no_frame_is_passed_over() {
    let (mut net, wire) = net();
    for len in [0, 1, 13, 14, 5] {
        wire.send(&mut net, [0; 12], &vec![9; len]);
    }
    net.wait(None).unwrap();
    assert_eq!(net.receive().unwrap().unwrap().len(), 14);
    assert!(net.receive().unwrap().is_none());
    assert_eq!(net.dropped(), 4);
}

#[test]
fn a_header_that_lies_does_nothing() {
    let (mut net, wire) = net();
    // Every flag, segments of nonsense, and more buffers than there are.
    wire.send(&mut net, [0xff; 12], &frame(1));
    wire.send(&mut net, [0; 12], &frame(2));
    net.wait(None).unwrap();
    assert_eq!(*net.receive().unwrap().unwrap(), frame(1)[..]);
    assert_eq!(*net.receive().unwrap().unwrap(), frame(2)[..]);
}

#[test]
fn a_device_that_misbehaves_is_shut_down_with_an_error() {
    let room = (12 + 14 + 4 + 1500_u32).next_multiple_of(64);
    let too_long = Error::UsedLength {
        len: room + 1,
        limit: room,
    };
    let runaway = Error::UsedIndex {
        claimed: 1000,
        given: 256,
    };
    let cases = [
        (Manner::TooLong, too_long),
        (Manner::Runaway, runaway),
        (Manner::NeedsReset, Error::NeedsReset),
        (Manner::Forgets, Error::NeedsReset),
    ];
    for (manner, expected) in cases {
        let (mut net, wire) = net();
        net.transport.registers().manner = manner;
        wire.send(&mut net, [0; 12], &frame(1));
        let error = match net.wait(None) {
            Ok(_) => net.receive().err(),
            Err(error) => Some(error),
        };
        assert_eq!(error, Some(expected));
        assert!(!net.transport.registers().is_running(), "{manner:?}");
        assert_eq!(net.receive().err(), Some(Error::Broken));
        assert_eq!(net.transmit(60, |_| ()), Err(Error::Broken));
        assert_eq!(net.flush(), Err(Error::Broken));
        assert_eq!(net.wait(Some(0)), Err(Error::Broken));
    }
}

#[test]
fn a_device_that_writes_less_than_a_header_is_shut_down() {
    for len in [0, 11] {
        let (mut net, wire) = net();
        wire.arriving.borrow_mut().push_back(vec![0; len]);
        net.transport.registers().budget[0] = 1;
        net.wait(None).unwrap();
        let (len, limit) = (len as u32, 12);
        assert_eq!(net.receive().err(), Some(Error::Short { len, limit }));
        assert_eq!(net.receive().err(), Some(Error::Broken));
    }
}

#[test]
fn a_buffer_comes_back_once() {
    let (mut net, _) = net();
    net.transport.registers().manner = Manner::Request0;
    let error = loop {
        match net.transmit(60, |_| ()) {
            Ok(()) => net.flush().unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::UsedId { id: 0 });
    assert_eq!(net.transmit(60, |_| ()), Err(Error::Broken));
}

#[test]
fn what_the_host_says_of_checksums_reaches_the_program() {
    let (mut fake, wire) = fake();
    fake.offered |= feature::CSUM | feature::GUEST_CSUM;
    let mut net = Net::with_registers(fake).unwrap();
    assert!(net.completes_checksums());
    let mut header = [0; 12];
    (header[0], header[6], header[8]) = (1, 34, 16);
    wire.send(&mut net, header, &frame(1));
    header[0] = 2;
    wire.send(&mut net, header, &frame(1));
    wire.send(&mut net, [0; 12], &frame(1));
    net.wait(None).unwrap();
    let (start, offset) = (34, 16);
    for expected in [
        Checksum::Partial { start, offset },
        Checksum::Valid,
        Checksum::Complete,
    ] {
        let received = net.receive().unwrap().unwrap();
        assert_eq!(received.checksum(), expected);
        assert!(received.is_intact());
    }
    let partial = Checksum::Partial { start, offset };
    net.transmit_with(60, |_| (partial, ())).unwrap();
    net.transmit(60, |_| ()).unwrap();
    net.flush().unwrap();
    let sent = wire.take();
    assert_eq!(sent[0][..12], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    assert_eq!(sent[1][..12], [0; 12], "nothing is left of the last one");
}

#[test]
fn no_frame_costs_an_allocation() {
    let (mut net, wire) = net();
    for _ in 0..3 {
        for number in 0..100 {
            wire.send(&mut net, [0; 12], &frame(number));
        }
        net.wait(None).unwrap();
        let counted = allocation_counter::measure(|| {
            let mut bytes = 0;
            while let Some(frame) = net.receive().unwrap() {
                bytes += frame.len();
            }
            for _ in 0..100 {
                net.transmit(bytes % 1500, |frame| frame.fill(1)).unwrap();
            }
        });
        assert_eq!(counted.count_total, 0);
        net.flush().unwrap();
    }
}
