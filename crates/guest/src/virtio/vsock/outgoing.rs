//! What goes to the device: bytes of streams, and packets that say something.

#[cfg(doc)]
use super::Event;
use super::spec::{Header, op};
use super::stream::{State, Stream};
use super::{Buffers, Error, Registers, StreamId, Vsock};

impl<R: Registers> Vsock<R> {
    /// Writes the beginning of `bytes`, as much as there is room for. Gives how much that is; if it is not all,
    /// [`Event::Writable`] says when there is more.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], [`Error::NoStream`], and if the device misbehaves.
    pub fn write(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
            let written = self.write_with(stream, |room| {
                let len = rest.len().min(room.len());
                if let (Some(to), Some(from)) = (room.get_mut(..len), rest.get(..len)) {
                    to.copy_from_slice(from);
                }
                len
            })?;
            if written == 0 {
                break;
            }
            count += written;
        }
        Ok(count)
    }

    /// Has `fill` write one packet in place, as much as there is room for; it gives how many bytes it has written. Gives the
    /// same, or 0 if there is no room: [`Event::Writable`] says when there is some. Before `fill` the bytes are whatever was
    /// sent earlier.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn write_with(
        &mut self,
        stream: StreamId,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize, Error> {
        self.transport.check()?;
        let found = self.streams.get_mut(stream).ok_or(Error::NoStream)?;
        if !found.takes_more() {
            return Err(Error::Ended);
        }
        let credit = usize::try_from(found.credit()).unwrap_or(usize::MAX);
        if credit == 0 {
            found.starved = true;
            if found.state == State::Open && !core::mem::replace(&mut found.asked, true) {
                self.tell(stream, op::CREDIT_REQUEST, 0)?;
            }
            return Ok(0);
        }
        if !self.has_room()? {
            if self
                .streams
                .get_mut(stream)
                .is_some_and(Stream::set_starved)
            {
                self.crowd.push_back(stream);
            }
            return Ok(0);
        }
        let room = self.transmit.next_mut().split_at_mut_checked(Header::LEN);
        let room = room.map_or(&mut [][..], |(_, room)| room);
        let most = room.len().min(credit);
        let written = fill(room.get_mut(..most).unwrap_or_default()).min(most);
        if let Some(found) = self.streams.get_mut(stream).filter(|_| written != 0) {
            let len = u32::try_from(written).unwrap_or(u32::MAX);
            let header = found.header(op::RW, 0, len);
            found.count_sent(len);
            lend(&mut self.transmit, &header);
        }
        Ok(written)
    }

    /// Writes what has arrived on one stream to another, or back to the same one, as much as there is room for, and takes it
    /// for read. Gives how much that is: 0 if there is nothing, or no room, which [`Event::Writable`]
    /// then says.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write) for `to`.
    pub fn forward(&mut self, from: StreamId, to: StreamId) -> Result<usize, Error> {
        let Some(stream) = self.streams.get_mut(from) else {
            return Ok(0);
        };
        let mut received = core::mem::take(&mut stream.received);
        let mut count = 0;
        let result = loop {
            let (first, second) = received.as_slices();
            let rest = match first.get(count..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => second.get(count - first.len()..).unwrap_or_default(),
            };
            match self.write(to, rest) {
                Ok(0) => break Ok(count),
                Ok(written) => count += written,
                Err(error) => break Err(error),
            }
        };
        if let Some(stream) = self.streams.get_mut(from) {
            core::mem::swap(&mut stream.received, &mut received);
        }
        self.consume(from, count);
        result
    }

    /// Sends a packet of a stream without payload, now or as soon as there is room.
    pub(super) fn tell(&mut self, stream: StreamId, op: u16, flags: u32) -> Result<(), Error> {
        if let Some(found) = self.streams.get_mut(stream) {
            let header = found.header(op, flags, 0);
            self.send(header)?;
        }
        Ok(())
    }

    /// Sends a packet without payload, now or as soon as there is room.
    pub(super) fn send(&mut self, header: Header) -> Result<(), Error> {
        if self.has_room()? {
            lend(&mut self.transmit, &header);
        } else {
            self.owed.push_back(header);
        }
        Ok(())
    }

    /// Whether there is room for a packet, after those that are owed. The device may be told of what was sent before.
    pub(super) fn has_room(&mut self) -> Result<bool, Error> {
        self.pay()?;
        Ok(self.owed.is_empty() && self.has_buffer()?)
    }

    /// Sends what is owed, as far as there is room.
    pub(super) fn pay(&mut self) -> Result<(), Error> {
        while !self.owed.is_empty() && self.has_buffer()? {
            if let Some(header) = self.owed.pop_front() {
                lend(&mut self.transmit, &header);
            }
        }
        Ok(())
    }

    fn has_buffer(&mut self) -> Result<bool, Error> {
        self.transport.check()?;
        if self.transmit.free() <= self.transmit.size() / 2 {
            self.reclaim()?;
        }
        if self.transmit.free() == 0 && self.transmit.queue().unpublished() != 0 {
            self.transport.publish(self.transmit.queue());
            self.reclaim()?;
        }
        Ok(self.transmit.free() != 0)
    }

    fn reclaim(&mut self) -> Result<(), Error> {
        while self.transmit.take(&mut self.transport)?.is_some() {}
        Ok(())
    }
}

/// Writes a header into the next buffer, of which there has to be one, and lends it, and what was written after the header,
/// to the device.
fn lend(transmit: &mut Buffers, header: &Header) {
    if let Some(bytes) = transmit.next_mut().first_chunk_mut() {
        *bytes = header.to_bytes();
    }
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    transmit.lend(Some(Header::LEN.saturating_add(len)));
}
