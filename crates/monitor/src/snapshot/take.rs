//! Saving a machine that is paused.

use std::time::Instant;

use goldcrest_memory::Tracker;
use goldcrest_memory::image::{self, Changes};

use super::chain::Chain;
use super::lineage::{Last, absolute};
use super::state::MemoryState;
use super::store::{Store, seal};
use super::subject::{Subject, lock};
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
    subject.check()?;
    let mut last = lock(&subject.lineage.last);
    let base = match (kind, &*last) {
        (SnapshotKind::Full, _) => None,
        (SnapshotKind::Diff, Some(last)) => Some(last.open(files)?),
        (SnapshotKind::Diff, None) => return Err(SnapshotError::NoBase),
    };
    // Accesses are finished while devices still take them. What devices then have to do may interrupt a CPU, so that
    // CPUs are saved after it.
    hold.perform(Task::FinishAccess)?;
    let quiet = subject.quiesce();
    hold.perform(Task::Save)?;
    let cpus = subject.saved_cpus()?;
    let store = Store::begin(files)?;
    let tracker = last.as_ref().and_then(|last| last.tracker.as_ref());
    let memory = write(subject, &store, base.as_ref().zip(Some((files, tracker))))?;
    let memory_written = memory.changed();
    // From here on, changes are counted from this one. Should it come to nothing, pages will be compared with those of
    // the one before.
    let tracker = last.as_mut().and_then(|last| last.tracker.take());
    let tracker = subject.lineage.watch(tracker, &subject.ram);
    let id = store.id();
    let state = subject.state(cpus, &quiet, memory)?;
    // What devices do from now on is not in it any more.
    drop(quiet);
    let sealed = seal(&state, files)?;
    store.commit(&sealed)?;
    *last = Some(Last {
        files: absolute(files),
        id,
        bases: match (base, last.take()) {
            (Some(_), Some(last)) => last.bases,
            _ => Vec::new(),
        },
        tracker,
    });
    Ok(SnapshotReport {
        memory_size: subject.ram.size(),
        memory_written,
        state_size: sealed.len() as u64,
        took: begun.elapsed(),
    })
}

/// Writes RAM or, with a base, what of it has changed since.
fn write(
    subject: &Subject,
    store: &Store<'_>,
    base: Option<(&Chain, (&SnapshotFiles, Option<&Tracker>))>,
) -> Result<MemoryState, SnapshotError> {
    let (ram, file, id) = (&subject.ram, store.memory(), store.id());
    let (written, difference) = match base {
        None => (image::write(ram, file, id)?, None),
        Some((chain, (files, tracker))) => {
            let changes = match tracker {
                Some(tracker) => Changes::Tracked(tracker),
                None => Changes::Compared(&chain.layers),
            };
            let (written, extents) = image::write_changes(ram, file, id, changes)?;
            chain.check_over(&extents)?;
            (written, Some(chain.named_by(files, extents)?))
        }
    };
    Ok(MemoryState {
        config: subject.memory,
        id,
        written: written.bytes,
        checksums: written.checksums,
        difference,
    })
}
