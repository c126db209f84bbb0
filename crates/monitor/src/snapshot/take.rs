//! Saving a machine that is paused.

use std::time::Instant;

use goldcrest_memory::image;

use super::store::Store;
use super::subject::Subject;
use super::{SnapshotError, SnapshotFiles, SnapshotKind, SnapshotReport};
use crate::control::{Hold, Task};

/// Saves `subject`, whose CPUs `hold` keeps from running.
pub(crate) fn take(
    subject: &Subject,
    hold: &Hold<'_>,
    files: &SnapshotFiles,
    kind: SnapshotKind,
) -> Result<SnapshotReport, SnapshotError> {
    let begun = Instant::now();
    if kind == SnapshotKind::Diff {
        return Err(SnapshotError::NoBase);
    }
    subject.check()?;
    // Accesses are finished while devices still take them. What devices then have to do may interrupt a CPU, so that
    // CPUs are saved after it.
    hold.perform(Task::FinishAccess)?;
    let quiet = subject.quiesce();
    hold.perform(Task::Save)?;
    let cpus = subject.saved_cpus()?;
    let store = Store::begin(files)?;
    let written = image::write(&subject.ram, store.memory(), store.id())?;
    let memory_written = written.bytes;
    let state = subject.state(cpus, &quiet, (store.id(), written))?;
    // What devices do from now on is not in it any more.
    drop(quiet);
    let sealed = state.seal().map_err(|source| SnapshotError::State {
        path: files.state.clone(),
        source,
    })?;
    store.commit(&sealed)?;
    Ok(SnapshotReport {
        memory_size: subject.ram.size(),
        memory_written,
        state_size: sealed.len() as u64,
        took: begun.elapsed(),
    })
}
