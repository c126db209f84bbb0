//! FAT12, FAT16 and FAT32, read-only, with long names (Microsoft's *FAT: General Overview of On-Disk Format* 1.03).

mod bpb;
mod directory;
mod table;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bpb::{Layout, Width};
use directory::Found;
use table::Table;

use crate::disk::Volume;
use crate::file::{DirEntry, File, FsError, names, not_found};

/// A directory has at most so many bytes: 65536 entries.
const MAX_DIRECTORY: u64 = 65536 * 32;
/// The first cluster of data.
const FIRST_CLUSTER: u32 = 2;

/// A FAT file system.
#[derive(Debug, Clone)]
pub struct Fat {
    volume: Volume,
    layout: Layout,
}

/// Where a file or directory begins.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// The root directory of FAT12 and FAT16, which is not in clusters.
    FixedRoot,
    Cluster(u32),
}

impl Fat {
    /// The file system on a volume; `None` if there is none of this kind.
    ///
    /// # Errors
    ///
    /// If there is one that contradicts itself, or the volume cannot be read.
    pub fn open(volume: &Volume) -> Result<Option<Self>, FsError> {
        let sector: [u8; 512] = volume.array(0)?;
        let Some(layout) = Layout::parse(&sector, volume.size())? else {
            return Ok(None);
        };
        Ok(Some(Self {
            volume: volume.clone(),
            layout,
        }))
    }

    /// Which of the three it is.
    pub fn kind(&self) -> &'static str {
        match self.layout.width {
            Width::Fat12 => "FAT12",
            Width::Fat16 => "FAT16",
            Width::Fat32 => "FAT32",
        }
    }

    /// The volume's serial number, as Linux has it in `UUID=`.
    pub fn uuid(&self) -> String {
        let [high, low] = [self.layout.serial >> 16, self.layout.serial & 0xffff];
        format!("{high:04X}-{low:04X}")
    }

    /// What is in a directory.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, FsError> {
        let mut entries = Vec::new();
        self.scan(self.directory(path)?, |found| {
            entries.push(DirEntry {
                name: found.name().to_owned(),
                is_dir: found.is_dir(),
            });
            false
        })?;
        Ok(entries)
    }

    /// Finds a file.
    ///
    /// # Errors
    ///
    /// If there is none, or it contradicts the file system.
    pub fn find(&self, path: &str) -> Result<File, FsError> {
        let mut all = names(path);
        let name = all
            .next_back()
            .ok_or_else(|| FsError::NotAFile(path.to_owned()))?;
        let parent = self.descend(all, path)?;
        let found = self.lookup(parent, name)?.ok_or_else(|| not_found(path))?;
        if found.is_dir() {
            return Err(FsError::NotAFile(path.to_owned()));
        }
        let size = u64::from(found.size());
        let mut file = File::new(&self.volume);
        if size != 0 {
            self.follow(found.cluster(), size, &mut file)?;
            if file.size() < size {
                return Err(FsError::Corrupt {
                    what: "a file has fewer clusters than bytes",
                    value: size,
                });
            }
        }
        file.set_size(size)?;
        Ok(file)
    }

    fn directory(&self, path: &str) -> Result<Start, FsError> {
        self.descend(names(path), path)
    }

    /// The directory that these names lead to, from the root.
    fn descend<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        path: &str,
    ) -> Result<Start, FsError> {
        let root = match self.layout.width {
            Width::Fat32 => Start::Cluster(self.layout.root_cluster),
            Width::Fat12 | Width::Fat16 => Start::FixedRoot,
        };
        let mut at = root;
        for name in names {
            let found = self.lookup(at, name)?.ok_or_else(|| not_found(path))?;
            if !found.is_dir() {
                return Err(FsError::NotADirectory(path.to_owned()));
            }
            // The entry `..` of a directory in the root says 0.
            at = match found.cluster() {
                0 => root,
                cluster => Start::Cluster(cluster),
            };
        }
        Ok(at)
    }

    fn lookup(&self, directory: Start, name: &str) -> Result<Option<Found>, FsError> {
        let mut result = None;
        self.scan(directory, |found| {
            let same = found.is_called(name);
            if same {
                result = Some(found.clone());
            }
            same
        })?;
        Ok(result)
    }

    /// Calls `each` with what is in a directory, until it gives true.
    fn scan(&self, directory: Start, each: impl FnMut(&Found) -> bool) -> Result<(), FsError> {
        let mut file = File::new(&self.volume);
        match directory {
            Start::FixedRoot => {
                file.push(Some(self.layout.root_start), self.layout.root_size)?;
            }
            Start::Cluster(first) => self.follow(first, MAX_DIRECTORY, &mut file)?,
        }
        directory::scan(&file, each)
    }

    /// Appends the clusters of a chain to `file`, up to `size` bytes and what fills the last cluster.
    fn follow(&self, first: u32, size: u64, file: &mut File) -> Result<(), FsError> {
        let cluster_size = self.layout.cluster_size;
        let mut table = Table::new(&self.volume, &self.layout);
        let mut cluster = first;
        while file.size() < size {
            if !self.layout.is_cluster(cluster) {
                return Err(FsError::Corrupt {
                    what: "a chain leads to a cluster that does not exist",
                    value: cluster.into(),
                });
            }
            let index = u64::from(cluster.saturating_sub(FIRST_CLUSTER));
            let offset = index.saturating_mul(cluster_size);
            let at = self.layout.data_start.saturating_add(offset);
            file.push(Some(at), cluster_size)?;
            match table.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(())
    }
}
