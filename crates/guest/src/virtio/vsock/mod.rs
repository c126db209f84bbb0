//! Sockets between a machine and its host (virtio 1.3 §5.10).

mod event;
mod incoming;
mod outgoing;
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
pub use event::{Address, Event, HOST_CID, Limits, StreamId};
use spec::{Header, op, shutdown};
use stream::{State, Stream};
use table::Table;

/// Packets that are on their way at once, and the bytes of their buffers.
const PACKETS: u16 = 64;
const RECEIVE_LEN: usize = 16384;
const TRANSMIT_LEN: usize = 16384;
/// Buffers for events, and their bytes.
const EVENTS: u16 = 4;
const EVENT_LEN: usize = 64;

/// Our ports of streams that we open: the dynamic ones of RFC 6335, for want of others.
const DYNAMIC_PORTS: core::ops::Range<u32> = 49152..65536;

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
///     while let Some(event) = sockets.wait(None)? {
///         match event {
///             Event::Readable(stream) | Event::Writable(stream) => match sockets.forward(stream, stream) {
///                 Ok(_) if sockets.is_finished(stream) => sockets.close(stream),
///                 Ok(_) | Err(Error::Ended) => {}
///                 Err(error) => return Err(error),
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
