//! A port whose other end is in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::PortBackend;

/// A port for tests and fuzzers. Clones are the same port: one for the device, another to play who is at its end.
///
/// It has no descriptors: the device looks at it when its events are processed.
#[derive(Debug, Clone)]
pub struct MemoryPort(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    input: VecDeque<u8>,
    output: VecDeque<u8>,
    capacity: usize,
    ended: bool,
    open: bool,
}

impl MemoryPort {
    /// An open port that holds up to `capacity` bytes of output; input has no limit.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            input: VecDeque::with_capacity(capacity),
            output: VecDeque::with_capacity(capacity),
            capacity,
            ended: false,
            open: true,
        })))
    }

    /// Adds input for the guest.
    pub fn give_input(&self, bytes: &[u8]) {
        self.inner().input.extend(bytes);
    }

    /// How much input the guest has not taken yet, in bytes.
    pub fn input_left(&self) -> usize {
        self.inner().input.len()
    }

    /// There is no more input after what was given.
    pub fn end_input(&self) {
        self.inner().ended = true;
    }

    /// Takes all output that there is.
    pub fn take_output(&self) -> Vec<u8> {
        self.inner().output.drain(..).collect()
    }

    /// Drops up to `count` bytes of output. Returns how many there were.
    pub fn drop_output(&self, count: usize) -> usize {
        let mut inner = self.inner();
        let count = count.min(inner.output.len());
        inner.output.drain(..count);
        count
    }

    /// Somebody comes to its end, or goes away.
    pub fn set_open(&self, open: bool) {
        self.inner().open = open;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortBackend for MemoryPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let room = inner.capacity.saturating_sub(inner.output.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = room.min(bytes.len());
        inner.output.extend(bytes.iter().take(count));
        Ok(count)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let count = bytes.len().min(inner.input.len());
        if count == 0 && !inner.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in bytes.iter_mut().zip(inner.input.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn is_open(&self) -> bool {
        self.inner().open
    }
}
