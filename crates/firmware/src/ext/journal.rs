//! The journal of blocks (`journal.rst`): what was committed to it and has not been written to its place.
//!
//! Fast commits, which say in a few bytes what has changed since the last commit, are not read.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::{Ext, blocks};
use crate::fields::{be32_at, in_memory, u16_at};
use crate::file::{File, FsError};

const MAGIC: u32 = 0xc03b_3998;
/// Types of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;
/// Features.
const INCOMPAT_64_BIT: u32 = 0x2;
const INCOMPAT_CHECKSUM_V2: u32 = 0x8;
const INCOMPAT_CHECKSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = 0x3f;
/// Blocks for fast commits, if the superblock does not say.
const FAST_COMMIT_BLOCKS: u32 = 256;
/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
/// Bytes of the header of each block.
const HEADER: usize = 12;
/// Blocks of a journal at most: 4 GiB of 1 KiB each.
const MAX_BLOCKS: u64 = 4 << 20;

/// Blocks of the file system whose newest content is in the journal, and which block of the file system that is.
pub(super) fn read(file_system: &Ext, inode: u32) -> Result<BTreeMap<u64, u64>, FsError> {
    let inode = file_system.inode(inode)?;
    let block_size = file_system.superblock.block_size;
    let mut log = Log {
        file: blocks::file(file_system, &inode)?,
        block_size,
        features: 0,
        first: 0,
        end: 0,
        changed: BTreeMap::new(),
        revoked: BTreeMap::new(),
    };
    let superblock = log.block(0)?;
    let magic = [be32_at(&superblock, 0), be32_at(&superblock, 4)];
    let says = u64::from(be32_at(&superblock, 12));
    if magic != [MAGIC, SUPERBLOCK_V2] || says != block_size {
        return Err(corrupt("the journal is damaged", says));
    }
    log.features = be32_at(&superblock, 0x28);
    if log.features & !INCOMPAT_KNOWN != 0 {
        return Err(FsError::Unsupported {
            what: "a feature of the journal",
            value: (log.features & !INCOMPAT_KNOWN).into(),
        });
    }
    let fast = match be32_at(&superblock, 0x54) {
        _ if log.features & INCOMPAT_FAST_COMMIT == 0 => 0,
        0 => FAST_COMMIT_BLOCKS,
        blocks => blocks,
    };
    let blocks = u64::from(be32_at(&superblock, 16)).saturating_sub(fast.into());
    log.first = u64::from(be32_at(&superblock, 20)).max(1);
    log.end = blocks.min(log.file.size() / block_size).min(MAX_BLOCKS);
    let start = u64::from(be32_at(&superblock, 28));
    if start != 0 {
        log.scan(start, be32_at(&superblock, 24))?;
    }
    log.places()
}

/// The journal, and what was found in it.
struct Log {
    file: File,
    block_size: u64,
    features: u32,
    /// The first block of the log, and the first beyond.
    first: u64,
    end: u64,
    /// By block of the file system: block of the journal, transaction, and whether it is escaped.
    changed: BTreeMap<u64, (u64, u32, bool)>,
    /// By block of the file system: the transaction that says that what came before is void.
    revoked: BTreeMap<u64, u32>,
}

impl Log {
    fn block(&self, number: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = vec![0; in_memory(self.block_size)];
        let at = number.saturating_mul(self.block_size);
        self.file.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// The block behind `number`, `count` times: the log is a ring.
    fn after(&self, number: u64, count: u64) -> u64 {
        let len = self.end.saturating_sub(self.first).max(1);
        let from_first = number.saturating_sub(self.first).saturating_add(count);
        self.first.saturating_add(from_first % len)
    }

    /// Goes through the transactions from `sequence` on, up to the first that is not there as a whole.
    fn scan(&mut self, start: u64, mut sequence: u32) -> Result<(), FsError> {
        let (mut at, mut seen) = (start, 0);
        // What a transaction changes and revokes counts once it is committed.
        let (mut changes, mut revokes) = (Vec::new(), Vec::new());
        while (self.first..self.end).contains(&at) && seen < self.end {
            let block = self.block(at)?;
            if be32_at(&block, 0) != MAGIC || be32_at(&block, 8) != sequence {
                break;
            }
            let mut data = 0;
            match be32_at(&block, 4) {
                DESCRIPTOR => {
                    for (place, escaped) in self.tags(&block) {
                        data += 1;
                        changes.push((place, self.after(at, data), escaped));
                    }
                }
                REVOKE => revokes.extend(self.revocations(&block)),
                COMMIT => {
                    for (place, journaled, escaped) in changes.drain(..) {
                        self.changed.insert(place, (journaled, sequence, escaped));
                    }
                    self.revoked
                        .extend(revokes.drain(..).map(|place| (place, sequence)));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            seen = seen.saturating_add(data).saturating_add(1);
            at = self.after(at, data.saturating_add(1));
        }
        Ok(())
    }

    /// The blocks that a descriptor announces, and whether each is escaped.
    fn tags(&self, block: &[u8]) -> Vec<(u64, bool)> {
        let v3 = self.features & INCOMPAT_CHECKSUM_V3 != 0;
        let wide = self.features & INCOMPAT_64_BIT != 0;
        let v2 = if self.features & INCOMPAT_CHECKSUM_V2 != 0 {
            2
        } else {
            0
        };
        let len = match (v3, wide) {
            (true, _) => 16,
            (false, true) => 12 + v2,
            (false, false) => 8 + v2,
        };
        let (mut tags, mut at) = (Vec::new(), HEADER);
        while let Some(tag) = block.get(at..at.saturating_add(len)) {
            let flags = match v3 {
                true => be32_at(tag, 4),
                false => u16_at(tag, 6).swap_bytes().into(),
            };
            let high = if wide { be32_at(tag, 8) } else { 0 };
            let place = u64::from(high) << 32 | u64::from(be32_at(tag, 0));
            tags.push((place, flags & ESCAPED != 0));
            if flags & LAST != 0 {
                break;
            }
            let uuid = if flags & SAME_UUID == 0 { 16 } else { 0 };
            at = at.saturating_add(len).saturating_add(uuid);
        }
        tags
    }

    /// The blocks that a block of revocations names.
    fn revocations(&self, block: &[u8]) -> Vec<u64> {
        let end = in_memory(be32_at(block, HEADER).into());
        let names = block.get(16..end.min(block.len())).unwrap_or_default();
        if self.features & INCOMPAT_64_BIT != 0 {
            let (names, _) = names.as_chunks::<8>();
            return names.iter().map(|name| u64::from_be_bytes(*name)).collect();
        }
        let (names, _) = names.as_chunks::<4>();
        let names = names.iter().map(|name| u32::from_be_bytes(*name));
        names.map(u64::from).collect()
    }

    /// Where what is not void is, in blocks of the file system.
    fn places(mut self) -> Result<BTreeMap<u64, u64>, FsError> {
        let revoked = core::mem::take(&mut self.revoked);
        let mut places = BTreeMap::new();
        for (place, (journaled, sequence, escaped)) in core::mem::take(&mut self.changed) {
            let void = revoked
                .get(&place)
                .is_some_and(|revoked| revoked.wrapping_sub(sequence) < 1 << 31);
            if void {
                continue;
            }
            if escaped {
                return Err(FsError::Unsupported {
                    what: "an escaped block in the journal",
                    value: place,
                });
            }
            let at = self.file.place(journaled.saturating_mul(self.block_size));
            let at = at.ok_or_else(|| corrupt("the journal has a hole", journaled))?;
            places.insert(place, at / self.block_size);
        }
        Ok(places)
    }
}

fn corrupt(what: &'static str, value: u64) -> FsError {
    FsError::Corrupt { what, value }
}
