//! The two files, so that they are there whole or not at all.
//!
//! A snapshot replaces the one that is there in one step: the renaming of its state file. The state names the image of
//! the RAM by its identity, and until then that is under a name of its own, `.NAME.IDENTITY.part`, beside the one that
//! it will have. Should all end between that step and the renaming of the image, the image is found by that name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use goldcrest_memory::MemoryError;
use goldcrest_memory::image::{self, ImageId};

use super::state::{MAX_SIZE, MachineState, StateError};
use super::{SnapshotError, SnapshotFiles};

/// A snapshot that is being written.
pub(super) struct Store<'a> {
    files: &'a SnapshotFiles,
    id: ImageId,
    memory: Part,
    state: Part,
}

/// A file under another name than it will have, which is removed unless it gets it.
struct Part {
    file: File,
    path: PathBuf,
    done: bool,
}

impl<'a> Store<'a> {
    /// Begins a snapshot, beside what is there.
    pub(super) fn begin(files: &'a SnapshotFiles) -> Result<Self, SnapshotError> {
        let mut id = ImageId([0; 16]);
        getrandom::fill(&mut id.0).map_err(|source| SnapshotError::File {
            what: "get random numbers for",
            path: files.memory.clone(),
            source: source.into(),
        })?;
        if files.memory == files.state {
            return Err(file_error(
                "write the state to the memory file",
                &files.memory,
            )(io::ErrorKind::AlreadyExists.into()));
        }
        Ok(Self {
            memory: Part::create(&part_path(&files.memory, id))?,
            state: Part::create(&part_path(&files.state, id))?,
            files,
            id,
        })
    }

    /// The image's identity.
    pub(super) fn id(&self) -> ImageId {
        self.id
    }

    /// Where the image goes.
    pub(super) fn memory(&self) -> &File {
        &self.memory.file
    }

    /// The image is whole, and `state` is the state: both become the snapshot that is there.
    pub(super) fn commit(self, state: &[u8]) -> Result<(), SnapshotError> {
        let Self {
            files,
            memory,
            mut state,
            ..
        } = {
            let written = (&self.state.file).write_all(state);
            written.map_err(file_error("write", &self.state.path))?;
            self
        };
        for part in [&memory, &state] {
            let synced = part.file.sync_all();
            synced.map_err(file_error("write", &part.path))?;
        }
        sync_directory(&files.memory)?;
        state.rename(&files.state)?;
        sync_directory(&files.state)?;
        // From here on the new snapshot is the one, under whichever name its image has.
        let mut memory = memory;
        memory.done = true;
        memory.rename(&files.memory)?;
        sync_directory(&files.memory)
    }
}

impl Part {
    fn create(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        Ok(Self {
            file: file.map_err(file_error("create", path))?,
            path: path.to_owned(),
            done: false,
        })
    }

    fn rename(&mut self, to: &Path) -> Result<(), SnapshotError> {
        fs::rename(&self.path, to).map_err(file_error("write", to))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a state file, and looks whether it can be one.
pub(crate) fn read_state(path: &Path) -> Result<MachineState, SnapshotError> {
    let file = File::open(path).map_err(file_error("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(file_error("read", path))?;
    if bytes.len() as u64 > MAX_SIZE {
        let limit = "must be at most 64 MiB";
        return Err(super::state::impossible("size", bytes.len() as u64, limit));
    }
    MachineState::open(&bytes).map_err(|error| match error {
        StateError::Envelope(source) => SnapshotError::State {
            path: path.to_owned(),
            source,
        },
        StateError::Impossible(error) => error,
    })
}

/// Opens the image that `state` names.
pub(crate) fn open_image(path: &Path, state: &MachineState) -> Result<File, SnapshotError> {
    let memory = &state.memory;
    let open = |path: &Path| -> Result<File, SnapshotError> {
        let file = File::open(path).map_err(file_error("open", path))?;
        image::check(&file, memory.config.size, memory.id).map_err(|error| match error {
            MemoryError::NotTheImage(what) => SnapshotError::Memory {
                path: path.to_owned(),
                what,
            },
            error => error.into(),
        })?;
        Ok(file)
    };
    // One that was not renamed, since all ended before.
    open(path).or_else(|error| open(&part_path(path, memory.id)).map_err(|_| error))
}

/// The name of a file while it is written.
fn part_path(path: &Path, id: ImageId) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{id}.part"));
    path.with_file_name(name)
}

/// Makes sure that what was renamed in the directory of `path` stays so.
fn sync_directory(path: &Path) -> Result<(), SnapshotError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(file_error("write", directory))
}

pub(super) fn file_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::File { what, path, source }
}
