//! The file `working-set` beside a snapshot: which pages of its memory a run touched.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use goldcrest_memory::GuestRam;
use goldcrest_memory::image::ImageId;
use goldcrest_memory::working_set::WorkingSet;
use goldcrest_snapshot::{open_state, seal_state};
use serde::{Deserialize, Serialize};

use super::state::{MemoryState, impossible};
use super::store::{Part, file_error, open_file, part_path, sync_directory};
use super::{SnapshotError, SnapshotFiles};
use crate::{MonitorError, generation};

/// What the envelope says that it has.
const KIND: &str = "working-set";
const VERSION: u16 = 1;
/// The most bytes of the file: more than extents need.
pub(super) const MAX_SIZE: u64 = 1 << 20;
/// Sets of fewer bytes save less than what runs differ by (`ci/bench-working-set`).
const WORTH_IT: u64 = 256 << 10;

/// What is in the envelope.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Whose pages they are.
    image: ImageId,
    set: WorkingSet,
}

/// Where a run's working set goes.
#[derive(Debug)]
pub(crate) struct Recording {
    path: PathBuf,
    image: ImageId,
}

impl SnapshotFiles {
    /// The file beside the memory that has the [working set](super::RestoreConfig::record_working_set), if it was recorded.
    pub fn working_set(&self) -> PathBuf {
        self.memory.with_file_name("working-set")
    }
}

/// The working set of a snapshot, if one was recorded that is worth to be had before it is needed.
pub(crate) fn load(
    files: &SnapshotFiles,
    memory: &MemoryState,
) -> Result<Option<WorkingSet>, SnapshotError> {
    let Some(bytes) = read_if_there(files)? else {
        return Ok(None);
    };
    let (image, size) = (memory.id, memory.config.size);
    believe(&files.working_set(), &bytes, image, size).map(worth_it)
}

/// The bytes of a snapshot's working set, if one was recorded of it.
pub(super) fn load_bytes(
    files: &SnapshotFiles,
    memory: &MemoryState,
) -> Result<Option<Vec<u8>>, SnapshotError> {
    let Some(bytes) = read_if_there(files)? else {
        return Ok(None);
    };
    let (image, size) = (memory.id, memory.config.size);
    let set = believe(&files.working_set(), &bytes, image, size)?;
    Ok(set.is_some().then_some(bytes))
}

/// The working set that a file with these bytes has, of an image with this identity and of `size` bytes of RAM. Nothing if
/// it is another image's, or not worth to be had before it is needed.
///
/// # Errors
///
/// [`SnapshotError`] if it is none, is damaged, or has pages that the image has not.
pub fn parse(bytes: &[u8], image: ImageId, size: u64) -> Result<Option<WorkingSet>, SnapshotError> {
    believe(Path::new("working-set"), bytes, image, size).map(worth_it)
}

/// The set that the bytes of the file at `path` are, if it is one of this image.
pub(super) fn believe(
    path: &Path,
    bytes: &[u8],
    image: ImageId,
    size: u64,
) -> Result<Option<WorkingSet>, SnapshotError> {
    let opened = open_state(KIND, VERSION, bytes);
    let saved: Saved = opened.map_err(|source| SnapshotError::State {
        path: path.to_owned(),
        source,
    })?;
    if saved.image != image {
        // One that was recorded of the snapshot before.
        return Ok(None);
    }
    let checked = saved.set.check(size);
    checked.map_err(|what| SnapshotError::WorkingSet {
        path: path.to_owned(),
        what,
    })?;
    Ok(Some(saved.set))
}

fn worth_it(set: Option<WorkingSet>) -> Option<WorkingSet> {
    set.filter(|set| {
        let (read, written) = set.bytes();
        read.saturating_add(written) >= WORTH_IT
    })
}

fn read_if_there(files: &SnapshotFiles) -> Result<Option<Vec<u8>>, SnapshotError> {
    match read(&files.working_set()) {
        Err(SnapshotError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = Vec::new();
    let file = open_file(path)?;
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(file_error("read", path))?;
    match bytes.len() as u64 {
        0..=MAX_SIZE => Ok(bytes),
        size => Err(impossible(
            "size of the working set",
            size,
            "must be at most 1 MiB",
        )),
    }
}

impl Recording {
    pub(crate) fn new(files: &SnapshotFiles, image: ImageId) -> Self {
        Self {
            path: files.working_set(),
            image,
        }
    }

    /// Writes which pages of RAM were touched, whole or not at all.
    pub(crate) fn write(&self, ram: &GuestRam) -> Result<(), MonitorError> {
        let set = WorkingSet::of(ram).map_err(file_error("find out what is in", &self.path))?;
        let saved = Saved {
            image: self.image,
            set,
        };
        let bytes = seal_state(KIND, VERSION, &saved).map_err(|source| SnapshotError::State {
            path: self.path.clone(),
            source,
        })?;
        let unique = ImageId(generation::fresh()?);
        let mut part = Part::create(&part_path(&self.path, unique))?;
        (&part.file)
            .write_all(&bytes)
            .and_then(|()| part.file.sync_all())
            .map_err(file_error("write", &part.path))?;
        part.rename(&self.path)?;
        Ok(sync_directory(&self.path)?)
    }
}
