#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod fine;
mod hostile;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::super::fake::Fake;
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
