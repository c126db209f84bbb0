//! From the guest to the host: packets of the transmit queue.

use std::io;
use std::time::Duration;

use goldcrest_virtio::{DeviceError, DeviceIo, QueueError, Ram, Reader};

use crate::backend::Parts;
use crate::device::misused;
use crate::header::Header;
use crate::spec::{HEADER_SIZE, cid, kind, op, queue, shutdown};
use crate::stream::{Key, Owed, Phase, Stream};
use crate::{Backend, Vsock};

/// How long a host's socket without room is tried again: as long as Linux waits.
const DIALLING: Duration = Duration::from_secs(2);
/// After what time it is tried again.
pub(crate) const REDIAL: Duration = Duration::from_millis(10);

/// A part of a packet that does not lie in RAM, among other errors.
pub(crate) fn queue_error(error: &io::Error) -> Option<QueueError> {
    error.get_ref()?.downcast_ref().copied()
}

impl<B: Backend> Vsock<B> {
    /// Takes the guest's packets, as long as there is room for what they may be answered.
    pub(crate) fn transmit(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let misused = misused(queue::TRANSMIT);
        let Some(mut queue) = io.queue(queue::TRANSMIT) else {
            return Ok(());
        };
        let ram = queue.ram();
        loop {
            self.stalled = !self.may_refuse();
            if self.stalled {
                return Ok(());
            }
            let Some(mut chain) = queue.pop().map_err(misused)? else {
                return Ok(());
            };
            let head = chain.head;
            self.packet(&mut chain.readable, ram)?;
            queue.push(head, 0);
        }
    }

    fn packet(&mut self, reader: &mut Reader<'_>, ram: Ram<'_>) -> Result<(), DeviceError> {
        if reader.left() < HEADER_SIZE as u64 {
            self.ignore();
            return Ok(());
        }
        let bytes = reader.read_array().map_err(misused(queue::TRANSMIT))?;
        let header = Header::from_bytes(&bytes);
        if header.src_cid != self.cid || header.dst_cid > u64::from(u32::MAX) {
            self.ignore();
            return Ok(());
        }
        let known = header.dst_cid == cid::HOST && header.kind == kind::STREAM;
        if !known || !self.takes_streams {
            self.refuse(&header);
            return Ok(());
        }
        let key = Key {
            host: header.dst_port,
            guest: header.src_port,
        };
        let whole = u64::from(header.len) <= reader.left();
        match self.streams.find(key) {
            Some(number) if whole => self.known(number, &header, reader, ram)?,
            Some(number) => self.reset_stream(number),
            None if header.op == op::REQUEST => self.requested(key, &header),
            None => self.refuse(&header),
        }
        Ok(())
    }

    /// A packet of a stream.
    fn known(
        &mut self,
        number: u32,
        header: &Header,
        reader: &mut Reader<'_>,
        ram: Ram<'_>,
    ) -> Result<(), DeviceError> {
        let Some(stream) = self.streams.get_mut(number) else {
            return Ok(());
        };
        stream.outbound.update(header.buf_alloc, header.fwd_cnt);
        match (header.op, stream.phase) {
            (op::RST, _) => {
                self.remove_stream(number);
                return Ok(());
            }
            // The guest does not wait to be told that the stream before is over.
            (op::REQUEST, Phase::Over) => {
                let key = stream.key;
                stream.owed = Owed::default();
                self.settle(number);
                self.requested(key, header);
                return Ok(());
            }
            (_, Phase::Over) => {}
            (op::RESPONSE, Phase::Requested) => self.responded(number),
            (op::RW, Phase::Open | Phase::Closing) => {
                self.payload(number, header.len, reader, ram)?;
            }
            (op::SHUTDOWN, Phase::Open | Phase::Closing) => self.guest_shuts(number, header.flags),
            (op::CREDIT_UPDATE, _) => {}
            (op::CREDIT_REQUEST, Phase::Open | Phase::Closing) => stream.owed.add(Owed::ANSWER),
            _ => self.reset_stream(number),
        }
        self.schedule(number);
        Ok(())
    }

    /// The guest wants to be connected with a port of the host's.
    fn requested(&mut self, key: Key, header: &Header) {
        self.forget_refusal(header);
        let dialled = match self.streams.is_full() {
            true => Err(io::ErrorKind::QuotaExceeded.into()),
            false => self.backend.connect(key.host),
        };
        let phase = match &dialled {
            Ok(_) => Phase::Open,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Phase::Dialing,
            Err(_) => {
                self.refuse(header);
                return;
            }
        };
        let make = |room| Stream::new(key, phase, room);
        let Some(number) = self.streams.insert(key, make) else {
            self.refuse(header);
            return;
        };
        if let Some(stream) = self.streams.get_mut(number) {
            stream.outbound.update(header.buf_alloc, header.fwd_cnt);
        }
        match dialled {
            Ok(host) => self.dialled(number, host),
            Err(_) => self.dial_later(number),
        }
    }

    /// The host has accepted what the guest has asked for.
    pub(crate) fn dialled(&mut self, number: u32, mut host: B::Stream) {
        let watched = self.backend.watch(&mut host, self.streams.token(number));
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        stream.phase = Phase::Open;
        stream.host = Some(host);
        stream.owed.add(Owed::RESPONSE);
        match watched {
            Ok(()) => self.schedule(number),
            Err(_) => self.reset_stream(number),
        }
    }

    fn dial_later(&mut self, number: u32) {
        let now = self.clock.now();
        if let Some(stream) = self.streams.get_mut(number) {
            stream.deadline = now.saturating_add(DIALLING);
        }
        if self.streams.dialing.is_empty() {
            self.redial_at = now.saturating_add(REDIAL);
        }
        self.streams.dialing.push(number);
    }

    /// The guest has accepted what a program on the host has asked for.
    fn responded(&mut self, number: u32) {
        self.streams.timed.remove(number);
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        stream.phase = Phase::Open;
        stream.host_shuts(0);
        if let Some(host) = &mut stream.host {
            self.backend.accepted(host, stream.key.host);
        }
    }

    /// The guest will not do `flags` any more.
    fn guest_shuts(&mut self, number: u32, flags: u32) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        let new = flags & shutdown::BOTH & !stream.guest_shut;
        stream.guest_shut |= new;
        if stream.guest_shut == shutdown::BOTH {
            self.end_stream(number);
            return;
        }
        let Some(host) = &mut stream.host else {
            return;
        };
        if new & shutdown::RECEIVE != 0 {
            self.backend.end_receiving(host);
        }
        // What it has sent before comes first.
        if new & shutdown::SEND != 0 && stream.backlog.is_empty() {
            self.backend.end_sending(host);
        }
    }

    /// `len` bytes for the host.
    fn payload(
        &mut self,
        number: u32,
        len: u32,
        reader: &mut Reader<'_>,
        ram: Ram<'_>,
    ) -> Result<(), DeviceError> {
        let Some(stream) = self.streams.get_mut(number) else {
            return Ok(());
        };
        if stream.guest_shut & shutdown::SEND != 0 || !stream.inbound.receive(len) {
            self.reset_stream(number);
            return Ok(());
        }
        let mut done = match &mut stream.host {
            Some(host) if stream.host_shut & shutdown::RECEIVE == 0 => {
                match stream.backlog.is_empty() {
                    true => send_parts(&mut self.backend, host, reader, ram, len)
                        .map_err(misused(queue::TRANSMIT))?,
                    false => Some(0),
                }
            }
            _ => None,
        };
        if done.is_none() {
            // Nobody takes it any more, which the guest did not know.
            stream.host_shuts(shutdown::RECEIVE);
            done = Some(len);
        }
        let done = done.unwrap_or(len);
        stream.inbound.forward(done);
        let mut left = usize::try_from(len.saturating_sub(done)).unwrap_or(usize::MAX);
        while left > 0 {
            match reader.take(left).map_err(misused(queue::TRANSMIT))? {
                Some(slice) => {
                    stream.backlog.push(&slice, &mut self.spare);
                    left = left.saturating_sub(slice.len());
                }
                None => break,
            }
        }
        stream.update_credit();
        Ok(())
    }
}

/// Sends as much of the next `len` bytes as the host takes, and takes that from the reader. Nothing if the host does not
/// take any more, ever.
fn send_parts<B: Backend>(
    backend: &mut B,
    host: &mut B::Stream,
    reader: &mut Reader<'_>,
    ram: Ram<'_>,
    len: u32,
) -> Result<Option<u32>, QueueError> {
    let mut left = len;
    while left > 0 {
        match backend.send(host, Parts::new(ram, reader.segments(), left)) {
            Ok(0) => break,
            Ok(count) => {
                let count = u32::try_from(count).unwrap_or(left).min(left);
                left = left.saturating_sub(count);
                // Nobody looks for what is left, if nothing is.
                if left > 0 {
                    skip(reader, count)?;
                }
            }
            Err(error) => match (queue_error(&error), error.kind()) {
                (Some(error), _) => return Err(error),
                (None, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                _ => return Ok(None),
            },
        }
    }
    Ok(Some(len.saturating_sub(left)))
}

/// Takes `count` bytes from the reader, which has them.
fn skip(reader: &mut Reader<'_>, count: u32) -> Result<(), QueueError> {
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    while left > 0 {
        match reader.take(left)? {
            Some(slice) => left = left.saturating_sub(slice.len()),
            None => break,
        }
    }
    Ok(())
}
