//! The superblock, and where inodes are (`super.rst`, `group_descr.rst`).

use super::Ext;
use crate::fields::{bytes_at, u16_at, u32_at};
use crate::file::FsError;

/// Where the superblock is, and where it ends.
pub(super) const START: u64 = 1024;
pub(super) const END: u64 = 2048;

const MAGIC: u16 = 0xef53;
/// Features without which a file system can be read, as far as they matter here.
const COMPAT_HAS_JOURNAL: u32 = 0x4;
/// Features that change how it is to be read.
const INCOMPAT_FILE_TYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64_BIT: u32 = 0x80;
/// Those above, multiple mount protection, flexible block groups, attributes in inodes, checksum seed, large
/// directories, data in inodes, encryption, case folding: what these mean for a file is seen when it is read.
const INCOMPAT_KNOWN: u32 = INCOMPAT_FILE_TYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_EXTENTS
    | INCOMPAT_64_BIT
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
/// 64 KiB.
const MAX_BLOCK_SHIFT: u32 = 6;

/// What the superblock says, as far as it is needed.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// Bytes.
    pub(super) block_size: u64,
    blocks: u64,
    /// The block of the superblock; descriptors follow.
    first_block: u64,
    descriptor_size: u64,
    inodes_per_group: u32,
    inodes: u32,
    inode_size: u64,
    incompat: u32,
    has_journal: bool,
    /// The journal's inode, if there is something in it that has not been written to its place.
    pub(super) journal_inode: Option<u32>,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// What the superblock of a volume of `size` bytes says; `None` if it is none.
    pub(super) fn parse(bytes: &[u8; 1024], size: u64) -> Result<Option<Self>, FsError> {
        if u16_at(bytes, 0x38) != MAGIC {
            return Ok(None);
        }
        let shift = u32_at(bytes, 0x18);
        if shift > MAX_BLOCK_SHIFT {
            return Err(corrupt(
                "an ext4 file system with impossible blocks",
                shift.into(),
            ));
        }
        let incompat = u32_at(bytes, 0x60);
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(FsError::Unsupported {
                what: "a feature of the ext4 file system",
                value: (incompat & !INCOMPAT_KNOWN).into(),
            });
        }
        let has_journal = u32_at(bytes, 0x5c) & COMPAT_HAS_JOURNAL != 0;
        let needs_recovery = has_journal && incompat & INCOMPAT_RECOVER != 0;
        let is_64_bit = incompat & INCOMPAT_64_BIT != 0;
        let high = if is_64_bit { u32_at(bytes, 0x150) } else { 0 };
        let superblock = Self {
            block_size: 1024 << shift,
            blocks: u64::from(high) << 32 | u64::from(u32_at(bytes, 0x4)),
            first_block: u32_at(bytes, 0x14).into(),
            descriptor_size: match u16_at(bytes, 0xfe) {
                size if is_64_bit => size.into(),
                _ => 32,
            },
            inodes_per_group: u32_at(bytes, 0x28),
            inodes: u32_at(bytes, 0),
            // Revision 0 has no such field.
            inode_size: match u32_at(bytes, 0x4c) {
                0 => 128,
                _ => u16_at(bytes, 0x58).into(),
            },
            incompat,
            has_journal,
            journal_inode: needs_recovery.then(|| u32_at(bytes, 0xe0)),
            uuid: bytes_at(bytes, 0x68),
        };
        superblock.check(size).map(|()| Some(superblock))
    }

    fn check(&self, size: u64) -> Result<(), FsError> {
        let fits = self
            .blocks
            .checked_mul(self.block_size)
            .is_some_and(|end| end <= size);
        if !fits {
            return Err(corrupt(
                "an ext4 file system larger than its volume",
                self.blocks,
            ));
        }
        if !(128..=self.block_size).contains(&self.inode_size) {
            return Err(corrupt(
                "an ext4 file system with impossible inodes",
                self.inode_size,
            ));
        }
        if self.inodes_per_group == 0 {
            return Err(corrupt("an ext4 file system without inodes", 0));
        }
        if !(32..=self.block_size).contains(&self.descriptor_size) {
            let what = "an ext4 file system with impossible group descriptors";
            return Err(corrupt(what, self.descriptor_size));
        }
        Ok(())
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.incompat & INCOMPAT_EXTENTS != 0 {
            "ext4"
        } else if self.has_journal {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// Whether entries of directories have the type of what they name.
    pub(super) fn has_file_types(&self) -> bool {
        self.incompat & INCOMPAT_FILE_TYPE != 0
    }

    /// Whether a file can have something in this block.
    pub(super) fn is_block(&self, block: u64) -> bool {
        block != 0 && block < self.blocks
    }
}

/// The block of an inode, and its offset there.
pub(super) fn inode_place(file_system: &Ext, number: u32) -> Result<(u64, u64), FsError> {
    let superblock = &file_system.superblock;
    let no_such = || corrupt("an inode that does not exist is referred to", number.into());
    let index = number.checked_sub(1).ok_or_else(no_such)?;
    if number > superblock.inodes {
        return Err(no_such());
    }
    let per_group = superblock.inodes_per_group.max(1);
    let (group, index) = (u64::from(index / per_group), u64::from(index % per_group));
    // Descriptors are whole in their blocks: sizes are powers of two, or leave a gap.
    let per_block = (superblock.block_size / superblock.descriptor_size).max(1);
    let block = (superblock.first_block)
        .saturating_add(1)
        .saturating_add(group / per_block);
    let mut descriptor = [0; 64];
    let len = if superblock.descriptor_size < 64 {
        32
    } else {
        64
    };
    let used = descriptor.get_mut(..len).unwrap_or_default();
    let offset = (group % per_block).saturating_mul(superblock.descriptor_size);
    file_system.read_block(block, offset, used)?;
    let table = u64::from(u32_at(&descriptor, 0x28)) << 32 | u64::from(u32_at(&descriptor, 0x8));
    let offset = index.saturating_mul(superblock.inode_size);
    let block = table.saturating_add(offset / superblock.block_size);
    Ok((block, offset % superblock.block_size))
}

fn corrupt(what: &'static str, value: u64) -> FsError {
    FsError::Corrupt { what, value }
}
