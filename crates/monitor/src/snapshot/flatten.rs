//! One snapshot of several.

use std::path::PathBuf;
use std::time::Instant;

use goldcrest_memory::image;

use super::chain::Chain;
use super::state::MemoryState;
use super::store::{Store, seal};
use super::{SnapshotError, SnapshotFiles, SnapshotReport};

/// Writes the snapshot `files`, and those that it is the difference to, as a full one into `to`: when this returns, it is
/// on the disk whole, and otherwise what was there before still is. All is read and compared with its checksums before.
///
/// `bases` are directories where bases are that are not where they are said to be. `progress` is called with how many
/// bytes are done, and of how many.
///
/// # Errors
///
/// [`SnapshotError`] if anything is missing, not as it was written, or cannot be written; or if `to` is one of those that
/// it is the difference to.
pub fn flatten(
    files: &SnapshotFiles,
    bases: &[PathBuf],
    to: &SnapshotFiles,
    mut progress: impl FnMut(u64, u64),
) -> Result<SnapshotReport, SnapshotError> {
    let begun = Instant::now();
    let chain = Chain::open(files, bases)?;
    chain.keep(to, 1)?;
    let size = chain.layers.size();
    let to_verify = size.saturating_mul(chain.len() as u64);
    let all = to_verify.saturating_add(size);
    chain.verify(|done| progress(done, all))?;
    let store = Store::begin(to)?;
    let written = image::merge(&chain.layers, store.memory(), store.id(), |done| {
        progress(to_verify.saturating_add(done), all);
    })?;
    let memory_written = written.bytes;
    let mut state = chain.state;
    state.memory = MemoryState {
        config: state.memory.config,
        id: store.id(),
        written: written.bytes,
        checksums: written.checksums,
        difference: None,
    };
    let sealed = seal(&state, to)?;
    store.commit(&sealed)?;
    Ok(SnapshotReport {
        memory_size: size,
        memory_written,
        state_size: sealed.len() as u64,
        took: begun.elapsed(),
    })
}
