//! Taking a snapshot out of an archive.

use std::io::{Read, Write};
use std::time::Instant;

use goldcrest_archive::Key;
use goldcrest_memory::image::ImageSink;

use super::Contents;
use crate::snapshot::chain::refuse_to_replace_base;
use crate::snapshot::store::{Part, Store, file_error, part_path, sync_directory};
use crate::snapshot::{SnapshotError, SnapshotFiles, SnapshotInfo, SnapshotReport};

/// Writes the snapshot that an archive has into `files`: when this returns, it is on the disk whole, and otherwise what was
/// there before still is.
///
/// `progress` is called with how many bytes of RAM are done, and of how many.
///
/// # Errors
///
/// [`SnapshotError`] if it is none, is damaged, another key is needed, or it cannot be written; or if it is the difference to
/// one that it would replace.
pub fn unpack(
    from: impl Read,
    files: &SnapshotFiles,
    key: Option<&Key>,
    mut progress: impl FnMut(u64, u64),
) -> Result<SnapshotReport, SnapshotError> {
    let begun = Instant::now();
    let mut contents = Contents::new(from, key)?;
    let memory = contents.state.memory.clone();
    refuse_to_replace_base(files, &memory)?;
    let store = Store::begin(files)?;
    let set = match contents.working_set.take() {
        Some(bytes) => {
            let path = files.working_set();
            let part = Part::create(&part_path(&path, store.id()))?;
            let written = (&part.file).write_all(&bytes);
            let written = written.and_then(|()| part.file.sync_all());
            written.map_err(file_error("write", &part.path))?;
            Some((path, part))
        }
        None => None,
    };
    let sealed = std::mem::take(&mut contents.sealed);
    let sink = ImageSink::new(Some(store.memory()), memory.config.size)?;
    contents.pages(sink, &mut progress)?;
    store.commit_as(memory.id, &sealed)?;
    if let Some((path, mut part)) = set {
        part.rename(&path)?;
        sync_directory(&path)?;
    }
    Ok(SnapshotReport {
        memory_size: memory.config.size,
        memory_written: memory.written,
        state_size: sealed.len() as u64,
        took: begun.elapsed(),
    })
}

/// Reads all of an archive, and compares it with its checksums, as [`unpack`] does; nothing is written.
///
/// # Errors
///
/// [`SnapshotError`] with the first thing that is not as it was written.
pub fn verify_archive(from: impl Read, key: Option<&Key>) -> Result<SnapshotInfo, SnapshotError> {
    let contents = Contents::new(from, key)?;
    let info = SnapshotInfo::of(&contents.state);
    let sink = ImageSink::new(None, info.memory_size)?;
    contents.pages(sink, &mut |_, _| {})?;
    Ok(info)
}
