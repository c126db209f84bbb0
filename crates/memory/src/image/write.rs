//! Writing an image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress};

use super::pages::{PageMap, mark_behind};
use super::{CHUNK, ChunkSum, ImageId, Page, chunks, file_len, is_zero, trailer};
use crate::{GuestRam, MemoryError, PAGE_SIZE};

/// Pages that are looked at together.
const BATCH: usize = 256;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of RAM that are not holes.
    pub bytes: u64,
    /// A checksum for each [`CHUNK`].
    pub checksums: Vec<u32>,
}

/// Writes RAM, which nobody changes meanwhile, to an empty file.
///
/// # Errors
///
/// [`MemoryError::Image`] if the file cannot be written.
pub fn write(ram: &GuestRam, file: &File, id: ImageId) -> Result<Written, MemoryError> {
    write_to(ram, file, id).map_err(|source| MemoryError::Image {
        what: "write",
        source,
    })
}

fn write_to(ram: &GuestRam, file: &File, id: ImageId) -> io::Result<Written> {
    let size = ram.size();
    file.set_len(file_len(size))?;
    let mut writer = Writer {
        ram,
        file,
        map: PageMap::open(),
        buffer: vec![0; BATCH * size_of::<Page>()],
        written: Written::default(),
        sums: Vec::new(),
    };
    for _ in 0..chunks(size) {
        writer.sums.push(ChunkSum::new());
    }
    let mut offset = 0;
    for region in ram.memory().iter() {
        writer.region(region, offset)?;
        offset += region.len();
    }
    trailer::write(file, size, id)?;
    let Writer {
        mut written, sums, ..
    } = writer;
    written.checksums = sums.into_iter().map(ChunkSum::finish).collect();
    Ok(written)
}

struct Writer<'a> {
    ram: &'a GuestRam,
    file: &'a File,
    map: PageMap,
    buffer: Vec<u8>,
    written: Written,
    sums: Vec<ChunkSum>,
}

impl Writer<'_> {
    /// A region, whose bytes are at `offset` of the file.
    fn region(&mut self, region: &GuestRegionMmap, offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < region.len() {
            let len = CHUNK.min(region.len() - done);
            let count = usize::try_from(len / PAGE_SIZE).map_err(io::Error::other)?;
            let mut pages = vec![false; count];
            self.mark(region, done, &mut pages)?;
            self.pages(region, done, offset + done, &pages)?;
            done += len;
        }
        Ok(())
    }

    /// Marks the pages from `from` of the region that may be anything but zeros.
    fn mark(&self, region: &GuestRegionMmap, from: u64, pages: &mut [bool]) -> io::Result<()> {
        let host = region
            .get_host_address(MemoryRegionAddress(from))
            .map_err(io::Error::other)?;
        if !self.map.mark(host.addr() as u64, pages, false) {
            pages.fill(true);
            return Ok(());
        }
        let start = region.start_addr().0.saturating_add(from);
        self.ram
            .behind()
            .iter()
            .try_for_each(|behind| mark_behind(behind, start, pages))
    }

    /// Writes those of the marked pages that are not zeros.
    fn pages(
        &mut self,
        region: &GuestRegionMmap,
        from: u64,
        offset: u64,
        marked: &[bool],
    ) -> io::Result<()> {
        let mut first = 0;
        for run in marked.chunk_by(|a, b| a == b) {
            if run.first() == Some(&true) {
                let mut at = first;
                for batch in run.chunks(BATCH) {
                    let bytes = at as u64 * PAGE_SIZE;
                    self.batch(region, from + bytes, offset + bytes, batch.len())?;
                    at += batch.len();
                }
            }
            first += run.len();
        }
        Ok(())
    }

    /// `count` pages from `from` of the region.
    fn batch(
        &mut self,
        region: &GuestRegionMmap,
        from: u64,
        offset: u64,
        count: usize,
    ) -> io::Result<()> {
        let len = count * size_of::<Page>();
        let buffer = self.buffer.get_mut(..len).unwrap_or_default();
        region
            .get_slice(MemoryRegionAddress(from), len)
            .map_err(io::Error::other)?
            .copy_to(buffer);
        let (pages, _) = buffer.as_chunks::<{ size_of::<Page>() }>();
        let mut first = 0;
        for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let at = offset + first as u64 * PAGE_SIZE;
            if run.first().is_some_and(|page| !is_zero(page)) {
                self.file.write_all_at(run.as_flattened(), at)?;
                self.written.bytes += std::mem::size_of_val(run) as u64;
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
}
