//! Putting a snapshot into an archive.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use goldcrest_archive::{Key, Writer};
use goldcrest_memory::MemoryError;
use goldcrest_memory::image::{self, ImageId, ImageSink};

use crate::generation::random;
use crate::snapshot::store::{
    Part, file_error, open_image, part_path, read_state_file, sync_directory,
};
use crate::snapshot::working_set;
use crate::snapshot::{SnapshotError, SnapshotFiles, SnapshotReport};

/// Writes the snapshot `files` into `to`, encrypted if there is a key. Its memory is compared with its checksums.
///
/// A difference is packed as it is: what it is the difference to stays where it is found. `progress` is called with how
/// many bytes of RAM are done, and of how many.
///
/// # Errors
///
/// [`SnapshotError`] if anything of the snapshot is missing or not as it was written, or cannot be written; what was written
/// until then is no archive.
pub fn pack(
    files: &SnapshotFiles,
    to: impl Write,
    key: Option<&Key>,
    mut progress: impl FnMut(u64, u64),
) -> Result<SnapshotReport, SnapshotError> {
    let begun = Instant::now();
    let (sealed, state) = read_state_file(&files.state)?;
    let memory = &state.memory;
    let file = Arc::new(open_image(&files.memory, &state)?);
    let set = working_set::load_bytes(files, memory)?.unwrap_or_default();

    let mut writer = Writer::new(to, key)?;
    for bytes in [&sealed, &set] {
        writer.put(&(bytes.len() as u64).to_le_bytes())?;
        writer.put(bytes)?;
    }
    let mut sink = ImageSink::new(None, memory.config.size)?;
    let mut done = 0;
    image::read(&file, memory.config.size, |offset, bytes| {
        sink.put(offset, bytes)?;
        writer.put(&offset.to_le_bytes())?;
        writer.put(&(bytes.len() as u64).to_le_bytes())?;
        writer.put(bytes)?;
        done += bytes.len() as u64;
        progress(done, memory.written);
        Ok::<(), SnapshotError>(())
    })?;
    writer.put(&[0; 16])?;
    let written = sink.finish(memory.id)?;
    let checked = written.check(memory.config.size, &memory.checksums);
    checked.map_err(|error| match error {
        MemoryError::NotTheImage(what) => SnapshotError::Memory {
            path: files.memory.clone(),
            what,
        },
        error => error.into(),
    })?;
    writer.finish()?;
    Ok(SnapshotReport {
        memory_size: memory.config.size,
        memory_written: written.bytes,
        state_size: sealed.len() as u64,
        took: begun.elapsed(),
    })
}

/// As [`pack`], into a file: when this returns, it is on the disk whole, and otherwise what was there before still is. Also
/// how many bytes it has.
///
/// # Errors
///
/// As for that.
pub fn pack_file(
    files: &SnapshotFiles,
    path: &Path,
    key: Option<&Key>,
    progress: impl FnMut(u64, u64),
) -> Result<(SnapshotReport, u64), SnapshotError> {
    let mut unique = ImageId([0; 16]);
    random(&mut unique.0).map_err(file_error("get random numbers for", path))?;
    let mut part = Part::create(&part_path(path, unique))?;
    let report = pack(files, BufWriter::new(&part.file), key, progress)?;
    let synced = part.file.sync_all();
    synced.map_err(file_error("write", &part.path))?;
    let len = fs::metadata(&part.path).map_err(file_error("write", &part.path))?;
    part.rename(path)?;
    sync_directory(path)?;
    Ok((report, len.len()))
}
