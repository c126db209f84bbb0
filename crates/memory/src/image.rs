//! Guest RAM in a file: written sparsely, mapped instead of read.
//!
//! An image has the bytes of RAM, region after region without the hole between them, so that a page's place is a
//! multiple of the page size; pages of zeros are holes. A trailer of one page follows, by which it is known which state
//! of a machine the image belongs to.
//!
//! | bytes from the end of RAM | what |
//! |---|---|
//! | 0 | `GCMEMORY` |
//! | 8 | version, 4 bytes: 1 |
//! | 12 | 0, 4 bytes |
//! | 16 | the image's identity: 16 random bytes |
//! | 32 | bytes of RAM, 8 bytes |
//! | 40 | CRC-32 (IEEE) of the 40 bytes before, 4 bytes |
//! | 44 | zeros, to the end of the page |
//!
//! Numbers are little-endian. RAM itself has a checksum for each [`CHUNK`], kept with the state: the CRC-32 of each page
//! of it that is not all zeros, with its number in the image as 8 bytes before it.
//!
//! An image can be the *difference* to another: it has the pages that have changed since then, at the same places, and
//! holes for all others. Which pages it has is said by [`Extents`], kept with the state: those of them that are holes are
//! zeros. [`Layers`] are an image and the differences to it, put together.

mod extents;
mod layers;
mod pages;
mod sink;
mod trailer;
mod verify;
mod write;

use std::fs::File;

pub use extents::{Extent, Extents, MAX_EXTENTS};
pub use layers::Layers;
pub(crate) use pages::{PageMap, mark_behind};
pub use sink::{ImageSink, Written};
pub use trailer::{ImageId, check};
pub use verify::verify;
pub use write::{Changes, merge, read, write, write_changes};

use crate::PAGE_SIZE;

/// Bytes of RAM that have a checksum together.
pub const CHUNK: u64 = 16 << 20;

/// Bytes of an image of so much RAM.
pub const fn file_len(size: u64) -> u64 {
    size.saturating_add(PAGE_SIZE)
}

/// The bytes of a page.
type Page = [u8; 4096];
const _: () = assert!(size_of::<Page>() as u64 == PAGE_SIZE);

/// Checksum of the pages of one chunk that are not zeros.
struct ChunkSum(crc32fast::Hasher);

impl ChunkSum {
    fn new() -> Self {
        Self(crc32fast::Hasher::new())
    }

    fn add(&mut self, number: u64, page: &Page) {
        self.0.update(&number.to_le_bytes());
        self.0.update(page);
    }

    fn finish(self) -> u32 {
        self.0.finalize()
    }
}

fn is_zero(page: &Page) -> bool {
    let (words, _) = page.as_chunks::<64>();
    // In steps that the processor does at once.
    words.iter().all(|word| *word == [0; 64])
}

/// The number of chunks of so much RAM.
fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK)
}

/// Where the next bytes of a file are that are not a hole, from `offset`; nothing if there are none.
fn next_data(file: &File, offset: u64) -> std::io::Result<Option<u64>> {
    crate::mapping::seek(file, offset, libc::SEEK_DATA)
}

/// Where the next hole is, from `offset`, which is not in one: the file's end is one.
fn next_hole(file: &File, offset: u64) -> std::io::Result<Option<u64>> {
    crate::mapping::seek(file, offset, libc::SEEK_HOLE)
}
