//! What a machine's next snapshot can be the difference to.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use goldcrest_memory::image::ImageId;
use goldcrest_memory::{GuestRam, Tracker};

use super::chain::Chain;
use super::subject::lock;
use super::{SnapshotError, SnapshotFiles};

/// The snapshot that a machine was made from, or the last that was made of it.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// Whether RAM is watched from one snapshot to the next.
    track: bool,
    pub(super) last: Mutex<Option<Last>>,
}

#[derive(Debug)]
pub(super) struct Last {
    pub(super) files: SnapshotFiles,
    pub(super) id: ImageId,
    /// Where bases are that are not where they are said to be.
    pub(super) bases: Vec<PathBuf>,
    /// What has changed since, if RAM is watched.
    pub(super) tracker: Option<Tracker>,
}

impl Lineage {
    /// Of a machine of which there is no snapshot.
    pub(crate) fn none(track: bool) -> Self {
        Self {
            track,
            last: Mutex::default(),
        }
    }

    /// Of a machine whose RAM is what the snapshot `id` has, and which has not run.
    pub(crate) fn of(
        (files, id): (&SnapshotFiles, ImageId),
        bases: &[PathBuf],
        ram: &GuestRam,
        track: bool,
    ) -> Self {
        let lineage = Self::none(track);
        *lock(&lineage.last) = Some(Last {
            files: files.clone(),
            id,
            bases: bases.to_vec(),
            tracker: lineage.watch(None, ram),
        });
        lineage
    }

    /// Watches RAM from now on, if that is wanted and can be done: else pages will be compared.
    pub(super) fn watch(&self, tracker: Option<Tracker>, ram: &GuestRam) -> Option<Tracker> {
        if !self.track {
            return None;
        }
        match tracker {
            Some(mut tracker) => tracker.begin().is_ok().then_some(tracker),
            None => Tracker::new(ram).ok(),
        }
    }
}

impl Last {
    /// Opens it, to write the difference to it into `files`.
    pub(super) fn open(&self, files: &SnapshotFiles) -> Result<Chain, SnapshotError> {
        let chain = Chain::open(&self.files, &self.bases)?;
        let found = chain.state.memory.id;
        if found != self.id {
            return Err(SnapshotError::Base {
                path: self.files.state.clone(),
                what: format!(
                    "is the snapshot {found}, the machine's last one is {}: make a full one",
                    self.id
                ),
            });
        }
        chain.check_room()?;
        chain.keep(files, 0)?;
        Ok(chain)
    }
}

/// The same files, from wherever they are looked at.
pub(super) fn absolute(files: &SnapshotFiles) -> SnapshotFiles {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    SnapshotFiles {
        state: absolute(&files.state),
        memory: absolute(&files.memory),
    }
}
