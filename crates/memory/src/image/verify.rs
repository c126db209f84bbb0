//! Comparing an image with its checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CHUNK, ChunkSum, Page, chunks, is_zero, next_data, next_hole};
use crate::{MemoryError, PAGE_SIZE};

/// Reads all of the image of `size` bytes of RAM, and compares it with the checksums that
/// [`write()`](super::write()) gave.
///
/// # Errors
///
/// [`MemoryError::NotTheImage`] for the first chunk that has other bytes, [`MemoryError::Image`] if it cannot be read.
pub fn verify(file: &File, size: u64, checksums: &[u32]) -> Result<(), MemoryError> {
    if checksums.len() as u64 != chunks(size) {
        return Err(MemoryError::NotTheImage(format!(
            "has {} chunks, and there are {} checksums",
            chunks(size),
            checksums.len()
        )));
    }
    let mut buffer = vec![0; size_of::<Page>() * 256];
    for (number, expected) in (0..).zip(checksums) {
        let start = number * CHUNK;
        let end = size.min(start + CHUNK);
        let found = chunk(file, start, end, &mut buffer).map_err(|source| MemoryError::Image {
            what: "read",
            source,
        })?;
        if found != *expected {
            return Err(MemoryError::NotTheImage(format!(
                "is damaged between offsets {start:#x} and {end:#x}: checksum is {found:#010x}, should be \
                 {expected:#010x}"
            )));
        }
    }
    Ok(())
}

fn chunk(file: &File, start: u64, end: u64, buffer: &mut [u8]) -> io::Result<u32> {
    let mut sum = ChunkSum::new();
    let mut at = start;
    while let Some(data) = next_data(file, at)?.filter(|data| *data < end) {
        // A file system may have larger holes and data than pages are, and smaller ones.
        at = (data / PAGE_SIZE * PAGE_SIZE).max(at);
        let hole = next_hole(file, data)?.unwrap_or(end);
        let stop = hole.next_multiple_of(PAGE_SIZE).min(end);
        while at < stop {
            let len =
                usize::try_from(stop - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            file.read_exact_at(bytes, at)?;
            let (pages, _) = bytes.as_chunks::<{ size_of::<Page>() }>();
            for (page, number) in pages.iter().zip(at / PAGE_SIZE..) {
                if !is_zero(page) {
                    sum.add(number, page);
                }
            }
            at += len as u64;
        }
        if at >= end {
            break;
        }
    }
    Ok(sum.finish())
}
