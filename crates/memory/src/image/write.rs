//! Writing an image.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress};

use super::pages::{PageMap, mark_behind};
use super::sink::{Sink, Written};
use super::{CHUNK, Extents, ImageId, Layers, Page, is_zero, trailer};
use crate::{GuestRam, MemoryError, PAGE_SIZE, Tracker};

/// Pages that are looked at together.
const BATCH: usize = 256;

/// What is known of the pages that have changed since an image was written.
#[derive(Debug, Clone, Copy)]
pub enum Changes<'a> {
    /// Nothing: pages are compared with that image.
    Compared(&'a Layers),
    /// They were watched since then.
    Tracked(&'a Tracker),
}

/// Writes RAM, which nobody changes meanwhile, to an empty file.
///
/// # Errors
///
/// [`MemoryError::Image`] if the file cannot be written.
pub fn write(ram: &GuestRam, file: &File, id: ImageId) -> Result<Written, MemoryError> {
    write_to(ram, file, id, None).map(|(written, _)| written)
}

/// Writes the pages of RAM that have changed since another image was written, to an empty file; and says which they are.
/// Nobody changes RAM meanwhile.
///
/// # Errors
///
/// [`MemoryError::Image`] if the file cannot be written or the other image not be read, [`MemoryError::Extents`] if there
/// are more runs of pages than can be told apart.
pub fn write_changes(
    ram: &GuestRam,
    file: &File,
    id: ImageId,
    changes: Changes<'_>,
) -> Result<(Written, Extents), MemoryError> {
    write_to(ram, file, id, Some(changes))
}

/// Writes what several images have together to an empty file, as one. `progress` is called with the bytes of RAM that are
/// done.
///
/// # Errors
///
/// [`MemoryError::Image`] if one cannot be read or the file cannot be written.
pub fn merge(
    layers: &Layers,
    file: &File,
    id: ImageId,
    mut progress: impl FnMut(u64),
) -> Result<Written, MemoryError> {
    let size = layers.size();
    let mut sink = Sink::new(file, size).map_err(cannot_write)?;
    let put = |offset, bytes: &[u8]| sink.put(offset, bytes.as_chunks().0).map_err(cannot_write);
    each_run(layers, put, &mut progress)?;
    trailer::write(file, size, id).map_err(cannot_write)?;
    Ok(sink.finish())
}

/// Calls `each` with the pages of an image that are not zeros, in their order: their offset, and at most 1 MiB of them. What it
/// is the difference to is not looked at.
///
/// # Errors
///
/// [`MemoryError::Image`] if it cannot be read, and what `each` says.
pub fn read<E: From<MemoryError>>(
    file: &Arc<File>,
    size: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let but_zeros = |offset: u64, bytes: &[u8]| {
        let (pages, _) = bytes.as_chunks::<{ size_of::<Page>() }>();
        let mut at = offset;
        for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            if run.first().is_some_and(|page| !is_zero(page)) {
                each(at, run.as_flattened())?;
            }
            at += size_of_val(run) as u64;
        }
        Ok(())
    };
    each_run(&Layers::new(file.clone(), size), but_zeros, &mut |_| {})
}

/// Calls `each` with the pages of layers that are not holes, and `progress` with the bytes of RAM that are done.
fn each_run<E: From<MemoryError>>(
    layers: &Layers,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), E> {
    let size = layers.size();
    let mut buffer = vec![0; BATCH * size_of::<Page>()];
    let mut done = 0;
    while done < size {
        let len = CHUNK.min(size - done);
        let mut pages = vec![false; usize::try_from(len / PAGE_SIZE).unwrap_or(0)];
        layers.mark(done, &mut pages).map_err(cannot_read)?;
        marked(&pages, |first, count| {
            let offset = done + first * PAGE_SIZE;
            let bytes = buffer.get_mut(..count * size_of::<Page>());
            let bytes = bytes.unwrap_or_default();
            layers.read(offset, bytes).map_err(cannot_read)?;
            each(offset, bytes)
        })?;
        done += len;
        progress(done);
    }
    Ok(())
}

fn cannot_read(source: io::Error) -> MemoryError {
    MemoryError::Image {
        what: "read",
        source,
    }
}

fn cannot_write(source: io::Error) -> MemoryError {
    MemoryError::Image {
        what: "write",
        source,
    }
}

fn write_to(
    ram: &GuestRam,
    file: &File,
    id: ImageId,
    changes: Option<Changes<'_>>,
) -> Result<(Written, Extents), MemoryError> {
    let mut writer = Writer {
        ram,
        map: PageMap::open(),
        buffer: vec![0; BATCH * size_of::<Page>()],
        compared: Vec::new(),
        sink: Sink::new(file, ram.size()).map_err(cannot_write)?,
        changes,
        extents: Extents::default(),
    };
    if let Some(Changes::Compared(_)) = changes {
        writer.compared = vec![0; BATCH * size_of::<Page>()];
    }
    let mut offset = 0;
    for region in ram.memory().iter() {
        writer.region(region, offset)?;
        offset += region.len();
    }
    trailer::write(file, ram.size(), id).map_err(cannot_write)?;
    Ok((writer.sink.finish(), writer.extents))
}

struct Writer<'a> {
    ram: &'a GuestRam,
    map: PageMap,
    buffer: Vec<u8>,
    /// What the image has that pages are compared with.
    compared: Vec<u8>,
    sink: Sink<'a>,
    /// All pages are written where it says nothing.
    changes: Option<Changes<'a>>,
    extents: Extents,
}

impl Writer<'_> {
    /// A region, whose bytes are at `offset` of the file.
    fn region(&mut self, region: &GuestRegionMmap, offset: u64) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < region.len() {
            let len = CHUNK.min(region.len() - done);
            let mut pages = vec![false; usize::try_from(len / PAGE_SIZE).unwrap_or(0)];
            self.mark(region, done, offset + done, &mut pages)
                .map_err(cannot_write)?;
            marked(&pages, |first, count| {
                let from = first * PAGE_SIZE;
                self.batch(region, done + from, offset + done + from, count)
            })?;
            done += len;
        }
        Ok(())
    }

    /// Marks the pages from `from` of the region that are to be looked at: the others are zeros or, where changes are
    /// looked for, have not changed.
    fn mark(
        &self,
        region: &GuestRegionMmap,
        from: u64,
        offset: u64,
        pages: &mut [bool],
    ) -> io::Result<()> {
        let host = region
            .get_host_address(MemoryRegionAddress(from))
            .map_err(io::Error::other)?;
        let host = host.addr() as u64;
        match self.changes {
            Some(Changes::Tracked(tracker)) => return tracker.mark(host, pages),
            // What was something and is zeros has changed, too.
            Some(Changes::Compared(layers)) => layers.mark(offset, pages)?,
            None => {}
        }
        if !self.map.mark(host, pages) {
            pages.fill(true);
            return Ok(());
        }
        let start = region.start_addr().0.saturating_add(from);
        self.ram
            .behind()
            .iter()
            .try_for_each(|behind| mark_behind(behind, start, pages))
    }

    /// `count` pages from `from` of the region.
    fn batch(
        &mut self,
        region: &GuestRegionMmap,
        from: u64,
        offset: u64,
        count: usize,
    ) -> Result<(), MemoryError> {
        let len = count * size_of::<Page>();
        let buffer = self.buffer.get_mut(..len).unwrap_or_default();
        region
            .get_slice(MemoryRegionAddress(from), len)
            .map_err(|source| cannot_write(io::Error::other(source)))?
            .copy_to(buffer);
        let (pages, _) = buffer.as_chunks::<{ size_of::<Page>() }>();
        match self.changes {
            None => self.sink.put(offset, pages).map_err(cannot_write),
            Some(Changes::Tracked(_)) => {
                self.extents.push(offset, len as u64)?;
                self.sink.put(offset, pages).map_err(cannot_write)
            }
            Some(Changes::Compared(layers)) => {
                let old = self.compared.get_mut(..len).unwrap_or_default();
                layers.read(offset, old).map_err(cannot_read)?;
                let (old, _) = old.as_chunks::<{ size_of::<Page>() }>();
                let differ: Vec<_> = pages.iter().zip(old).map(|(new, old)| new != old).collect();
                let (sink, extents) = (&mut self.sink, &mut self.extents);
                marked(&differ, |first, count| {
                    let at = offset + first * PAGE_SIZE;
                    extents.push(at, count as u64 * PAGE_SIZE)?;
                    let rest = usize::try_from(first).ok().and_then(|at| pages.get(at..));
                    let changed = rest.and_then(|rest| rest.get(..count));
                    sink.put(at, changed.unwrap_or_default())
                        .map_err(cannot_write)
                })
            }
        }
    }
}

/// Calls `each` with the number of the first and the count of pages that are marked and lie together: [`BATCH`] at most.
fn marked<E>(pages: &[bool], mut each: impl FnMut(u64, usize) -> Result<(), E>) -> Result<(), E> {
    let mut first = 0;
    for run in pages.chunk_by(|a, b| a == b) {
        let mut at = first;
        for batch in run.chunks(BATCH) {
            if run.first() == Some(&true) {
                each(at, batch.len())?;
            }
            at += batch.len() as u64;
        }
        first = at;
    }
    Ok(())
}
