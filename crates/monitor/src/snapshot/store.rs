//! The two files, so that they are there whole or not at all.
//!
//! A snapshot replaces the one that is there in one step: the renaming of its state file. The state names the image of
//! the RAM by its identity, and until then that is under a name of its own, `.NAME.IDENTITY.part`, beside the one that
//! it will have. Should all end between that step and the renaming of the image, the image is found by that name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use goldcrest_memory::MemoryError;
use goldcrest_memory::image::{self, ImageId};
use nix::fcntl::OFlag;

use super::chain::parent;
use super::state::{MAX_SIZE, MachineState, StateError};
use super::{SnapshotError, SnapshotFiles};
use crate::generation::random;

/// A snapshot that is being written.
pub(super) struct Store<'a> {
    files: &'a SnapshotFiles,
    id: ImageId,
    memory: Part,
    state: Part,
}

/// A file under another name than it will have, which is removed unless it gets it.
pub(super) struct Part {
    pub(super) file: File,
    pub(super) path: PathBuf,
    done: bool,
}

impl<'a> Store<'a> {
    /// Begins a snapshot, beside what is there.
    pub(super) fn begin(files: &'a SnapshotFiles) -> Result<Self, SnapshotError> {
        let mut id = ImageId([0; 16]);
        random(&mut id.0).map_err(file_error("get random numbers for", &files.memory))?;
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
        let id = self.id;
        self.commit_as(id, state)
    }

    /// As [`commit`](Self::commit), of an image that has another identity than the one that it was begun with.
    pub(super) fn commit_as(self, id: ImageId, state: &[u8]) -> Result<(), SnapshotError> {
        let Self {
            files,
            mut memory,
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
        memory.take_name(part_path(&files.memory, id))?;
        sync_directory(&files.memory)?;
        state.rename(&files.state)?;
        // From here on the new snapshot is the one, under whichever name its image has and whatever fails.
        memory.done = true;
        sync_directory(&files.state)?;
        memory.rename(&files.memory)?;
        sync_directory(&files.memory)
    }
}

impl Part {
    pub(super) fn create(path: &Path) -> Result<Self, SnapshotError> {
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

    /// Takes another name until it gets its own.
    fn take_name(&mut self, path: PathBuf) -> Result<(), SnapshotError> {
        if path == self.path {
            return Ok(());
        }
        // A snapshot whose writer was killed may be there with its image under this name. It is the same image, and is not
        // removed if this fails later.
        let is_needed = path.exists();
        fs::rename(&self.path, &path).map_err(file_error("write", &path))?;
        self.path = path;
        self.done = is_needed;
        Ok(())
    }

    pub(super) fn rename(&mut self, to: &Path) -> Result<(), SnapshotError> {
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

/// The bytes of a state that goes into `files`.
pub(super) fn seal(state: &MachineState, files: &SnapshotFiles) -> Result<Vec<u8>, SnapshotError> {
    state.seal().map_err(|source| SnapshotError::State {
        path: files.state.clone(),
        source,
    })
}

/// Reads a state file, and looks whether it can be one.
pub(crate) fn read_state(path: &Path) -> Result<MachineState, SnapshotError> {
    read_state_file(path).map(|(_, state)| state)
}

/// As [`read_state`]; also its bytes.
pub(super) fn read_state_file(path: &Path) -> Result<(Vec<u8>, MachineState), SnapshotError> {
    let file = open_file(path)?;
    // With the room for one read, and for the one that finds the end.
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let room = usize::try_from(len.min(MAX_SIZE) + 1).unwrap_or(0);
    let mut bytes = Vec::with_capacity(room);
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(file_error("read", path))?;
    if bytes.len() as u64 > MAX_SIZE {
        let limit = "must be at most 64 MiB";
        return Err(super::state::impossible("size", bytes.len() as u64, limit));
    }
    let state = parse_state(path, &bytes)?;
    Ok((bytes, state))
}

/// Looks whether the bytes of the file at `path` can be a state.
pub(super) fn parse_state(path: &Path, bytes: &[u8]) -> Result<MachineState, SnapshotError> {
    MachineState::open(bytes).map_err(|error| match error {
        StateError::Envelope(source) => SnapshotError::State {
            path: path.to_owned(),
            source,
        },
        StateError::Impossible(error) => error,
    })
}

/// Opens a file, and nothing that would have one wait or never ends.
pub(super) fn open_file(path: &Path) -> Result<File, SnapshotError> {
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let opened = opened.and_then(|file| match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    });
    opened.map_err(file_error("open", path))
}

/// Opens the image that `state` names.
pub(crate) fn open_image(path: &Path, state: &MachineState) -> Result<File, SnapshotError> {
    open_image_of(path, state.memory.config.size, state.memory.id)
}

fn open_image_of(path: &Path, size: u64, id: ImageId) -> Result<File, SnapshotError> {
    let open = |path: &Path| -> Result<File, SnapshotError> {
        let file = open_file(path)?;
        image::check(&file, size, id).map_err(|error| match error {
            MemoryError::NotTheImage(what) => SnapshotError::Memory {
                path: path.to_owned(),
                what,
            },
            error => error.into(),
        })?;
        Ok(file)
    };
    // One that was not renamed, since all ended before.
    open(path).or_else(|error| open(&part_path(path, id)).map_err(|_| error))
}

/// The name of a file while it is written.
pub(super) fn part_path(path: &Path, id: ImageId) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{id}.part"));
    path.with_file_name(name)
}

/// Makes sure that what was renamed in the directory of `path` stays so.
pub(super) fn sync_directory(path: &Path) -> Result<(), SnapshotError> {
    let directory = parent(path);
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

#[cfg(test)]
mod tests {
    use super::*;
    use goldcrest_memory::{GuestRam, MemoryConfig};

    fn files(directory: &Path) -> SnapshotFiles {
        SnapshotFiles::in_directory(directory)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_snapshot_that_is_given_up_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::write(&files.state, "old state").unwrap();
        fs::write(&files.memory, "old memory").unwrap();
        let store = Store::begin(&files).unwrap();
        assert_eq!(names(directory.path()).len(), 4);
        drop(store);
        assert_eq!(names(directory.path()), ["memory", "state"]);
        assert_eq!(fs::read(&files.state).unwrap(), b"old state");
        assert_eq!(fs::read(&files.memory).unwrap(), b"old memory");
    }

    #[test]
    fn both_files_are_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        for state in ["one", "two"] {
            let store = Store::begin(&files).unwrap();
            store.memory().set_len(1).unwrap();
            store.commit(state.as_bytes()).unwrap();
            assert_eq!(names(directory.path()), ["memory", "state"]);
            assert_eq!(fs::read_to_string(&files.state).unwrap(), state);
        }
    }

    #[test]
    fn where_nothing_can_be_written_the_file_is_named() {
        let files = files(Path::new("/proc/nowhere"));
        let error = Store::begin(&files).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("cannot create /proc/nowhere/.memory."),
            "{error}"
        );
        let same = SnapshotFiles {
            state: "/tmp/x".into(),
            memory: "/tmp/x".into(),
        };
        assert!(Store::begin(&same).is_err());
    }

    /// All ended after the state was renamed, and before the image was.
    #[test]
    fn an_image_that_does_not_have_its_name_yet_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        let config = MemoryConfig {
            size: 1 << 20,
            ..MemoryConfig::default()
        };
        let ram = GuestRam::new(&config).unwrap();
        let write = |path: &Path, id| {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path);
            image::write(&ram, &file.unwrap(), id).unwrap();
        };
        let (old, new) = (ImageId([1; 16]), ImageId([2; 16]));
        write(&path, old);
        let open = |id| open_image_of(&path, config.size, id);
        assert!(open(old).is_ok());
        let error = open(new).unwrap_err().to_string();
        assert!(error.contains("belongs to another state"), "{error}");
        write(&part_path(&path, new), new);
        assert!(open(new).is_ok());
    }
}
