//! Which blocks a file has: by extents, or by a map with indirect blocks (`ifork.rst`).

use alloc::vec;
use alloc::vec::Vec;

use super::Ext;
use super::inode::Inode;
use crate::fields::{in_memory, u16_at, u32_at};
use crate::file::{File, FsError};

const EXTENT_MAGIC: u16 = 0xf30a;
/// Bytes of an entry, and of the header of a node.
const EXTENT: usize = 12;
/// The deepest tree that Linux makes.
const MAX_DEPTH: u16 = 5;
/// An extent of more blocks has not been written yet: its content is zero.
const MAX_WRITTEN: u64 = 32768;
/// Blocks that are named in the inode itself, by a map.
const DIRECT: usize = 12;
/// The most nodes of a tree, or indirect blocks, of one file: a tree that is not one may have any number.
const MAX_NODES: u32 = 1 << 16;

/// The bytes of a file, directory or symbolic link.
pub(super) fn file(file_system: &Ext, inode: &Inode) -> Result<File, FsError> {
    if inode.unsupported() != 0 {
        return Err(FsError::Unsupported {
            what: "a file that is encrypted or in its inode",
            value: inode.unsupported().into(),
        });
    }
    let mut walk = Walk {
        file_system,
        file: File::new(&file_system.volume),
        next: 0,
        end: inode.size.div_ceil(file_system.superblock.block_size),
        nodes: 0,
    };
    if inode.has_extents() {
        walk.extents(&inode.map, MAX_DEPTH)?;
    } else {
        walk.map(&inode.map)?;
    }
    walk.file.set_size(inode.size)?;
    Ok(walk.file)
}

/// On the way through the blocks of a file.
struct Walk<'a> {
    file_system: &'a Ext,
    file: File,
    /// The next block of the file, and the first beyond its end.
    next: u64,
    end: u64,
    nodes: u32,
}

impl Walk<'_> {
    /// A node of the tree of extents, which is at most `depth` nodes above the leaves.
    fn extents(&mut self, node: &[u8], depth: u16) -> Result<(), FsError> {
        let (magic, count, level) = (u16_at(node, 0), u16_at(node, 2), u16_at(node, 6));
        if magic != EXTENT_MAGIC || level > depth {
            return Err(corrupt("a tree of extents is damaged", level.into()));
        }
        let (entries, _) = node.get(EXTENT..).unwrap_or_default().as_chunks::<EXTENT>();
        for entry in entries.iter().take(count.into()) {
            if self.next >= self.end {
                break;
            }
            match level.checked_sub(1) {
                None => self.extent(entry)?,
                Some(below) => {
                    let block = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
                    let child = self.node(block)?;
                    self.extents(&child, below)?;
                }
            }
        }
        Ok(())
    }

    fn extent(&mut self, entry: &[u8; EXTENT]) -> Result<(), FsError> {
        let first = u64::from(u32_at(entry, 0));
        let start = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
        let len = u64::from(u16_at(entry, 4));
        let hole = first
            .checked_sub(self.next)
            .ok_or_else(|| corrupt("extents are out of order", first))?;
        self.push(None, hole)?;
        match len
            .checked_sub(MAX_WRITTEN)
            .filter(|unwritten| *unwritten != 0)
        {
            Some(unwritten) => self.push(None, unwritten),
            None => self.push(Some(start), len),
        }
    }

    /// A map: direct blocks, then trees of one, two and three levels.
    fn map(&mut self, map: &[u8]) -> Result<(), FsError> {
        let (entries, _) = map.as_chunks::<4>();
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| u32::from_le_bytes(*entry))
            .collect();
        for (index, block) in entries.iter().enumerate() {
            self.indirect(*block, index.saturating_sub(DIRECT - 1))?;
        }
        Ok(())
    }

    /// A block of the file (`levels` is 0), or one that names others.
    fn indirect(&mut self, block: u32, levels: usize) -> Result<(), FsError> {
        if self.next >= self.end {
            return Ok(());
        }
        let per_block = self.file_system.superblock.block_size / 4;
        let Some(below) = levels.checked_sub(1) else {
            return self.push((block != 0).then_some(block.into()), 1);
        };
        if block == 0 {
            let span = u32::try_from(levels).unwrap_or(u32::MAX);
            return self.push(None, per_block.saturating_pow(span));
        }
        let names = self.node(block.into())?;
        let (names, _) = names.as_chunks::<4>();
        for name in names {
            self.indirect(u32::from_le_bytes(*name), below)?;
        }
        Ok(())
    }

    /// Reads a block that is not of the file itself.
    fn node(&mut self, block: u64) -> Result<Vec<u8>, FsError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(corrupt("a file has too many blocks of metadata", block));
        }
        let mut bytes = vec![0; in_memory(self.file_system.superblock.block_size)];
        self.file_system.read_block(block, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The next `count` blocks of the file, as far as it has them: from `start` on, or zero.
    fn push(&mut self, start: Option<u64>, count: u64) -> Result<(), FsError> {
        let count = count.min(self.end.saturating_sub(self.next));
        let superblock = &self.file_system.superblock;
        let size = superblock.block_size;
        self.next = self.next.saturating_add(count);
        let Some(start) = start else {
            return self.file.push(None, count.saturating_mul(size));
        };
        let end = start.saturating_add(count);
        if count != 0 && !(superblock.is_block(start) && superblock.is_block(end - 1)) {
            return Err(corrupt("a file has a block that does not exist", end));
        }
        let mut at = start;
        for (block, journaled) in self.file_system.journaled.range(start..end) {
            self.file.push(
                Some(at.saturating_mul(size)),
                block.saturating_sub(at).saturating_mul(size),
            )?;
            self.file.push(Some(journaled.saturating_mul(size)), size)?;
            at = block.saturating_add(1);
        }
        self.file.push(
            Some(at.saturating_mul(size)),
            end.saturating_sub(at).saturating_mul(size),
        )
    }
}

fn corrupt(what: &'static str, value: u64) -> FsError {
    FsError::Corrupt { what, value }
}
