//! Opening a disk image.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use goldcrest_memory::io::{DirectAlignment, direct_alignment};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::DiskError;
use crate::spec::SECTOR_SIZE;

/// Which image, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiskConfig {
    /// A file or a block device.
    pub path: PathBuf,
    /// Whether it can only be read. Several disks can share an image that all only read.
    pub read_only: bool,
    /// Whether transfers go past the page cache of the host, where they are aligned for that.
    pub direct: bool,
    /// Whether io_uring is used, where the host has it. If not, the caller waits for every operation.
    pub io_uring: bool,
}

impl FileDiskConfig {
    /// An image that is written, through the page cache, by io_uring.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            direct: false,
            io_uring: true,
        }
    }
}

/// An image that is ready.
#[derive(Debug)]
pub(super) struct Image {
    /// Through the page cache.
    pub(super) file: File,
    /// Past the page cache.
    pub(super) direct: Option<(File, DirectAlignment)>,
    /// Bytes.
    pub(super) capacity: u64,
    /// Holds the lock, and is for nothing else: an io_uring keeps its files, and their locks with them, for some time
    /// after the process has ended, in which nobody could use the image.
    lock: Flock<File>,
}

impl Image {
    pub(super) fn open(config: &FileDiskConfig) -> Result<Self, DiskError> {
        let path = &config.path;
        let open_error = |source| DiskError::Open {
            path: path.clone(),
            source,
        };
        // Before it is opened, too: opening a pipe would wait for its other end.
        check_kind(
            path,
            std::fs::metadata(path).map_err(open_error)?.file_type(),
        )?;
        let file = options(config).open(path).map_err(open_error)?;
        check_kind(path, file.metadata().map_err(open_error)?.file_type())?;
        let lock = lock(file, config)?;
        let capacity = check_size(path, size(&lock).map_err(open_error)?)?;
        let file = open_again(config, &lock, OFlag::empty()).map_err(open_error)?;
        let direct = if config.direct {
            Some(open_direct(config, &lock)?)
        } else {
            None
        };
        Ok(Self {
            file,
            direct,
            capacity,
            lock,
        })
    }
}

impl Image {
    pub(super) fn is_in(&self, path: &Path) -> bool {
        let ours = self.file.metadata().map(|m| identity(&m));
        let its = std::fs::metadata(path).map(|m| identity(&m));
        matches!((ours, its), (Ok(ours), Ok(its)) if ours == its)
    }

    /// Sets the capacity by the file's size.
    pub(super) fn measure(&mut self, path: &Path) -> Result<(), DiskError> {
        let size = size(&self.lock).map_err(|source| DiskError::Open {
            path: path.to_owned(),
            source,
        })?;
        self.capacity = check_size(path, size)?;
        Ok(())
    }
}

fn identity(metadata: &Metadata) -> (u64, u64, u64) {
    (metadata.dev(), metadata.ino(), metadata.rdev())
}

fn options(config: &FileDiskConfig) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(!config.read_only);
    options
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), DiskError> {
    let what = match kind {
        _ if kind.is_file() || kind.is_block_device() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a character device",
    };
    Err(DiskError::Kind {
        path: path.to_owned(),
        what,
    })
}

/// Bytes of a file or a block device, whose metadata says 0.
fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn check_size(path: &Path, size: u64) -> Result<u64, DiskError> {
    let path = path.to_owned();
    match size {
        0 => Err(DiskError::Empty { path }),
        _ if size.is_multiple_of(SECTOR_SIZE) => Ok(size),
        _ => Err(DiskError::Size { path, size }),
    }
}

fn lock(file: File, config: &FileDiskConfig) -> Result<Flock<File>, DiskError> {
    let how = if config.read_only {
        FlockArg::LockSharedNonblock
    } else {
        FlockArg::LockExclusiveNonblock
    };
    let path = config.path.clone();
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => DiskError::InUse { path },
        errno => DiskError::Open {
            path,
            source: errno.into(),
        },
    })
}

/// Opens the file that `first` is once more.
fn open_again(config: &FileDiskConfig, first: &File, flags: OFlag) -> io::Result<File> {
    let file = options(config)
        .custom_flags(flags.bits())
        .open(&config.path)?;
    if identity(&first.metadata()?) == identity(&file.metadata()?) {
        Ok(file)
    } else {
        Err(io::Error::other("it was replaced while it was opened"))
    }
}

fn open_direct(
    config: &FileDiskConfig,
    first: &File,
) -> Result<(File, DirectAlignment), DiskError> {
    let error = |source| DiskError::Direct {
        path: config.path.clone(),
        source,
    };
    let direct =
        open_again(config, first, OFlag::O_DIRECT).map_err(|source| error(Some(source)))?;
    match direct_alignment(&direct).map_err(|source| error(Some(source)))? {
        Some(alignment) => Ok((direct, alignment)),
        None => Err(error(None)),
    }
}
