//! Reading what is in an archive, as hostile as it may be.

use std::io::Read;
use std::path::Path;

use goldcrest_archive::{Key, MAX_CHUNK, Reader};
use goldcrest_memory::image::ImageSink;

use crate::snapshot::SnapshotError;
use crate::snapshot::state::{MAX_SIZE, MachineState};
use crate::snapshot::store::parse_state;
use crate::snapshot::working_set;

/// An archive, read up to the pages of RAM.
pub(super) struct Contents<'a, R> {
    reader: Reader<'a, R>,
    /// The bytes of the state file.
    pub(super) sealed: Vec<u8>,
    /// What they say.
    pub(super) state: MachineState,
    /// The bytes of the working set's file, if there is one.
    pub(super) working_set: Option<Vec<u8>>,
}

impl<'a, R: Read> Contents<'a, R> {
    /// Reads the state and the working set, and looks whether they can be.
    pub(super) fn new(from: R, key: Option<&'a Key>) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(from, key)?;
        let sealed = file(&mut reader, "a state", MAX_SIZE)?;
        let state = parse_state(Path::new("state"), &sealed)?;
        let set = file(&mut reader, "a working set", working_set::MAX_SIZE)?;
        let working_set = (!set.is_empty()).then_some(set);
        if let Some(set) = &working_set {
            let (image, size) = (state.memory.id, state.memory.config.size);
            let parsed = working_set::believe(Path::new("working-set"), set, image, size)?;
            if parsed.is_none() {
                let what = "a working set of another snapshot";
                return Err(SnapshotError::Contents(what.to_owned()));
            }
        }
        Ok(Self {
            reader,
            sealed,
            state,
            working_set,
        })
    }

    /// Reads the pages into `sink`, and looks whether they are those that the state means and all that there is. `progress` is
    /// called with how many bytes are done, and of how many.
    pub(super) fn pages(
        mut self,
        mut sink: ImageSink<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), SnapshotError> {
        let memory = &self.state.memory;
        let mut buffer = Vec::new();
        let mut done: u64 = 0;
        loop {
            let (offset, len) = (number(&mut self.reader)?, number(&mut self.reader)?);
            if len == 0 {
                if offset != 0 {
                    return Err(run(offset, len, "and has no pages"));
                }
                break;
            }
            let most = usize::try_from(len).ok().filter(|len| *len <= MAX_CHUNK);
            let len = most.ok_or_else(|| run(offset, len, "and is longer than 1 MiB"))?;
            buffer.resize(len, 0);
            self.reader.take(&mut buffer)?;
            // A disk is not to be filled with more than the state says that there is.
            done = done.saturating_add(len as u64);
            if done > memory.written {
                return Err(SnapshotError::Contents(format!(
                    "{done} bytes of RAM or more, its state says {}",
                    memory.written
                )));
            }
            sink.put(offset, &buffer)?;
            progress(done, memory.written);
        }
        self.reader.finish()?;
        let written = sink.finish(memory.id)?;
        let checked = written.check(memory.config.size, &memory.checksums);
        checked.map_err(|error| SnapshotError::Contents(format!("a memory that {error}")))
    }
}

/// Reads a file of `most` bytes or less, with its length before it.
fn file<R: Read>(
    reader: &mut Reader<'_, R>,
    what: &str,
    most: u64,
) -> Result<Vec<u8>, SnapshotError> {
    let len = number(reader)?;
    if len > most {
        return Err(SnapshotError::Contents(format!(
            "{what} of {len} bytes, must be at most {most}"
        )));
    }
    let mut bytes = Vec::new();
    let mut left = usize::try_from(len).unwrap_or_default();
    // No more room than there are bytes for it.
    while left > 0 {
        let (at, now) = (bytes.len(), left.min(MAX_CHUNK));
        bytes.resize(at + now, 0);
        reader.take(bytes.get_mut(at..).unwrap_or_default())?;
        left -= now;
    }
    Ok(bytes)
}

fn number<R: Read>(reader: &mut Reader<'_, R>) -> Result<u64, SnapshotError> {
    let mut bytes = [0; 8];
    reader.take(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn run(offset: u64, len: u64, what: &str) -> SnapshotError {
    SnapshotError::Contents(format!(
        "a run of {len} bytes of RAM that begins at {offset:#x} {what}"
    ))
}
