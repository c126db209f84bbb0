//! Master boot records (UEFI 2.10 §5.2), with the logical partitions of extended ones.

use alloc::format;
use alloc::vec::Vec;

use super::{Kind, Partition};
use crate::disk::{Disk, ReadError};
use crate::fields::{u8_at, u16_at, u32_at};

const SIGNATURE: u16 = 0xaa55;
/// Where the four entries begin, and bytes of each.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The most logical partitions: a chain of them may lead anywhere, even back.
const MAX_LOGICAL: u32 = 60;

// Types of partitions.
const EMPTY: u8 = 0x00;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;
const EFI_SYSTEM: u8 = 0xef;
const BOOT_LOADER: u8 = 0xea;

/// What the first block of a disk is.
pub(super) enum First {
    /// No partition table.
    None,
    /// That of a disk with a GPT.
    Protective,
    /// A partition table.
    Partitions(Vec<Partition>),
}

/// An entry, in blocks.
#[derive(Clone, Copy)]
struct Entry {
    kind: u8,
    start: u64,
    count: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }
}

pub(super) fn read(disk: &Disk) -> Result<First, ReadError> {
    let block: [u8; 512] = disk.whole().array(0)?;
    let Some(entries) = entries(&block) else {
        return Ok(First::None);
    };
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return Ok(First::Protective);
    }
    let used = || entries.iter().filter(|entry| entry.kind != EMPTY);
    // A file system begins with a boot sector that ends in the same signature, and with anything before that.
    if used().count() == 0 || used().any(|entry| entry.start == 0 || entry.count == 0) {
        return Ok(First::None);
    }
    let signature = u32_at(&block, 440);
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        if entry.kind != EMPTY && !entry.is_extended() {
            partitions.extend(partition(disk, signature, number, entry));
        }
    }
    if let Some(extended) = entries.iter().find(|entry| entry.is_extended()) {
        partitions.extend(logical(disk, signature, extended.start));
    }
    if partitions.is_empty() {
        return Ok(First::None);
    }
    Ok(First::Partitions(partitions))
}

/// The four entries of a block with a partition table: each is marked as active or not.
fn entries(block: &[u8; 512]) -> Option<[Entry; 4]> {
    let entries = [0, 1, 2, 3].map(|index| ENTRIES + index * ENTRY);
    let marked = |at: &usize| matches!(u8_at(block, *at), 0 | 0x80);
    if u16_at(block, 510) != SIGNATURE || !entries.iter().all(marked) {
        return None;
    }
    Some(entries.map(|at| Entry {
        kind: u8_at(block, at + 4),
        start: u32_at(block, at + 8).into(),
        count: u32_at(block, at + 12).into(),
    }))
}

fn partition(disk: &Disk, signature: u32, number: u32, entry: Entry) -> Option<Partition> {
    let size = disk.block_size();
    let volume = disk.part(
        entry.start.saturating_mul(size),
        entry.count.saturating_mul(size),
    );
    (volume.size() != 0).then(|| Partition {
        number,
        volume,
        kind: match entry.kind {
            EFI_SYSTEM => Kind::EfiSystem,
            BOOT_LOADER => Kind::BootLoader,
            _ => Kind::Other,
        },
        // Linux writes both numbers in hexadecimal.
        uuid: format!("{signature:08x}-{number:02x}"),
    })
}

/// The logical partitions: a chain of tables, each with a partition, which begins relative to that table, and the next
/// table, which begins relative to the extended partition. The chain ends where it does not make sense.
fn logical(disk: &Disk, signature: u32, extended: u64) -> Vec<Partition> {
    let mut found = Vec::new();
    let mut table = extended;
    for number in FIRST_LOGICAL..FIRST_LOGICAL + MAX_LOGICAL {
        let at = table.saturating_mul(disk.block_size());
        let Some([first, next, ..]) = disk
            .whole()
            .array(at)
            .ok()
            .and_then(|block| entries(&block))
        else {
            break;
        };
        if first.kind != EMPTY && first.start != 0 {
            let start = table.saturating_add(first.start);
            found.extend(partition(disk, signature, number, Entry { start, ..first }));
        }
        if !next.is_extended() || next.start == 0 {
            break;
        }
        table = extended.saturating_add(next.start);
    }
    found
}
