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
    Ok(parse(&files.working_set(), &bytes, memory)?.filter(|set| {
        let (read, written) = set.bytes();
        read.saturating_add(written) >= WORTH_IT
    }))
}

/// The bytes of a snapshot's working set, if one was recorded of it.
pub(super) fn load_bytes(
    files: &SnapshotFiles,
    memory: &MemoryState,
) -> Result<Option<Vec<u8>>, SnapshotError> {
    let Some(bytes) = read_if_there(files)? else {
        return Ok(None);
    };
    let set = parse(&files.working_set(), &bytes, memory)?;
    Ok(set.is_some().then_some(bytes))
}

/// The set that the bytes of the file at `path` are, if it is one of this memory.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    memory: &MemoryState,
) -> Result<Option<WorkingSet>, SnapshotError> {
    let path = path.to_owned();
    let Saved { image, set } = match open_state(KIND, VERSION, bytes) {
        Ok(saved) => saved,
        Err(source) => return Err(SnapshotError::State { path, source }),
    };
    if image != memory.id {
        // One that was recorded of the snapshot before.
        return Ok(None);
    }
    set.check(memory.config.size)
        .map_err(|what| SnapshotError::WorkingSet { path, what })?;
    Ok(Some(set))
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
