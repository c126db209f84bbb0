//! The file system on a volume, whichever it is.

use alloc::string::String;
use alloc::vec::Vec;

use crate::disk::Volume;
use crate::ext::Ext;
use crate::fat::Fat;
use crate::fields::on_disk;
use crate::file::{DirEntry, File, FsError};

/// Bytes of a path at most.
const MAX_PATH: usize = 512;

/// A file system that can be read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FileSystem {
    /// FAT12, FAT16 or FAT32.
    Fat(Fat),
    /// ext2, ext3 or ext4.
    Ext(Ext),
}

impl FileSystem {
    /// The file system on a volume; `None` if it has none that can be read here.
    ///
    /// # Errors
    ///
    /// If there is one that contradicts itself or uses what is not read here, or the volume cannot be read.
    pub fn open(volume: &Volume) -> Result<Option<Self>, FsError> {
        if volume.size() < crate::SECTOR {
            return Ok(None);
        }
        if let Some(ext) = Ext::open(volume)? {
            return Ok(Some(Self::Ext(ext)));
        }
        Ok(Fat::open(volume)?.map(Self::Fat))
    }

    /// What it is called: `FAT32`, `ext4`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fat(fat) => fat.kind(),
            Self::Ext(ext) => ext.kind(),
        }
    }

    /// Its identity, as Linux has it in `UUID=`.
    pub fn uuid(&self) -> String {
        match self {
            Self::Fat(fat) => fat.uuid(),
            Self::Ext(ext) => ext.uuid(),
        }
    }

    /// What is in a directory; paths begin at the root.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, FsError> {
        check(path)?;
        match self {
            Self::Fat(fat) => fat.list(path),
            Self::Ext(ext) => ext.list(path),
        }
    }

    /// Finds a file.
    ///
    /// # Errors
    ///
    /// If there is none, or it contradicts the file system.
    pub fn find(&self, path: &str) -> Result<File, FsError> {
        check(path)?;
        match self {
            Self::Fat(fat) => fat.find(path),
            Self::Ext(ext) => ext.find(path),
        }
    }

    /// Whether there is a directory.
    pub fn is_dir(&self, path: &str) -> bool {
        self.list(path).is_ok()
    }
}

/// Refuses a path whose way through the directories would take long.
fn check(path: &str) -> Result<(), FsError> {
    if path.len() > MAX_PATH {
        return Err(FsError::TooLarge {
            size: on_disk(path.len()),
            limit: MAX_PATH,
        });
    }
    Ok(())
}

/// What is on a volume that has no file system that can be read here, as far as it is known.
pub fn foreign(volume: &Volume) -> Option<&'static str> {
    /// Where each kind has its mark.
    const MARKS: [(u64, &[u8], &str); 10] = [
        (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
        (0, b"XFSB", "XFS"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (0x218, b"LVM2 001", "a part of LVM"),
        (0xff6, b"SWAPSPACE2", "swap space"),
        (3, b"NTFS    ", "NTFS"),
        (3, b"EXFAT   ", "exFAT"),
        (0x8001, b"CD001", "ISO 9660"),
        (0, b"hsqs", "squashfs"),
        (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    ];
    let found = MARKS.iter().find(|(at, mark, _)| {
        let bytes = volume.array::<10>(*at).unwrap_or_default();
        bytes.starts_with(mark)
    });
    found.map(|(.., name)| *name)
}
