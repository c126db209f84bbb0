//! ext2, ext3 and ext4, read-only (Linux, `Documentation/filesystems/ext4/`).
//!
//! What a journal has that was committed and not yet written to its place is read from the journal: a machine that was
//! ended at any moment boots what its file system would have after the next mount. Checksums of metadata are not looked
//! at; everything that is read is checked for being possible.

mod blocks;
mod directory;
mod inode;
mod journal;
mod superblock;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use inode::Inode;
use superblock::Superblock;

use crate::disk::Volume;
use crate::fields::u64_at;
use crate::file::{DirEntry, File, FsError, names, not_found};

/// The inode of the root directory.
const ROOT: u32 = 2;
/// The most symbolic links on the way to a file, as in Linux.
const MAX_LINKS: u32 = 40;
/// The longest target of a symbolic link, in bytes (`PATH_MAX`).
const MAX_TARGET: usize = 4096;
/// The most names on a path, links followed.
const MAX_NAMES: usize = 256;

/// An ext2, ext3 or ext4 file system.
#[derive(Debug, Clone)]
pub struct Ext {
    volume: Volume,
    superblock: Superblock,
    /// Blocks whose newest content is in the journal, and where.
    journaled: BTreeMap<u64, u64>,
}

impl Ext {
    /// The file system on a volume; `None` if there is none of this kind.
    ///
    /// # Errors
    ///
    /// If there is one that contradicts itself or uses what is not read here, or the volume cannot be read.
    pub fn open(volume: &Volume) -> Result<Option<Self>, FsError> {
        if volume.size() < superblock::END {
            return Ok(None);
        }
        let bytes = volume.array(superblock::START)?;
        let Some(superblock) = Superblock::parse(&bytes, volume.size())? else {
            return Ok(None);
        };
        let mut file_system = Self {
            volume: volume.clone(),
            superblock,
            journaled: BTreeMap::new(),
        };
        if let Some(inode) = file_system.superblock.journal_inode {
            file_system.journaled = journal::read(&file_system, inode)?;
        }
        Ok(Some(file_system))
    }

    /// Which of the three it is.
    pub fn kind(&self) -> &'static str {
        self.superblock.kind()
    }

    /// Its identity, as Linux has it in `UUID=`.
    pub fn uuid(&self) -> String {
        let uuid = self.superblock.uuid;
        let [high, low] = [0, 8].map(|at| u64_at(&uuid, at).swap_bytes());
        alloc::format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// What is in a directory; symbolic links to it are followed.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, FsError> {
        let inode = self.resolve(path)?;
        if !inode.is_dir() {
            return Err(FsError::NotADirectory(path.to_owned()));
        }
        let mut entries = Vec::new();
        directory::scan(self, &inode, |name, _, is_dir| {
            let name = String::from_utf8_lossy(name).into_owned();
            if name != "." && name != ".." {
                entries.push(DirEntry { name, is_dir });
            }
            entries.len() >= directory::MAX_ENTRIES
        })?;
        Ok(entries)
    }

    /// Finds a file; symbolic links to it are followed.
    ///
    /// # Errors
    ///
    /// If there is none, or it contradicts the file system.
    pub fn find(&self, path: &str) -> Result<File, FsError> {
        let inode = self.resolve(path)?;
        if !inode.is_file() {
            return Err(FsError::NotAFile(path.to_owned()));
        }
        blocks::file(self, &inode)
    }

    /// The inode that a path leads to from the root.
    fn resolve(&self, path: &str) -> Result<Inode, FsError> {
        let mut left: Vec<String> = names(path).rev().map(str::to_owned).collect();
        let mut at = self.inode(ROOT)?;
        let mut links = 0;
        while let Some(name) = left.pop() {
            if !at.is_dir() {
                return Err(FsError::NotADirectory(path.to_owned()));
            }
            let number = directory::lookup(self, &at, &name)?.ok_or_else(|| not_found(path))?;
            let inode = self.inode(number)?;
            if !inode.is_link() {
                at = inode;
                continue;
            }
            links += 1;
            let target = self.target(&inode)?;
            left.extend(names(&target).rev().map(str::to_owned));
            if links > MAX_LINKS || left.len() > MAX_NAMES {
                return Err(FsError::Links(path.to_owned()));
            }
            if target.starts_with('/') {
                at = self.inode(ROOT)?;
            }
        }
        Ok(at)
    }

    /// Where a symbolic link leads: short targets are in the inode itself.
    fn target(&self, link: &Inode) -> Result<String, FsError> {
        let bytes = match link.inline_target() {
            Some(bytes) => bytes.to_owned(),
            None => blocks::file(self, link)?.read_all(MAX_TARGET)?,
        };
        String::from_utf8(bytes).map_err(|_| FsError::Corrupt {
            what: "a symbolic link is not text",
            value: link.size,
        })
    }

    fn inode(&self, number: u32) -> Result<Inode, FsError> {
        let mut bytes = [0; inode::SIZE];
        let (block, offset) = superblock::inode_place(self, number)?;
        self.read_block(block, offset, &mut bytes)?;
        Ok(Inode::parse(&bytes))
    }

    /// Reads a part of a block, from the journal if the newest is there.
    fn read_block(&self, block: u64, offset: u64, buffer: &mut [u8]) -> Result<(), FsError> {
        if !self.superblock.is_block(block) {
            return Err(FsError::Corrupt {
                what: "a block that does not exist is referred to",
                value: block,
            });
        }
        let block = self.journaled.get(&block).copied().unwrap_or(block);
        let at = block
            .saturating_mul(self.superblock.block_size)
            .saturating_add(offset);
        Ok(self.volume.read(at, buffer)?)
    }
}
