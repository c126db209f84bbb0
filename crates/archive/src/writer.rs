//! Making an archive.

use std::io::Write;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::{mem, thread};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::chunk::Head;
use crate::cipher::{TAG_LEN, encrypt};
use crate::header::{Header, ID_LEN};
use crate::{ArchiveError, Key, MAX_CHUNK, frame};

/// The most chunks that are compressed at once, which is the most that is in memory.
const MOST_AT_ONCE: usize = 16;

/// An archive that is being written. Chunks are compressed on as many threads as the host has CPUs for this process.
pub struct Writer<'a, W> {
    to: W,
    key: Option<&'a Key>,
    header: Header,
    /// What has been put and is not written yet.
    buffer: Vec<u8>,
    /// How much is compressed at once.
    capacity: usize,
    /// Chunks that are written.
    number: u64,
    /// Bytes that are written.
    written: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Begins one, which is encrypted if there is a key.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Write`] if `to` takes nothing, [`ArchiveError::Random`] if the host has no random numbers.
    pub fn new(to: W, key: Option<&'a Key>) -> Result<Self, ArchiveError> {
        let mut id = [0; ID_LEN];
        let mut left = &mut id[..];
        while !left.is_empty() {
            let len = getrandom(&mut *left, GetRandomFlags::empty());
            let len = len.map_err(|error| ArchiveError::Random(error.into()))?;
            left = left.get_mut(len..).unwrap_or_default();
        }
        Self::with_id(to, key, id)
    }

    /// As [`new`](Self::new), with an identity. No two archives may have the same identity and the same key: whoever has both
    /// can read them.
    ///
    /// # Errors
    ///
    /// As for that.
    pub fn with_id(
        mut to: W,
        key: Option<&'a Key>,
        id: [u8; ID_LEN],
    ) -> Result<Self, ArchiveError> {
        let header = Header::new(id, key)?;
        to.write_all(&header.0).map_err(ArchiveError::Write)?;
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            to,
            key,
            buffer: Vec::new(),
            capacity: cpus.min(MOST_AT_ONCE) * MAX_CHUNK,
            number: 0,
            written: header.0.len() as u64,
            header,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Write`] if they cannot be written; the archive is of no use then.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            if self.buffer.len() == self.capacity {
                self.chunks(false)?;
            }
            let len = bytes.len().min(self.capacity - self.buffer.len());
            let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            self.buffer.extend_from_slice(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Writes the last chunk, and gives back what it was written to, which is flushed.
    ///
    /// # Errors
    ///
    /// As for [`put`](Self::put).
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.chunks(true)?;
        self.to.flush().map_err(ArchiveError::Write)?;
        Ok(self.to)
    }

    /// Bytes of the archive that are written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Compresses what has been put, and writes it; with the last of all chunks, which may be empty.
    fn chunks(&mut self, last: bool) -> Result<(), ArchiveError> {
        let buffer = mem::take(&mut self.buffer);
        let (first, rest) = buffer.split_at(buffer.len().min(MAX_CHUNK));
        let frames: Vec<_> = thread::scope(|scope| {
            let start = |chunk| {
                let thread = thread::Builder::new().spawn_scoped(scope, move || frame::pack(chunk));
                (chunk, thread)
            };
            let others: Vec<_> = rest.chunks(MAX_CHUNK).map(start).collect();
            let first = (first.len(), frame::pack(first));
            let others = others.into_iter().map(|(chunk, thread)| {
                let frame = match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    // The host has no thread for it.
                    Err(_) => frame::pack(chunk),
                };
                (chunk.len(), frame)
            });
            std::iter::once(first).chain(others).collect()
        });
        let count = frames.len();
        for (at, (len, frame)) in frames.into_iter().enumerate() {
            self.chunk(len, frame, last && at + 1 == count)?;
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// Writes a chunk of so many bytes.
    fn chunk(&mut self, len: usize, mut stored: Vec<u8>, last: bool) -> Result<(), ArchiveError> {
        let number = self.number;
        let too_large = |_| ArchiveError::TooLarge;
        let tag = self.key.map_or(0, |_| TAG_LEN);
        let mut head = Head {
            stored: u32::try_from(stored.len() + tag).map_err(too_large)?,
            len: u32::try_from(len).map_err(too_large)?,
            last,
            sum: 0,
        };
        match self.key {
            None => head.sum = head.sum_of(&self.header, number, &stored),
            Some(key) => {
                let associated = head.associated(&self.header);
                let which = (&self.header.id(), number, last);
                encrypt(key, which, &associated, &mut stored)
                    .ok_or(ArchiveError::Encrypt(number))?;
            }
        }
        for bytes in [&head.to_bytes()[..], &stored] {
            self.to.write_all(bytes).map_err(ArchiveError::Write)?;
            self.written += bytes.len() as u64;
        }
        self.number += 1;
        Ok(())
    }
}
