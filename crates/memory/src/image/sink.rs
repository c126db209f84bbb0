//! Where pages go: a file that has holes for those that are zeros, and the checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CHUNK, ChunkSum, ImageId, Page, chunks, file_len, is_zero, trailer};
use crate::{MemoryError, PAGE_SIZE};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of RAM that are not holes.
    pub bytes: u64,
    /// A checksum for each [`CHUNK`].
    pub checksums: Vec<u32>,
}

impl Written {
    /// Whether the checksums of `size` bytes of RAM are those that it should have.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NotTheImage`] for the first chunk that has another one.
    pub fn check(&self, size: u64, checksums: &[u32]) -> Result<(), MemoryError> {
        if self.checksums.len() != checksums.len() {
            return Err(MemoryError::NotTheImage(format!(
                "has {} chunks, and there are {} checksums",
                self.checksums.len(),
                checksums.len()
            )));
        }
        let mut both = (0..).zip(self.checksums.iter().zip(checksums));
        let Some((number, (found, expected))) =
            both.find(|(_, (found, expected))| found != expected)
        else {
            return Ok(());
        };
        let start: u64 = number * CHUNK;
        let end = size.min(start.saturating_add(CHUNK));
        Err(MemoryError::NotTheImage(format!(
            "is damaged between offsets {start:#x} and {end:#x}: checksum is {found:#010x}, should be {expected:#010x}"
        )))
    }
}

/// An image that is put together from runs of pages, in their order; or only its checksums.
pub struct ImageSink<'a> {
    sink: Sink<'a>,
    size: u64,
    /// Where the next pages may lie.
    next: u64,
}

impl<'a> ImageSink<'a> {
    /// An image of `size` bytes of RAM, in an empty file if there is one.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Image`] if the file cannot be made as long.
    pub fn new(file: Option<&'a File>, size: u64) -> Result<Self, MemoryError> {
        let sink = match file {
            Some(file) => Sink::new(file, size).map_err(cannot_write)?,
            None => Sink::of(None, size),
        };
        Ok(Self {
            sink,
            size,
            next: 0,
        })
    }

    /// Appends whole pages, which lie at `offset`; zeros become holes.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Extents`] if they do not lie on pages, behind those before, and in RAM; [`MemoryError::Image`] if they
    /// cannot be written.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let len = bytes.len() as u64;
        let (pages, rest) = bytes.as_chunks();
        let end = offset.checked_add(len).filter(|end| *end <= self.size);
        let (Some(end), true, true) = (end, rest.is_empty(), offset >= self.next) else {
            let limit = "are not pages of RAM behind those before";
            return Err(MemoryError::Extents {
                start: offset,
                len,
                limit,
            });
        };
        if !offset.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::Extents {
                start: offset,
                len,
                limit: "do not begin with a page",
            });
        }
        self.next = end;
        self.sink.put(offset, pages).map_err(cannot_write)
    }

    /// Ends the image, which has the identity `id`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Image`] if its trailer cannot be written.
    pub fn finish(self, id: ImageId) -> Result<Written, MemoryError> {
        if let Some(file) = self.sink.file {
            trailer::write(file, self.size, id).map_err(cannot_write)?;
        }
        Ok(self.sink.finish())
    }
}

fn cannot_write(source: io::Error) -> MemoryError {
    MemoryError::Image {
        what: "write",
        source,
    }
}

/// An image that is being written.
pub(super) struct Sink<'a> {
    /// Nothing if only the checksums are wanted.
    file: Option<&'a File>,
    bytes: u64,
    sums: Vec<ChunkSum>,
}

impl<'a> Sink<'a> {
    /// An image of `size` bytes of RAM, in an empty file.
    pub(super) fn new(file: &'a File, size: u64) -> io::Result<Self> {
        file.set_len(file_len(size))?;
        Ok(Self::of(Some(file), size))
    }

    fn of(file: Option<&'a File>, size: u64) -> Self {
        Self {
            file,
            bytes: 0,
            sums: (0..chunks(size)).map(|_| ChunkSum::new()).collect(),
        }
    }

    /// Writes those of the pages that are not zeros. Nothing behind `offset` was written before.
    pub(super) fn put(&mut self, offset: u64, pages: &[Page]) -> io::Result<()> {
        let mut first = 0;
        for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let at = offset + first as u64 * PAGE_SIZE;
            if run.first().is_some_and(|page| !is_zero(page)) {
                if let Some(file) = self.file {
                    file.write_all_at(run.as_flattened(), at)?;
                }
                self.bytes += std::mem::size_of_val(run) as u64;
                for (page, number) in run.iter().zip(at / PAGE_SIZE..) {
                    let chunk = usize::try_from(number * PAGE_SIZE / CHUNK);
                    let sum = chunk.ok().and_then(|chunk| self.sums.get_mut(chunk));
                    if let Some(sum) = sum {
                        sum.add(number, page);
                    }
                }
            }
            first += run.len();
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Written {
        Written {
            bytes: self.bytes,
            checksums: self.sums.into_iter().map(ChunkSum::finish).collect(),
        }
    }
}
