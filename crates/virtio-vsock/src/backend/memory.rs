//! A host whose programs are in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Backend, Event, Parts};

/// A host for tests and fuzzers. Clones are the same host: one for the device, another to play its programs.
///
/// It has no descriptors: the device looks at it when its events are processed.
#[derive(Debug, Clone, Default)]
pub struct MemoryHost(Arc<Mutex<Host>>);

#[derive(Debug, Default)]
struct Host {
    /// Ports that somebody listens on.
    listening: BTreeMap<u32, Listener>,
    /// Connections for the guest.
    connecting: VecDeque<(MemoryStream, u32)>,
    /// Those that the device watches, in which something may have happened.
    watched: Vec<(u64, MemoryStream)>,
    /// Which of them is looked at next.
    next: usize,
}

#[derive(Debug, Default)]
struct Listener {
    /// Connections to be accepted.
    waiting: VecDeque<MemoryStream>,
    /// How many there may be.
    backlog: usize,
    /// How many bytes each has room for.
    capacity: usize,
}

/// A program's end of a stream. Clones are the same end; dropping it does not close it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStream(Arc<Mutex<Pipes>>);

#[derive(Debug, Default)]
struct Pipes {
    to_guest: VecDeque<u8>,
    to_program: VecDeque<u8>,
    /// How many bytes the program has room for.
    capacity: usize,
    /// The program will send no more, receive no more; the guest will not.
    program_sends_no_more: bool,
    program_receives_no_more: bool,
    guest_sends_no_more: bool,
    guest_receives_no_more: bool,
    /// The host's port by which the guest knows it.
    accepted: Option<u32>,
    closed: bool,
    changed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryHost {
    /// Somebody listens on a port of the host's, lets `backlog` connections wait, and has room for `capacity` bytes of
    /// each.
    pub fn listen(&self, port: u32, backlog: usize, capacity: usize) {
        let listener = Listener {
            waiting: VecDeque::new(),
            backlog,
            capacity,
        };
        lock(&self.0).listening.insert(port, listener);
    }

    /// Who listens accepts a connection, if there is one.
    pub fn accept(&self, port: u32) -> Option<MemoryStream> {
        let mut host = lock(&self.0);
        host.listening.get_mut(&port)?.waiting.pop_front()
    }

    /// A program connects with a port of the guest's; it has room for `capacity` bytes.
    pub fn connect(&self, port: u32, capacity: usize) -> MemoryStream {
        let stream = MemoryStream::new(capacity);
        let mut host = lock(&self.0);
        host.connecting.push_back((stream.clone(), port));
        stream
    }
}

impl MemoryStream {
    fn new(capacity: usize) -> Self {
        let pipes = Pipes {
            capacity,
            ..Pipes::default()
        };
        Self(Arc::new(Mutex::new(pipes)))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pipes) -> T) -> T {
        let mut pipes = lock(&self.0);
        pipes.changed = true;
        change(&mut pipes)
    }

    /// The program sends.
    pub fn send(&self, bytes: &[u8]) {
        self.change(|pipes| pipes.to_guest.extend(bytes));
    }

    /// The program takes up to `count` bytes that it was sent.
    pub fn receive(&self, count: usize) -> Vec<u8> {
        self.change(|pipes| {
            let count = count.min(pipes.to_program.len());
            pipes.to_program.drain(..count).collect()
        })
    }

    /// Drops up to `count` bytes that the program was sent. Returns how many there were.
    pub fn skip(&self, count: usize) -> usize {
        self.change(|pipes| {
            let count = count.min(pipes.to_program.len());
            pipes.to_program.drain(..count);
            count
        })
    }

    /// How many bytes the guest has not taken yet.
    pub fn unsent(&self) -> usize {
        lock(&self.0).to_guest.len()
    }

    /// The program will send no more.
    pub fn end_sending(&self) {
        self.change(|pipes| pipes.program_sends_no_more = true);
    }

    /// The program will receive no more.
    pub fn end_receiving(&self) {
        self.change(|pipes| pipes.program_receives_no_more = true);
    }

    /// The program closes its end.
    pub fn close(&self) {
        self.change(|pipes| {
            pipes.program_sends_no_more = true;
            pipes.program_receives_no_more = true;
        });
    }

    /// The host's port by which the guest knows it, once it has accepted.
    pub fn accepted(&self) -> Option<u32> {
        lock(&self.0).accepted
    }

    /// Whether the guest will send no more.
    pub fn has_ended(&self) -> bool {
        let pipes = lock(&self.0);
        pipes.guest_sends_no_more || pipes.closed
    }

    /// Whether the guest will receive no more.
    pub fn is_refused(&self) -> bool {
        let pipes = lock(&self.0);
        pipes.guest_receives_no_more || pipes.closed
    }

    /// Whether the device has closed its end.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }
}

/// The device's end of a stream.
#[derive(Debug)]
pub struct MemoryEnd(MemoryStream);

impl Drop for MemoryEnd {
    fn drop(&mut self) {
        lock(&self.0.0).closed = true;
    }
}

impl MemoryEnd {
    fn room(&self) -> io::Result<usize> {
        let pipes = lock(&self.0.0);
        if pipes.program_receives_no_more {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match pipes.capacity.saturating_sub(pipes.to_program.len()) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            room => Ok(room),
        }
    }
}

impl Backend for MemoryHost {
    type Stream = MemoryEnd;

    fn next_event(&mut self, _now: Duration) -> Option<Event<MemoryEnd>> {
        let mut host = lock(&self.0);
        if let Some((stream, port)) = host.connecting.pop_front() {
            return Some(Event::Connect(MemoryEnd(stream), port));
        }
        host.watched.retain(|(_, stream)| !stream.is_closed());
        while let Some((token, stream)) = host.watched.get(host.next).cloned() {
            host.next += 1;
            let mut pipes = lock(&stream.0);
            if std::mem::take(&mut pipes.changed) {
                return Some(Event::Stream {
                    token,
                    readable: !pipes.to_guest.is_empty() || pipes.program_sends_no_more,
                    writable: true,
                    ended: pipes.program_sends_no_more,
                    hung_up: pipes.program_sends_no_more && pipes.program_receives_no_more,
                });
            }
        }
        host.next = 0;
        None
    }

    fn connect(&mut self, port: u32) -> io::Result<MemoryEnd> {
        let mut host = lock(&self.0);
        let Some(listener) = host.listening.get_mut(&port) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if listener.waiting.len() >= listener.backlog {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let stream = MemoryStream::new(listener.capacity);
        listener.waiting.push_back(stream.clone());
        Ok(MemoryEnd(stream))
    }

    fn watch(&mut self, stream: &mut MemoryEnd, token: u64) -> io::Result<()> {
        stream.0.change(|_| ());
        let mut host = lock(&self.0);
        host.watched.push((token, stream.0.clone()));
        Ok(())
    }

    fn accepted(&mut self, stream: &mut MemoryEnd, port: u32) {
        lock(&stream.0.0).accepted = Some(port);
    }

    fn receive(&mut self, stream: &mut MemoryEnd, parts: Parts<'_>) -> io::Result<usize> {
        let mut pipes = lock(&stream.0.0);
        let mut count = 0;
        for slice in parts {
            let slice = slice?;
            if pipes.to_guest.is_empty() {
                break;
            }
            let bytes = pipes.to_guest.make_contiguous();
            let len = bytes.len().min(slice.len());
            slice.copy_from(bytes.get(..len).unwrap_or_default());
            pipes.to_guest.drain(..len);
            count += len;
        }
        match count {
            0 if pipes.program_sends_no_more => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn send(&mut self, stream: &mut MemoryEnd, parts: Parts<'_>) -> io::Result<usize> {
        let room = stream.room()?;
        let mut pipes = lock(&stream.0.0);
        let mut count = 0;
        for slice in parts {
            let slice = slice?;
            let before = pipes.to_program.len();
            let len = slice.len().min(room - count);
            pipes.to_program.resize(before + len, 0);
            let bytes = pipes.to_program.make_contiguous();
            slice.copy_to(bytes.get_mut(before..).unwrap_or_default());
            count += len;
            if count == room {
                break;
            }
        }
        Ok(count)
    }

    fn send_bytes(&mut self, stream: &mut MemoryEnd, bytes: &[u8]) -> io::Result<usize> {
        let count = stream.room()?.min(bytes.len());
        let mut pipes = lock(&stream.0.0);
        pipes.to_program.extend(bytes.iter().take(count));
        Ok(count)
    }

    fn end_sending(&mut self, stream: &mut MemoryEnd) {
        lock(&stream.0.0).guest_sends_no_more = true;
    }

    fn end_receiving(&mut self, stream: &mut MemoryEnd) {
        lock(&stream.0.0).guest_receives_no_more = true;
    }
}
