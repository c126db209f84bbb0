//! The file allocation table: which cluster follows which (§4).

use super::bpb::{Layout, Width};
use crate::disk::Volume;
use crate::fields::{in_memory, on_disk, u16_at, u32_at};
use crate::file::FsError;

/// Bytes that are read at once: a file has most of its clusters in a row.
const WINDOW: usize = 2048;

/// The first table of a file system, and the part of it that was read last.
pub(super) struct Table<'a> {
    volume: &'a Volume,
    layout: &'a Layout,
    window: [u8; WINDOW],
    /// Where the window begins, in bytes of the volume, and how many bytes of it were read.
    start: u64,
    len: u64,
}

impl<'a> Table<'a> {
    pub(super) fn new(volume: &'a Volume, layout: &'a Layout) -> Self {
        Self {
            volume,
            layout,
            window: [0; WINDOW],
            start: 0,
            len: 0,
        }
    }

    /// The cluster that follows in a chain; `None` at its end.
    pub(super) fn next(&mut self, cluster: u32) -> Result<Option<u32>, FsError> {
        let number = u64::from(cluster);
        let (entry, end) = match self.layout.width {
            Width::Fat12 => {
                let both = u16_at(self.entry(number.saturating_add(number / 2), 2)?, 0);
                let entry = if cluster.is_multiple_of(2) {
                    both & 0xfff
                } else {
                    both >> 4
                };
                (u32::from(entry), 0xff8)
            }
            Width::Fat16 => {
                let entry = u16_at(self.entry(number.saturating_mul(2), 2)?, 0);
                (entry.into(), 0xfff8)
            }
            Width::Fat32 => {
                let entry = u32_at(self.entry(number.saturating_mul(4), 4)?, 0);
                // The upper four bits are not part of the number.
                (entry & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((entry < end).then_some(entry))
    }

    /// What is `offset` bytes into the table: at least `size` bytes.
    fn entry(&mut self, offset: u64, size: u64) -> Result<&[u8], FsError> {
        let at = self.layout.table_start.saturating_add(offset);
        let within = at.checked_sub(self.start).filter(|within| {
            let end = within.saturating_add(size);
            end <= self.len
        });
        let within = match within {
            Some(within) => within,
            None => {
                let left = self.volume.size().saturating_sub(at);
                let len = on_disk(WINDOW).min(left).max(size);
                let window = self.window.get_mut(..in_memory(len)).unwrap_or_default();
                self.len = 0;
                self.volume.read(at, window)?;
                (self.start, self.len) = (at, len);
                0
            }
        };
        Ok(self.window.get(in_memory(within)..).unwrap_or_default())
    }
}
