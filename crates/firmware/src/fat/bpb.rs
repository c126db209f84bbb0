//! The BIOS parameter block: how a FAT file system is laid out.

use crate::fields::{u8_at, u16_at, u32_at};
use crate::file::FsError;

use super::FIRST_CLUSTER;

/// Bits of an entry of the table.
///
/// By the specification the number of clusters decides. There are small FAT32 file systems all the same: as in Linux, that
/// is one without a size of its tables in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Fewer clusters than that have 12 bits.
const FAT12_LIMIT: u64 = 4085;

/// Where things are, in bytes of the volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) width: Width,
    /// Of the first table.
    pub(super) table_start: u64,
    /// Of the root directory of FAT12 and FAT16.
    pub(super) root_start: u64,
    pub(super) root_size: u64,
    /// Of the root directory of FAT32.
    pub(super) root_cluster: u32,
    /// Of cluster 2.
    pub(super) data_start: u64,
    pub(super) cluster_size: u64,
    /// The first number beyond the clusters.
    pub(super) cluster_end: u32,
    pub(super) serial: u32,
}

impl Layout {
    /// What the first sector says of a volume of `size` bytes; `None` if it is not that of a FAT file system.
    pub(super) fn parse(sector: &[u8; 512], size: u64) -> Result<Option<Self>, FsError> {
        let sector_size = u64::from(u16_at(sector, 11));
        let per_cluster = u64::from(u8_at(sector, 13));
        let reserved = u64::from(u16_at(sector, 14));
        let tables = u64::from(u8_at(sector, 16));
        let media = u8_at(sector, 21);
        let jump = matches!(u8_at(sector, 0), 0xeb | 0xe9);
        let looks_right = jump
            && matches!(sector_size, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved != 0
            && (1..=2).contains(&tables)
            && (media == 0xf0 || media >= 0xf8);
        if u16_at(sector, 510) != 0xaa55 || !looks_right {
            return Ok(None);
        }
        Self::of(sector, sector_size, size).map(Some)
    }

    fn of(sector: &[u8; 512], sector_size: u64, size: u64) -> Result<Self, FsError> {
        let either = |short: u16, long: u32| match short {
            0 => u64::from(long),
            short => short.into(),
        };
        let reserved = u64::from(u16_at(sector, 14));
        let table_sectors = either(u16_at(sector, 22), u32_at(sector, 36));
        let total = either(u16_at(sector, 19), u32_at(sector, 32));
        let root_size = u64::from(u16_at(sector, 17)).saturating_mul(32);
        // All factors are of at most 32 bits, so that no sum or product is beyond 64.
        let root_start = reserved.saturating_add(u64::from(u8_at(sector, 16)) * table_sectors);
        let data_start = root_start.saturating_add(root_size.div_ceil(sector_size));
        let per_cluster = u64::from(u8_at(sector, 13)).max(1);
        let clusters = total.saturating_sub(data_start) / per_cluster;
        if clusters == 0 {
            return Err(corrupt("a FAT file system without clusters", total));
        }
        if total.saturating_mul(sector_size) > size {
            return Err(corrupt("a FAT file system larger than its volume", total));
        }
        let width = match clusters {
            _ if u16_at(sector, 22) == 0 => Width::Fat32,
            ..FAT12_LIMIT => Width::Fat12,
            _ => Width::Fat16,
        };
        let is_fat32 = width == Width::Fat32;
        let in_table = table_sectors.saturating_mul(sector_size).saturating_mul(8)
            / match width {
                Width::Fat12 => 12,
                Width::Fat16 => 16,
                Width::Fat32 => 32,
            };
        let cluster_end = clusters.saturating_add(FIRST_CLUSTER.into()).min(in_table);
        Ok(Self {
            width,
            table_start: reserved.saturating_mul(sector_size),
            root_start: root_start.saturating_mul(sector_size),
            root_size,
            root_cluster: u32_at(sector, 44),
            data_start: data_start.saturating_mul(sector_size),
            cluster_size: per_cluster.saturating_mul(sector_size),
            cluster_end: u32::try_from(cluster_end)
                .unwrap_or(u32::MAX)
                .min(0x0fff_fff7),
            serial: u32_at(sector, if is_fat32 { 67 } else { 39 }),
        })
    }

    /// Whether there is such a cluster.
    pub(super) fn is_cluster(&self, number: u32) -> bool {
        (FIRST_CLUSTER..self.cluster_end).contains(&number)
    }
}

fn corrupt(what: &'static str, value: u64) -> FsError {
    FsError::Corrupt { what, value }
}
