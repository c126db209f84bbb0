//! Directories (`directory.rst`). Those with an index are read in a line: the index is in what looks like empty space.

use alloc::vec;

use super::inode::Inode;
use super::{Ext, blocks};
use crate::fields::{in_memory, u8_at, u16_at, u32_at};
use crate::file::FsError;

/// Bytes of a directory at most: one of a hundred thousand entries is smaller.
const MAX_SIZE: u64 = 8 << 20;
/// The most entries that are listed.
pub(super) const MAX_ENTRIES: usize = 65536;
/// Bytes of an entry without its name.
const HEADER: u64 = 8;
/// `EXT4_FT_DIR`.
const DIRECTORY: u8 = 2;

/// The number of the inode of this name.
pub(super) fn lookup(
    file_system: &Ext,
    directory: &Inode,
    wanted: &str,
) -> Result<Option<u32>, FsError> {
    let mut found = None;
    scan(file_system, directory, |name, number, _| {
        let same = name == wanted.as_bytes();
        if same {
            found = Some(number);
        }
        same
    })?;
    Ok(found)
}

/// Calls `each` with name, inode and whether it is a directory, of every entry, until it gives true.
pub(super) fn scan(
    file_system: &Ext,
    directory: &Inode,
    mut each: impl FnMut(&[u8], u32, bool) -> bool,
) -> Result<(), FsError> {
    if directory.size > MAX_SIZE {
        return Err(FsError::TooLarge {
            size: directory.size,
            limit: in_memory(MAX_SIZE),
        });
    }
    let file = blocks::file(file_system, directory)?;
    let block_size = file_system.superblock.block_size;
    let mut block = vec![0; in_memory(block_size)];
    let types = file_system.superblock.has_file_types();
    for at in (0..file.size() / block_size).map(|index| index.saturating_mul(block_size)) {
        file.read(at, &mut block)?;
        let mut offset = 0_u64;
        while offset.saturating_add(HEADER) <= block_size {
            let entry = block.get(in_memory(offset)..).unwrap_or_default();
            let len = match u16_at(entry, 4) {
                // A block of 64 KiB in one entry.
                0 | 0xffff => block_size,
                len => len.into(),
            };
            if len < HEADER || !len.is_multiple_of(4) || offset.saturating_add(len) > block_size {
                return Err(FsError::Corrupt {
                    what: "a directory has an entry of an impossible length",
                    value: len,
                });
            }
            let number = u32_at(entry, 0);
            let name_len = usize::from(u8_at(entry, 6));
            let name = entry.get(8..).and_then(|rest| rest.get(..name_len));
            let is_dir = types && u8_at(entry, 7) == DIRECTORY;
            if let Some(name) = name.filter(|name| number != 0 && !name.is_empty())
                && each(name, number, is_dir)
            {
                return Ok(());
            }
            offset = offset.saturating_add(len);
        }
    }
    Ok(())
}
