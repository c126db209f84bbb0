//! What the device gives: packets (virtio 1.3 §5.10.6) and events.

use super::spec::{EVENT_TRANSPORT_RESET, Header, TYPE_STREAM, op, shutdown};
use super::stream::{State, Stream};
use super::{Error, Event, Registers, StreamId, Vsock, spec};

/// What becomes of a stream after a packet.
enum Verdict {
    /// It goes on.
    Fine,
    /// It is over, as both sides know.
    Over,
    /// The packet makes no sense: the stream is reset.
    Nonsense,
}

impl<R: Registers> Vsock<R> {
    /// Takes the next packet. Says whether there was one, and room for the answer that it may need.
    pub(super) fn take_packet(&mut self) -> Result<bool, Error> {
        if !self.has_room()? {
            return Ok(false);
        }
        self.relieve();
        if self.receive.queue().unpublished() >= self.receive.size() / 2 {
            self.transport.publish(self.receive.queue());
        }
        let Some(used) = self.receive.take(&mut self.transport)? else {
            return Ok(!self.events.is_empty());
        };
        let packet = self.receive.next();
        let header = packet.first_chunk().map(Header::from_bytes);
        let written = usize::try_from(used.len).unwrap_or(usize::MAX);
        let payload = written.checked_sub(Header::LEN);
        let (Some(header), Some(payload)) = (header, payload) else {
            return Err(self.too_short(used.len, 0));
        };
        // A packet is in one buffer, as a whole.
        match usize::try_from(header.len) {
            Ok(len) if len <= payload => {}
            _ => return Err(self.too_short(used.len, header.len)),
        }
        let result = self.handle(&header);
        self.receive.lend_all();
        result?;
        Ok(true)
    }

    /// Takes what the device says of itself. Says whether there was anything.
    pub(super) fn take_happenings(&mut self) -> Result<bool, Error> {
        let Some(used) = self.happenings.take(&mut self.transport)? else {
            return Ok(false);
        };
        let event = self.happenings.next().first_chunk();
        let event = event.map(|bytes| u32::from_le_bytes(*bytes));
        self.happenings.lend_all();
        if used.len < 4 {
            self.transport.shut_down();
            let (len, limit) = (used.len, 4);
            return Err(Error::Short { len, limit });
        }
        if event == Some(EVENT_TRANSPORT_RESET) {
            self.moved();
        }
        Ok(true)
    }

    fn too_short(&mut self, len: u32, payload: u32) -> Error {
        self.transport.shut_down();
        let header = u32::try_from(Header::LEN).unwrap_or(u32::MAX);
        let limit = header.saturating_add(payload);
        Error::Short { len, limit }
    }

    /// Tells those that waited for room that there is some.
    fn relieve(&mut self) {
        while let Some(id) = self.crowd.pop_front() {
            self.writable(id);
        }
    }

    /// All streams are over, and nobody has to be told (§5.10.6.7).
    fn moved(&mut self) {
        self.cid = self.transport.config_u64(spec::GUEST_CID);
        self.owed.clear();
        let all: alloc::vec::Vec<_> = self.streams.ids().collect();
        for id in all {
            self.end(id, true);
        }
        self.events.push_back(Event::Moved);
    }

    fn handle(&mut self, header: &Header) -> Result<(), Error> {
        if header.to.cid != self.cid {
            self.dropped += 1;
            return Ok(());
        }
        let known = (header.kind == TYPE_STREAM)
            .then(|| self.streams.find(header.from, header.to.port))
            .flatten();
        match known {
            None if header.kind == TYPE_STREAM && header.op == op::REQUEST => self.accept(header),
            // A reset is not answered: that would have no end.
            None if header.op == op::RST => Ok(()),
            None => self.send(header.refusal()),
            Some(id) => self.handle_in(id, header),
        }
    }

    /// A peer wants to open a stream.
    fn accept(&mut self, header: &Header) -> Result<(), Error> {
        if !self.ports.contains(&header.to.port) {
            return self.send(header.refusal());
        }
        self.make_place();
        let mut stream = Stream::new(header.to, header.from, State::Open, self.limits.buffer);
        let possible = stream.take_credit(header);
        let Some(stream) = possible.then(|| self.streams.insert(stream).ok()).flatten() else {
            return self.send(header.refusal());
        };
        let (port, peer) = (header.to.port, header.from);
        let accepted = Event::Accepted { stream, port, peer };
        self.events.push_back(accepted);
        self.tell(stream, op::RESPONSE, 0)
    }

    /// A packet of a stream that there is.
    fn handle_in(&mut self, id: StreamId, header: &Header) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(id) else {
            return Ok(());
        };
        let state = stream.state;
        let verdict = match header.op {
            op::RST => {
                self.end(id, state != State::Closing);
                return Ok(());
            }
            op::REQUEST if state == State::Closing => {
                // The peer opens it anew, and so is done with it.
                self.streams.remove(id);
                return self.accept(header);
            }
            _ if state == State::Closed || !stream.take_credit(header) => Verdict::Nonsense,
            op::RW => self.take_payload(id, header),
            op::SHUTDOWN => self.take_shutdown(id, header.flags),
            op::RESPONSE if state == State::Connecting => {
                stream.state = State::Open;
                self.events.push_back(Event::Connected(id));
                Verdict::Fine
            }
            op::CREDIT_UPDATE | op::CREDIT_REQUEST if state != State::Connecting => Verdict::Fine,
            _ => Verdict::Nonsense,
        };
        match verdict {
            Verdict::Fine => self.answer(id, header),
            Verdict::Over | Verdict::Nonsense => {
                self.end(id, matches!(verdict, Verdict::Nonsense));
                self.send(header.refusal())
            }
        }
    }

    /// What else a packet that made sense brings about.
    fn answer(&mut self, id: StreamId, header: &Header) -> Result<(), Error> {
        if header.op == op::CREDIT_REQUEST {
            self.tell(id, op::CREDIT_UPDATE, 0)?;
        }
        let stream = self.streams.get(id);
        if stream.is_some_and(|stream| stream.starved && stream.credit() != 0) {
            self.writable(id);
        }
        Ok(())
    }

    /// The peer sends bytes.
    fn take_payload(&mut self, id: StreamId, header: &Header) -> Verdict {
        let Some(stream) = self.streams.get_mut(id) else {
            return Verdict::Fine;
        };
        let payload = self.receive.next().get(Header::LEN..).unwrap_or_default();
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let payload = payload.get(..len).unwrap_or_default();
        let sends = stream.peer_shutdown & shutdown::SEND == 0;
        let state = stream.state;
        match state {
            State::Open if sends && stream.take_bytes(payload) => {
                if !payload.is_empty() {
                    self.readable(id);
                }
                Verdict::Fine
            }
            // Nobody reads it any more.
            State::Closing => Verdict::Fine,
            _ => Verdict::Nonsense,
        }
    }

    /// The peer sends no more, or receives no more, or both.
    fn take_shutdown(&mut self, id: StreamId, flags: u32) -> Verdict {
        let stream = self.streams.get_mut(id);
        let Some(stream) = stream.filter(|stream| stream.state != State::Connecting) else {
            return Verdict::Nonsense;
        };
        let before = stream.peer_shutdown;
        stream.peer_shutdown |= flags & shutdown::BOTH;
        if stream.peer_shutdown == shutdown::BOTH {
            return Verdict::Over;
        }
        if stream.peer_shutdown & !before & shutdown::SEND != 0 {
            self.readable(id);
        }
        Verdict::Fine
    }

    /// A stream is over.
    fn end(&mut self, id: StreamId, reset: bool) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        match stream.state {
            State::Closing => self.streams.remove(id),
            State::Closed => {}
            State::Open | State::Connecting => {
                stream.state = State::Closed;
                stream.reset = reset;
                stream.starved = false;
                self.events.push_back(Event::Closed(id));
            }
        }
    }

    fn readable(&mut self, id: StreamId) {
        let stream = self.streams.get_mut(id);
        if stream.is_some_and(|stream| !core::mem::replace(&mut stream.readable_told, true)) {
            self.events.push_back(Event::Readable(id));
        }
    }

    fn writable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.starved = false;
        if stream.state == State::Open && !core::mem::replace(&mut stream.writable_told, true) {
            self.events.push_back(Event::Writable(id));
        }
    }
}
