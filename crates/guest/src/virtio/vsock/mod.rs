//! Sockets between a machine and its host (virtio 1.3 §5.10).

mod incoming;
mod spec;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeSet, VecDeque};

pub use super::Error;
use super::buffers::Buffers;
use super::transport::Transport;
use super::{Device, Mmio, Registers, first, id};
use spec::{Header, op, shutdown};
use stream::{State, Stream};
use table::Table;

/// Packets that are on their way at once, and the bytes of their buffers.
const PACKETS: u16 = 128;
const RECEIVE_LEN: usize = 4096;
const TRANSMIT_LEN: usize = 8192;
/// Buffers for events, and their bytes.
const EVENTS: u16 = 4;
const EVENT_LEN: usize = 64;

/// Our ports of streams that we open: the dynamic ones of RFC 6335, for want of others.
const DYNAMIC_PORTS: core::ops::Range<u32> = 49152..65536;

/// The context identifier of the host (§5.10.4).
pub const HOST_CID: u64 = 2;

/// One end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The context identifier: which machine.
    pub cid: u64,
    /// The port.
    pub port: u32,
}

/// A stream. It stays the program's until it is given back by [`Vsock::close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId {
    index: u32,
    generation: u32,
}

impl StreamId {
    fn index(self) -> usize {
        usize::try_from(self.index).unwrap_or(usize::MAX)
    }
}

/// What there can be of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once.
    pub streams: u32,
    /// Bytes of a stream that are held until the program reads them. Memory is taken as they arrive.
    pub buffer: u32,
}

impl Default for Limits {
    /// 4096 streams of 64 KiB.
    fn default() -> Self {
        Self {
            streams: 4096,
            buffer: 65536,
        }
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer has opened a stream to a port that is listened on.
    Accepted {
        /// The stream.
        stream: StreamId,
        /// Our port.
        port: u32,
        /// The peer.
        peer: Address,
    },
    /// The stream that [`Vsock::connect`] began is open.
    Connected(StreamId),
    /// There is more to read, or the peer sends no more ([`Vsock::is_finished`]).
    Readable(StreamId),
    /// There is room again where a write did not take all.
    Writable(StreamId),
    /// The stream is over: nothing more comes or goes. What has arrived can be read until it is closed.
    Closed(StreamId),
    /// The machine was moved or restored (§5.10.6.7): all streams are over, each with an event of its own, and the context
    /// identifier may be another.
    Moved,
}

/// Sockets: streams of bytes to the host, from the host, or to wherever it passes them on.
///
/// One program on one processor serves thousands of them: it waits for an event, does what there is to do, and waits
/// again.
///
/// ```no_run
/// use goldcrest_guest::virtio::vsock::{Error, Event, Vsock};
///
/// /// Says on every stream what arrives on it.
/// fn echo(sockets: &mut Vsock) -> Result<(), Error> {
///     sockets.listen(7);
///     let mut bytes = [0; 4096];
///     while let Some(event) = sockets.wait(None)? {
///         match event {
///             Event::Readable(stream) | Event::Writable(stream) => loop {
///                 let unread = sockets.received(stream);
///                 let len = unread.len().min(bytes.len());
///                 bytes[..len].copy_from_slice(&unread[..len]);
///                 let written = match sockets.write(stream, &bytes[..len]) {
///                     Ok(written) => written,
///                     Err(Error::Ended) => break,
///                     Err(error) => return Err(error),
///                 };
///                 sockets.consume(stream, written);
///                 if written == 0 {
///                     if sockets.is_finished(stream) {
///                         sockets.close(stream);
///                     }
///                     break;
///                 }
///             },
///             Event::Closed(stream) => sockets.close(stream),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// Memory is bounded by the [`Limits`], whatever peers do. A peer that sends more than it was given credit for, claims to
/// have taken what was not sent, or sends what makes no sense where the stream is, has the stream reset. Neither it nor one
/// that reads nothing holds up the others.
///
/// What is written goes out with [`flush`](Self::flush) or [`wait`](Self::wait), many packets with one exit to the host.
#[derive(Debug)]
pub struct Vsock<R: Registers = Mmio> {
    /// First, so that the device is reset before memory that it uses is freed.
    transport: Transport<R>,
    receive: Buffers,
    transmit: Buffers,
    happenings: Buffers,
    cid: u64,
    limits: Limits,
    ports: BTreeSet<u32>,
    streams: Table,
    next_port: u32,
    /// What the program has not been told yet; each stream is in it once for each kind of event.
    events: VecDeque<Event>,
    /// Packets for which there was no room. While there are any nothing is received, so that they cannot become many.
    owed: VecDeque<Header>,
    /// Streams that wait for room in the queue.
    crowd: VecDeque<StreamId>,
    dropped: u64,
}

impl Vsock {
    /// Drives the machine's first socket device.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and those of [`new`](Self::new).
    pub fn first() -> Result<Self, Error> {
        Self::new(first(id::SOCKET)?, Limits::default())
    }

    /// Drives a socket device. It is reset first.
    ///
    /// # Errors
    ///
    /// If the device is no socket device, or none that this driver can drive.
    pub fn new(device: Device, limits: Limits) -> Result<Self, Error> {
        Self::with_registers(Mmio::new(device), limits)
    }
}

impl<R: Registers> Vsock<R> {
    /// Drives the socket device with these registers.
    ///
    /// # Errors
    ///
    /// Those of [`Vsock::new`].
    pub fn with_registers(registers: R, limits: Limits) -> Result<Self, Error> {
        let mut transport = Transport::start(registers, id::SOCKET, spec::F_STREAM)?;
        let receive = Buffers::new(&mut transport, spec::RECEIVE, PACKETS, RECEIVE_LEN)?;
        let transmit = Buffers::new(&mut transport, spec::TRANSMIT, PACKETS, TRANSMIT_LEN)?;
        let happenings = Buffers::new(&mut transport, spec::EVENT, EVENTS, EVENT_LEN)?;
        let cid = transport.config_u64(spec::GUEST_CID);
        transport.run();
        let mut vsock = Self {
            transport,
            receive,
            transmit,
            happenings,
            cid,
            limits,
            ports: BTreeSet::new(),
            streams: Table::new(limits.streams),
            next_port: DYNAMIC_PORTS.start,
            events: VecDeque::new(),
            owed: VecDeque::new(),
            crowd: VecDeque::new(),
            dropped: 0,
        };
        for buffers in [&mut vsock.receive, &mut vsock.happenings] {
            buffers.lend_all();
            vsock.transport.publish(buffers.queue());
        }
        Ok(vsock)
    }

    /// Our context identifier, by which peers know the machine.
    pub fn cid(&self) -> u64 {
        self.cid
    }

    /// Packets that were passed over, as they were for another machine.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Accepts streams to this port from now on.
    pub fn listen(&mut self, port: u32) {
        self.ports.insert(port);
    }

    /// Accepts no more streams to this port. Those that there are go on.
    pub fn unlisten(&mut self, port: u32) {
        self.ports.remove(&port);
    }

    /// Opens a stream to a peer. There will be [`Event::Connected`], or [`Event::Closed`] if the peer refuses.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there are as many streams as there may be, and if the device misbehaves.
    pub fn connect(&mut self, peer: Address) -> Result<StreamId, Error> {
        self.transport.check()?;
        self.make_place();
        if self.streams.is_full() || self.owed.len() > usize::from(PACKETS) {
            return Err(Error::Full);
        }
        let port = self.free_port(peer).ok_or(Error::Full)?;
        let local = Address {
            cid: self.cid,
            port,
        };
        let stream = Stream::new(local, peer, State::Connecting, self.limits.buffer);
        let id = self.streams.insert(stream)?;
        self.tell(id, op::REQUEST, 0)?;
        Ok(id)
    }

    /// What has happened next, if anything has.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn poll(&mut self) -> Result<Option<Event>, Error> {
        self.transport.check()?;
        // However fast packets arrive of which the program need not know, it is not kept waiting for ever.
        for _ in 0..=self.receive.size() {
            if let Some(event) = self.next_event() {
                return Ok(Some(event));
            }
            if !self.take_happenings()? && !self.take_packet()? {
                break;
            }
        }
        Ok(self.next_event())
    }

    /// Waits until something happens, or the time of [`now_ns`](crate::time::now_ns) reaches `deadline`: `None` then.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn wait(&mut self, deadline: Option<u64>) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.poll()? {
                return Ok(Some(event));
            }
            self.flush()?;
            // Without room to send, nothing that is received can be answered.
            let buffers = if self.has_room()? {
                &mut self.receive
            } else {
                &mut self.transmit
            };
            let queues = [buffers.queue(), self.happenings.queue()];
            if !self.transport.wait_for(queues, deadline)? {
                return self.poll();
            }
        }
    }

    /// Tells the device of all that was written, and of the buffers that it has back. Without this, it may or may not know.
    ///
    /// # Errors
    ///
    /// If the device misbehaves.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.transport.check()?;
        self.pay()?;
        for buffers in [&mut self.transmit, &mut self.receive, &mut self.happenings] {
            if buffers.queue().unpublished() != 0 {
                self.transport.publish(buffers.queue());
            }
        }
        Ok(())
    }

    /// Reads what has arrived, up to all of `bytes`. Gives how many: 0 if there is nothing now, or ever again
    /// ([`is_finished`](Self::is_finished)).
    pub fn read(&mut self, stream: StreamId, bytes: &mut [u8]) -> usize {
        let mut count = 0;
        while let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty()) {
            let unread = self.received(stream);
            let len = unread.len().min(rest.len());
            if len == 0 {
                break;
            }
            for (to, from) in rest.iter_mut().zip(unread) {
                *to = *from;
            }
            self.consume(stream, len);
            count += len;
        }
        count
    }

    /// What has arrived and was not read, in place: not always all of it, but none only if there is none.
    pub fn received(&self, stream: StreamId) -> &[u8] {
        let stream = self.streams.get(stream);
        stream.map_or(&[], |stream| stream.received.as_slices().0)
    }

    /// Takes so many bytes of what has arrived for read.
    pub fn consume(&mut self, stream: StreamId, len: usize) {
        let found = self.streams.get_mut(stream);
        if found.is_some_and(|found| found.consume(len)) {
            // An error is that of the device, which the next call that can tell has again.
            let _ = self.tell(stream, op::CREDIT_UPDATE, 0);
        }
    }

    /// Whether all that the peer ever sends has been read.
    pub fn is_finished(&self, stream: StreamId) -> bool {
        let stream = self.streams.get(stream);
        stream.is_none_or(|stream| stream.gives_no_more() && stream.received.is_empty())
    }

    /// Whether the stream ended before both sides were done: the peer was not there, refused, went, or misbehaved.
    pub fn is_reset(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.reset)
    }

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

    /// Says that no more is written: the peer reads the end after what was. The peer may write on.
    ///
    /// # Errors
    ///
    /// [`Error::NoStream`], and if the device misbehaves.
    pub fn shut_down(&mut self, stream: StreamId) -> Result<(), Error> {
        let found = self.streams.get_mut(stream).ok_or(Error::NoStream)?;
        if found.state != State::Open || found.shutdown & shutdown::SEND != 0 {
            return Ok(());
        }
        found.shutdown |= shutdown::SEND;
        self.tell(stream, op::SHUTDOWN, shutdown::SEND)
    }

    /// Gives a stream back. What was written still arrives; what was not read is lost. Does nothing for one that was given
    /// back before.
    pub fn close(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(stream) else {
            return;
        };
        match found.state {
            State::Closing => {}
            State::Closed => self.streams.remove(stream),
            State::Connecting => {
                let _ = self.tell(stream, op::RST, 0);
                self.streams.remove(stream);
            }
            State::Open => {
                found.state = State::Closing;
                found.received = VecDeque::new();
                // The peer confirms it by a reset (§5.10.6.6.1).
                let _ = self.tell(stream, op::SHUTDOWN, shutdown::BOTH);
                self.streams.note_closing(stream);
            }
        }
    }

    /// Gives a stream back and has the peer know that something went wrong: what was written may not arrive.
    pub fn reset(&mut self, stream: StreamId) {
        let found = self.streams.get(stream).map(|found| found.state);
        if matches!(found, Some(State::Open | State::Connecting)) {
            let _ = self.tell(stream, op::RST, 0);
        }
        if found.is_some_and(|state| state != State::Closing) {
            self.streams.remove(stream);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        while let Some(event) = self.events.pop_front() {
            let (Event::Readable(id) | Event::Writable(id)) = event else {
                return Some(event);
            };
            // A stream that was closed meanwhile is not the program's any more.
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            match event {
                Event::Readable(_) => stream.readable_told = false,
                _ => stream.writable_told = false,
            }
            if stream.state != State::Closing {
                return Some(event);
            }
        }
        None
    }

    /// Sends a packet of a stream without payload, now or as soon as there is room.
    fn tell(&mut self, stream: StreamId, op: u16, flags: u32) -> Result<(), Error> {
        if let Some(found) = self.streams.get_mut(stream) {
            let header = found.header(op, flags, 0);
            self.send(header)?;
        }
        Ok(())
    }

    /// Sends a packet without payload, now or as soon as there is room.
    fn send(&mut self, header: Header) -> Result<(), Error> {
        if self.has_room()? {
            lend(&mut self.transmit, &header);
        } else {
            self.owed.push_back(header);
        }
        Ok(())
    }

    /// Whether there is room for a packet, after those that are owed. The device may be told of what was sent before.
    fn has_room(&mut self) -> Result<bool, Error> {
        self.pay()?;
        Ok(self.owed.is_empty() && self.has_buffer()?)
    }

    /// Sends what is owed, as far as there is room.
    fn pay(&mut self) -> Result<(), Error> {
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

    /// Makes place for a stream, if one has to go whose peer does not say that it is gone.
    fn make_place(&mut self) {
        if self.streams.is_full()
            && let Some(oldest) = self.streams.oldest_closing()
        {
            let _ = self.tell(oldest, op::RST, 0);
            self.streams.remove(oldest);
        }
    }

    /// A port of ours from which there is no stream to this peer.
    fn free_port(&mut self, peer: Address) -> Option<u32> {
        for _ in DYNAMIC_PORTS {
            let port = self.next_port;
            let next = port.wrapping_add(1);
            let end = !DYNAMIC_PORTS.contains(&next);
            self.next_port = if end { DYNAMIC_PORTS.start } else { next };
            if self.streams.find(peer, port).is_none() && !self.ports.contains(&port) {
                return Some(port);
            }
        }
        None
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
