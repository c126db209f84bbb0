//! Where a guest's pages go.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use goldcrest_memory::Contents;
use goldcrest_virtio::Ram;

/// Takes pages that the guest does not need.
pub trait Pages: Send {
    /// Takes the whole pages of `len` bytes from guest-physical `start`, as far as they are RAM: until the guest touches
    /// them, they cost nothing. Returns how many bytes it has taken.
    ///
    /// # Errors
    ///
    /// What the host says. Pages that are not taken are the guest's as before; the device goes on.
    fn discard(
        &mut self,
        ram: Ram<'_>,
        start: u64,
        len: u64,
        contents: Contents,
    ) -> io::Result<u64>;
}

impl<P: Pages + ?Sized> Pages for Box<P> {
    fn discard(
        &mut self,
        ram: Ram<'_>,
        start: u64,
        len: u64,
        contents: Contents,
    ) -> io::Result<u64> {
        (**self).discard(ram, start, len, contents)
    }
}

/// Gives them to the host's kernel: see [`goldcrest_memory::discard`].
#[derive(Debug, Clone, Copy, Default)]
pub struct HostPages;

impl Pages for HostPages {
    fn discard(
        &mut self,
        ram: Ram<'_>,
        start: u64,
        len: u64,
        contents: Contents,
    ) -> io::Result<u64> {
        goldcrest_memory::discard(ram.memory(), start, len, contents)
    }
}

/// Takes nothing, and writes down what it was to take. Clones have the same list. For tests and fuzzers.
#[derive(Debug, Clone, Default)]
pub struct RecordedPages(Arc<Mutex<Vec<(u64, u64, Contents)>>>);

impl RecordedPages {
    /// Start, length and contents of all that was to be taken since this was last asked.
    pub fn take(&self) -> Vec<(u64, u64, Contents)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pages for RecordedPages {
    fn discard(
        &mut self,
        _ram: Ram<'_>,
        start: u64,
        len: u64,
        contents: Contents,
    ) -> io::Result<u64> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((start, len, contents));
        Ok(len)
    }
}
