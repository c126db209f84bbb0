//! From the host to the guest: packets are made when the guest has room for them.

use std::io;

use goldcrest_memory::io::Segment;
use goldcrest_virtio::{DeviceError, DeviceIo, QueueError, Ram, Writer};

use crate::backend::Parts;
use crate::device::misused;
use crate::header::Header;
use crate::spec::{HEADER_SIZE, MAX_PAYLOAD, cid, op, queue, shutdown};
use crate::stream::{ASK_FIRST, Owed, Phase};
use crate::transmit::queue_error;
use crate::{Backend, Vsock};

/// The most segments of room that a packet's payload is put in: a call of the host's takes 64, and one that runs from
/// one region of RAM into the next counts twice.
const MAX_SEGMENTS: usize = 32;

impl<B: Backend> Vsock<B> {
    /// Gives the guest what there is for it, as far as it has room: first what is not payload.
    pub(crate) fn deliver(&mut self, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let misused = misused(queue::RECEIVE);
        if self.interruption.holds() || !self.has_packets() {
            return Ok(());
        }
        let Some(mut queue) = io.queue(queue::RECEIVE) else {
            return Ok(());
        };
        let ram = queue.ram();
        while self.has_packets() {
            let Some(mut chain) = queue.pop().map_err(misused)? else {
                break;
            };
            let head = chain.head;
            match self.fill(&mut chain.writable, ram)? {
                Some(len) => queue.push(head, len),
                None => queue.undo_pop(head),
            }
        }
        Ok(())
    }

    fn has_packets(&self) -> bool {
        !self.refusals.is_empty()
            || !self.streams.owing.is_empty()
            || !self.streams.ready.is_empty()
    }

    /// Makes one packet. Returns its length; nothing if there is none after all.
    fn fill(&mut self, writer: &mut Writer<'_>, ram: Ram<'_>) -> Result<Option<u32>, DeviceError> {
        let misused = misused(queue::RECEIVE);
        if let Some(header) = self.next_control() {
            writer.write(&header.to_bytes()).map_err(misused)?;
            return Ok(Some(whole(0)));
        }
        reserve(writer, &mut self.place).map_err(misused)?;
        let room = u32::try_from(writer.left()).unwrap_or(u32::MAX);
        if room == 0 {
            let what = "a receive buffer has no room for payload";
            return Err(DeviceError::Driver(what));
        }
        while let Some(number) = self.streams.ready.first() {
            let payload = self.payload_of(number, with_room(writer.segments()), room, ram)?;
            let header = match payload {
                Some(len) => self.header(number, op::RW, len),
                // Its end, perhaps.
                None => self.next_control(),
            };
            if let Some(header) = header {
                put(&header, &self.place, ram).map_err(misused)?;
                return Ok(Some(whole(header.len)));
            }
        }
        Ok(None)
    }

    /// The next packet without payload.
    fn next_control(&mut self) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal.header(self.cid));
        }
        loop {
            let number = self.streams.owing.first()?;
            let stream = self.streams.get_mut(number)?;
            let Some((what, op)) = stream.owed.take() else {
                self.streams.owing.remove(number);
                continue;
            };
            let header = self.header(number, op, 0);
            self.sent(number, what);
            return header;
        }
    }

    /// The header of a packet of a stream, which says how much room there is.
    fn header(&mut self, number: u32, op: u16, len: u32) -> Option<Header> {
        self.streams.grow(number);
        let stream = self.streams.get_mut(number)?;
        let (buf_alloc, fwd_cnt) = stream.inbound.tell();
        stream.owed.remove(Owed::UPDATE);
        let flags = match op {
            op::SHUTDOWN => stream.host_shut,
            _ => 0,
        };
        Some(Header {
            src_cid: cid::HOST,
            dst_cid: self.cid,
            src_port: stream.key.host,
            dst_port: stream.key.guest,
            len,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
            ..Header::default()
        })
    }

    /// What follows from a packet that was sent.
    fn sent(&mut self, number: u32, what: u8) {
        let Some(stream) = self.streams.get_mut(number) else {
            return;
        };
        match what {
            Owed::RESET => self.settle(number),
            Owed::SHUTDOWN => {
                stream.told_shut = stream.host_shut;
                if stream.told_shut == shutdown::BOTH {
                    stream.phase = Phase::Closing;
                    stream.host = None;
                    stream.backlog.clear(&mut self.spare);
                    self.give_time(number);
                }
                self.schedule(number);
            }
            _ => self.schedule(number),
        }
    }

    /// Puts bytes of a stream in `room`. Returns how many; nothing if there are none.
    fn payload_of(
        &mut self,
        number: u32,
        room: &[Segment],
        len: u32,
        ram: Ram<'_>,
    ) -> Result<Option<u32>, DeviceError> {
        let Some(stream) = self.streams.get_mut(number) else {
            self.streams.ready.remove(number);
            return Ok(None);
        };
        let most = stream.outbound.allowance().min(len).min(MAX_PAYLOAD);
        let most = most.min(bytes_of(room));
        let received = match &mut stream.host {
            Some(host) => self.backend.receive(host, Parts::new(ram, room, most)),
            None => Ok(0),
        };
        let received = match received {
            Err(error) => match (queue_error(&error), error.kind()) {
                (Some(error), _) => return Err(misused(queue::RECEIVE)(error)),
                (None, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
                _ => Some(0),
            },
            Ok(count) => Some(u32::try_from(count).unwrap_or(most).min(most)),
        };
        match received {
            None => stream.readable = false,
            Some(0) => {
                stream.readable = false;
                stream.host_shuts(shutdown::SEND);
            }
            Some(count) => {
                stream.readable = count == most || stream.ended;
                stream.ask_after = ASK_FIRST;
                if stream.outbound.send(count) {
                    stream.owed.add(Owed::QUESTION);
                }
            }
        }
        // Others first.
        self.streams.ready.remove(number);
        self.schedule(number);
        Ok(received.filter(|count| *count > 0))
    }
}

/// Bytes of a packet.
fn whole(payload: u32) -> u32 {
    u32::try_from(HEADER_SIZE)
        .unwrap_or(0)
        .saturating_add(payload)
}

/// The segments from the first that is not empty on.
fn with_room(segments: &[Segment]) -> &[Segment] {
    let first = segments.iter().position(|segment| segment.len > 0);
    segments.get(first.unwrap_or(0)..).unwrap_or_default()
}

/// How much room there is in as many segments as are used.
fn bytes_of(room: &[Segment]) -> u32 {
    match room.get(..MAX_SEGMENTS) {
        None => u32::MAX,
        Some(room) => room
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.len)),
    }
}

/// Takes room for a header off the writer's front, and notes where it is: the header is written last.
fn reserve(writer: &mut Writer<'_>, place: &mut Vec<Segment>) -> Result<(), QueueError> {
    place.clear();
    let mut left = HEADER_SIZE;
    for segment in writer.segments() {
        let len = usize::try_from(segment.len).unwrap_or(usize::MAX).min(left);
        left = left.saturating_sub(len);
        if len > 0 {
            place.push(Segment {
                address: segment.address,
                len: u32::try_from(len).unwrap_or(0),
            });
        }
        if left == 0 {
            break;
        }
    }
    let mut left = HEADER_SIZE;
    while left > 0 {
        let Some(slice) = writer.take(left)? else {
            let missing = left as u64;
            return Err(QueueError::TooShort { missing });
        };
        left = left.saturating_sub(slice.len());
    }
    Ok(())
}

/// Writes a header where room was reserved for it.
fn put(header: &Header, place: &[Segment], ram: Ram<'_>) -> Result<(), QueueError> {
    let bytes = header.to_bytes();
    let mut rest = bytes.as_slice();
    for segment in place {
        let len = usize::try_from(segment.len).unwrap_or(usize::MAX);
        let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        ram.write(segment.address, now)?;
        rest = later;
    }
    Ok(())
}
