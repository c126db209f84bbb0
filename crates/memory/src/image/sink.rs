//! Where pages go: a file that has holes for those that are zeros, and the checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CHUNK, ChunkSum, Page, chunks, file_len, is_zero};
use crate::PAGE_SIZE;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of RAM that are not holes.
    pub bytes: u64,
    /// A checksum for each [`CHUNK`].
    pub checksums: Vec<u32>,
}

/// An image that is being written.
pub(super) struct Sink<'a> {
    file: &'a File,
    bytes: u64,
    sums: Vec<ChunkSum>,
}

impl<'a> Sink<'a> {
    /// An image of `size` bytes of RAM, in an empty file.
    pub(super) fn new(file: &'a File, size: u64) -> io::Result<Self> {
        file.set_len(file_len(size))?;
        Ok(Self {
            file,
            bytes: 0,
            sums: (0..chunks(size)).map(|_| ChunkSum::new()).collect(),
        })
    }

    /// Writes those of the pages that are not zeros. Nothing behind `offset` was written before.
    pub(super) fn put(&mut self, offset: u64, pages: &[Page]) -> io::Result<()> {
        let mut first = 0;
        for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let at = offset + first as u64 * PAGE_SIZE;
            if run.first().is_some_and(|page| !is_zero(page)) {
                self.file.write_all_at(run.as_flattened(), at)?;
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
