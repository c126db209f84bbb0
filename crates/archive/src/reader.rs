//! Reading an archive.

use std::io::{self, ErrorKind, Read};

use ruzstd::decoding::FrameDecoder;

use crate::chunk::{HEAD_LEN, Head};
use crate::cipher::decrypt;
use crate::header::{self, Header};
use crate::{ArchiveError, Key, MAGIC, frame};

/// An archive that is being read. Nothing of a chunk is given out before all of it was checked.
pub struct Reader<'a, R> {
    from: R,
    key: Option<&'a Key>,
    header: Header,
    decoder: FrameDecoder,
    /// The last chunk that was read.
    buffer: Vec<u8>,
    /// How much of it was given out.
    taken: usize,
    /// Chunks that were read.
    number: u64,
    /// Whether the last one was the archive's.
    ended: bool,
}

impl<'a, R: Read> Reader<'a, R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if it is none or is damaged, if a key is needed or another one, or if one was given for an archive
    /// that is not encrypted.
    pub fn new(mut from: R, key: Option<&'a Key>) -> Result<Self, ArchiveError> {
        let mut bytes = [0; header::LEN];
        let len = fill(&mut from, &mut bytes).map_err(ArchiveError::Read)?;
        let header = Header(bytes);
        if len < header::LEN {
            let begins = len >= MAGIC.len() && bytes.starts_with(&MAGIC);
            return Err(match begins {
                true => ArchiveError::Truncated(0),
                false => ArchiveError::Magic,
            });
        }
        header.check(key)?;
        Ok(Self {
            from,
            key,
            header,
            decoder: frame::decoder(),
            buffer: Vec::new(),
            taken: 0,
            number: 0,
            ended: false,
        })
    }

    /// Reads all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if a chunk is not as it was written, or there are fewer bytes.
    pub fn take(&mut self, mut bytes: &mut [u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let left = self.buffer.get(self.taken..).unwrap_or_default();
            if left.is_empty() {
                if self.ended {
                    return Err(ArchiveError::TooShort);
                }
                self.chunk()?;
                continue;
            }
            let len = left.len().min(bytes.len());
            let (now, rest) = bytes.split_at_mut(len);
            now.copy_from_slice(left.get(..len).unwrap_or_default());
            self.taken += len;
            bytes = rest;
        }
        Ok(())
    }

    /// Looks whether that was all, and gives back what it was read from.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Trailing`] if there is more, [`ArchiveError::Truncated`] if the last chunk is missing.
    pub fn finish(mut self) -> Result<R, ArchiveError> {
        if self.taken < self.buffer.len() {
            return Err(ArchiveError::Trailing);
        }
        if !self.ended {
            self.chunk()?;
        }
        if !self.ended || !self.buffer.is_empty() && self.taken == 0 {
            return Err(ArchiveError::Trailing);
        }
        let behind = fill(&mut self.from, &mut [0]).map_err(ArchiveError::Read)?;
        match behind {
            0 => Ok(self.from),
            _ => Err(ArchiveError::Trailing),
        }
    }

    fn chunk(&mut self) -> Result<(), ArchiveError> {
        let number = self.number;
        let damaged = |what| ArchiveError::Chunk {
            chunk: number,
            what,
        };
        let mut head = [0; HEAD_LEN];
        self.exactly(&mut head)?;
        let head = Head::parse(&head).map_err(damaged)?;
        let len = |len: u32| usize::try_from(len).unwrap_or_default();
        let mut stored = vec![0; len(head.stored)];
        self.exactly(&mut stored)?;
        match self.key {
            None => {
                let expected = head.sum_of(&self.header, number, &stored);
                let found = head.sum;
                if found != expected {
                    return Err(damaged(format!(
                        "checksum is {found:#010x}, should be {expected:#010x}"
                    )));
                }
            }
            Some(key) => {
                let associated = head.associated(&self.header);
                let which = (&self.header.id(), number, head.last);
                decrypt(key, which, &associated, &mut stored)
                    .ok_or_else(|| damaged("it is not what was encrypted".into()))?;
            }
        }
        self.buffer.clear();
        self.taken = 0;
        self.buffer.resize(len(head.len), 0);
        let unpacked = frame::unpack(&mut self.decoder, &stored, &mut self.buffer);
        if unpacked.is_err() {
            self.buffer.clear();
        }
        unpacked.map_err(damaged)?;
        // One in the middle is full, so that nobody can have a reader look at nothing for long.
        if self.buffer.len() < crate::MAX_CHUNK && !head.last {
            let len = self.buffer.len();
            return Err(damaged(format!("has {len} bytes and is not the last one")));
        }
        self.number += 1;
        self.ended = head.last;
        Ok(())
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        let len = fill(&mut self.from, bytes).map_err(ArchiveError::Read)?;
        match len == bytes.len() {
            true => Ok(()),
            false => Err(ArchiveError::Truncated(self.number)),
        }
    }
}

/// Reads until `bytes` is full, or there is no more.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(left) = bytes.get_mut(done..).filter(|left| !left.is_empty()) {
        match from.read(left) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
