//! Inodes (`inodes.rst`).

use crate::fields::{bytes_at, in_memory, u16_at, u32_at};

/// Bytes of an inode that are read: all that the first revision has.
pub(super) const SIZE: usize = 128;
/// Bytes of the map of blocks, or of the target of a short symbolic link.
pub(super) const MAP_SIZE: usize = 60;

/// Types, in the upper bits of the mode.
const TYPE_MASK: u16 = 0xf000;
const DIRECTORY: u16 = 0x4000;
const REGULAR: u16 = 0x8000;
const LINK: u16 = 0xa000;
/// Flags.
const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;

/// An inode.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    mode: u16,
    flags: u32,
    /// Bytes.
    pub(super) size: u64,
    /// The map of its blocks.
    pub(super) map: [u8; MAP_SIZE],
}

impl Inode {
    pub(super) fn parse(bytes: &[u8; SIZE]) -> Self {
        let mode = u16_at(bytes, 0);
        let high = match mode & TYPE_MASK {
            REGULAR | DIRECTORY => u32_at(bytes, 0x6c),
            _ => 0,
        };
        Self {
            mode,
            flags: u32_at(bytes, 0x20),
            size: u64::from(high) << 32 | u64::from(u32_at(bytes, 0x4)),
            map: bytes_at(bytes, 0x28),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode & TYPE_MASK == DIRECTORY
    }

    pub(super) fn is_file(&self) -> bool {
        self.mode & TYPE_MASK == REGULAR
    }

    pub(super) fn is_link(&self) -> bool {
        self.mode & TYPE_MASK == LINK
    }

    /// Whether the map is a tree of extents.
    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// Flags that say that the content is where it is not looked for.
    pub(super) fn unsupported(&self) -> u32 {
        self.flags & (ENCRYPTED | INLINE_DATA)
    }

    /// The target of a short symbolic link.
    pub(super) fn inline_target(&self) -> Option<&[u8]> {
        if self.has_extents() || self.unsupported() & ENCRYPTED != 0 {
            return None;
        }
        self.map
            .get(..in_memory(self.size))
            .filter(|target| target.len() < MAP_SIZE)
    }
}
