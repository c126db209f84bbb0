//! Files, as all file systems here have them: runs of bytes on a volume.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::disk::{ReadError, Volume};
use crate::fields::{in_memory, on_disk};

/// The most runs that a file may have: one in larger pieces than 4 KiB has fewer at any size that is read here.
pub(crate) const MAX_RUNS: usize = 1 << 18;

/// Bytes that lie together on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Where; `None`: nowhere, they are zero.
    at: Option<u64>,
    /// How many; never 0.
    len: u64,
}

/// A file that was found: where its bytes are.
#[derive(Debug, Clone)]
pub struct File {
    volume: Volume,
    runs: Vec<Run>,
    size: u64,
}

impl File {
    /// A file without bytes.
    pub(crate) fn new(volume: &Volume) -> Self {
        Self {
            volume: volume.clone(),
            runs: Vec::new(),
            size: 0,
        }
    }

    /// All of a volume.
    pub fn of(volume: &Volume) -> Self {
        let size = volume.size();
        Self {
            runs: alloc::vec![Run {
                at: Some(0),
                len: size
            }],
            size,
            ..Self::new(volume)
        }
    }

    /// Appends bytes that lie at `at` of the volume, or are zero.
    pub(crate) fn push(&mut self, at: Option<u64>, len: u64) -> Result<(), FsError> {
        if len == 0 {
            return Ok(());
        }
        self.size = self.size.checked_add(len).ok_or(FsError::Fragments)?;
        if let Some(last) = self.runs.last_mut() {
            let next = last.at.map(|start| start.saturating_add(last.len));
            if next == at {
                last.len = last.len.saturating_add(len);
                return Ok(());
            }
        }
        if self.runs.len() == MAX_RUNS {
            return Err(FsError::Fragments);
        }
        self.runs.push(Run { at, len });
        Ok(())
    }

    /// Cuts what lies beyond `size`, or appends zeros.
    pub(crate) fn set_size(&mut self, size: u64) -> Result<(), FsError> {
        if let Some(missing) = size.checked_sub(self.size) {
            return self.push(None, missing);
        }
        while let Some(last) = self.runs.last_mut() {
            let surplus = self.size.saturating_sub(size);
            if surplus == 0 {
                break;
            }
            let cut = surplus.min(last.len);
            last.len = last.len.saturating_sub(cut);
            self.size = self.size.saturating_sub(cut);
            if last.len == 0 {
                self.runs.pop();
            }
        }
        Ok(())
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from byte `offset` on: each run by one request, or as few as the driver makes of it, straight into
    /// the buffer.
    ///
    /// # Errors
    ///
    /// [`ReadError`], also if the file ends before.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let outside = ReadError::Outside {
            offset,
            len: on_disk(buffer.len()),
            size: self.size,
        };
        let (mut skip, mut left) = (offset, buffer);
        for run in &self.runs {
            if left.is_empty() {
                break;
            }
            let Some(available) = run.len.checked_sub(skip).filter(|bytes| *bytes != 0) else {
                skip = skip.saturating_sub(run.len);
                continue;
            };
            let len = in_memory(available).min(left.len());
            let (now, later) = left.split_at_mut(len);
            match run.at {
                Some(at) => self.volume.read(at.saturating_add(skip), now)?,
                None => now.fill(0),
            }
            (skip, left) = (0, later);
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(outside)
        }
    }

    /// Where byte `offset` lies on the volume; `None` if it is zero without being anywhere, or beyond the end.
    pub(crate) fn place(&self, offset: u64) -> Option<u64> {
        let mut skip = offset;
        for run in &self.runs {
            match skip.checked_sub(run.len) {
                Some(left) => skip = left,
                None => return run.at?.checked_add(skip),
            }
        }
        None
    }

    /// The whole file, if it has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`FsError::TooLarge`], and if reading fails.
    pub fn read_all(&self, limit: usize) -> Result<Vec<u8>, FsError> {
        let size = in_memory(self.size);
        if size > limit {
            return Err(FsError::TooLarge {
                size: self.size,
                limit,
            });
        }
        let mut bytes = vec![0; size];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without a path.
    pub name: String,
    /// It is a directory; as far as the directory says so.
    pub is_dir: bool,
}

/// Why a file or a directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsError {
    /// The volume cannot be read.
    Read(ReadError),
    /// There is no file or directory of this name.
    NotFound(String),
    /// It is not a directory, but something is said to be in it.
    NotADirectory(String),
    /// It is not a file.
    NotAFile(String),
    /// More symbolic links lead to it than are followed.
    Links(String),
    /// The file system contradicts itself.
    Corrupt {
        /// What is wrong.
        what: &'static str,
        /// What it says.
        value: u64,
    },
    /// The file system uses something that is not read here.
    Unsupported {
        /// What.
        what: &'static str,
        /// Its flags, or number.
        value: u64,
    },
    /// The file is in more pieces than are kept.
    Fragments,
    /// The file is larger than makes sense.
    TooLarge {
        /// Bytes that it has.
        size: u64,
        /// The most.
        limit: usize,
    },
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::NotFound(path) => write!(f, "there is no {}", Printable(path)),
            Self::NotADirectory(path) => write!(f, "{} is not a directory", Printable(path)),
            Self::NotAFile(path) => write!(f, "{} is not a file", Printable(path)),
            Self::Links(path) => write!(f, "{}: too many symbolic links", Printable(path)),
            Self::Corrupt { what, value } => write!(f, "{what} ({value:#x})"),
            Self::Unsupported { what, value } => write!(f, "{what} ({value:#x}) is not supported"),
            Self::Fragments => f.write_str("a file is in too many pieces"),
            Self::TooLarge { size, limit } => {
                write!(f, "{size} bytes, of which {limit} are the most")
            }
        }
    }
}

impl core::error::Error for FsError {}

/// Text of a disk, without what would control a terminal.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use core::fmt::Write;
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => f.write_char('?'),
            c => f.write_char(c),
        })
    }
}

/// The names of a path, however it begins and whatever number of slashes is between them.
pub(crate) fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != ".")
}

pub(crate) fn not_found(path: &str) -> FsError {
    FsError::NotFound(path.to_owned())
}
