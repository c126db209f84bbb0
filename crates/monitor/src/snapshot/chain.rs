//! A snapshot, and those that it is the difference to.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goldcrest_memory::MemoryError;
use goldcrest_memory::image::{self, Layers};

use super::state::{Difference, MachineState, MemoryState};
use super::store::{file_error, open_image, read_state};
use super::{SnapshotError, SnapshotFiles};

/// The most snapshots that depend on each other.
const MAX_LEN: usize = 64;

/// The most runs of pages that all of them have: they are in memory while RAM is put together.
const MAX_RUNS: usize = 1 << 22;

/// A snapshot whose RAM is known, in whichever files it is.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) state: MachineState,
    pub(crate) layers: Layers,
    /// From the snapshot itself to the full one that it is made of at last.
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    files: SnapshotFiles,
    memory: MemoryState,
    image: Arc<fs::File>,
}

impl Link {
    fn open(files: SnapshotFiles, state: &MachineState) -> Result<Self, SnapshotError> {
        Ok(Self {
            image: Arc::new(open_image(&files.memory, state)?),
            memory: state.memory.clone(),
            files,
        })
    }

    fn refuse(&self, what: String) -> SnapshotError {
        SnapshotError::Base {
            path: self.files.state.clone(),
            what,
        }
    }

    /// What it is the difference to: one in `bases` that is the one, else where it is said to be.
    fn base(
        &self,
        difference: &Difference,
        bases: &[PathBuf],
    ) -> Result<(SnapshotFiles, MachineState), SnapshotError> {
        for directory in bases {
            let files = SnapshotFiles::in_directory(directory);
            match read_state(&files.state) {
                Ok(state) if state.memory.id == difference.base => return Ok((files, state)),
                _ => {}
            }
        }
        let files = difference.files(&self.files);
        let state = read_state(&files.state).map_err(|source| SnapshotError::MissingBase {
            path: self.files.state.clone(),
            source: Box::new(source),
        })?;
        Ok((files, state))
    }

    /// Whether `state`, of what lies at `path`, is what it is the difference to.
    fn check_base(
        &self,
        difference: &Difference,
        path: &Path,
        state: &MachineState,
    ) -> Result<(), SnapshotError> {
        let found = &state.memory;
        if found.id != difference.base {
            return Err(self.refuse(format!(
                "is the difference to the snapshot {}, and {} is {}",
                difference.base,
                path.display(),
                found.id
            )));
        }
        let digest = found.digest();
        if digest != Some(difference.digest) || found.config.size != self.memory.config.size {
            return Err(self.refuse(format!(
                "is the difference to {}, which has changed since",
                path.display()
            )));
        }
        Ok(())
    }
}

impl Chain {
    /// Reads the states and opens the images. A base that is none is refused, whatever is wrong with it.
    pub(crate) fn open(files: &SnapshotFiles, bases: &[PathBuf]) -> Result<Self, SnapshotError> {
        let state = read_state(&files.state)?;
        let mut link = Link::open(files.clone(), &state)?;
        let (mut links, mut runs) = (Vec::new(), 0);
        while let Some(difference) = &link.memory.difference {
            if links.len() + 1 >= MAX_LEN {
                return Err(link.refuse(format!("depends on {MAX_LEN} snapshots or more")));
            }
            let (files, state) = link.base(difference, bases)?;
            let is_known = |known: &Link| known.memory.id == state.memory.id;
            if is_known(&link) || links.iter().any(is_known) {
                return Err(link.refuse(format!(
                    "depends on {}, and that on it",
                    files.state.display()
                )));
            }
            link.check_base(difference, &files.state, &state)?;
            runs += difference.extents.len();
            if runs > MAX_RUNS {
                return Err(link.refuse(too_many_runs(runs)));
            }
            let base = Link::open(files, &state)?;
            links.push(std::mem::replace(&mut link, base));
        }
        links.push(link);
        Ok(Self {
            layers: layers(&links)?,
            state,
            links,
        })
    }

    /// How many snapshots it consists of.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Reads all of all images, and compares them with their checksums. `progress` is called with the bytes that are
    /// done, of as many as RAM has for each snapshot.
    pub(super) fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), SnapshotError> {
        let mut done = 0;
        for link in &self.links {
            let memory = &link.memory;
            let verified = image::verify(&link.image, memory.config.size, &memory.checksums);
            verified.map_err(|error| match error {
                MemoryError::NotTheImage(what) => SnapshotError::Memory {
                    path: link.files.memory.clone(),
                    what,
                },
                error => error.into(),
            })?;
            done += memory.config.size;
            progress(done);
        }
        Ok(())
    }

    /// Whether another one can depend on it.
    pub(super) fn check_room(&self) -> Result<(), SnapshotError> {
        match self.links.first() {
            Some(link) if self.len() >= MAX_LEN => Err(link.refuse(format!(
                "depends on {} others, which is the most: flatten it, or make a full one",
                self.len() - 1
            ))),
            _ => Ok(()),
        }
    }

    /// Whether an image that has these pages can be put over it.
    pub(super) fn check_over(&self, extents: &image::Extents) -> Result<(), SnapshotError> {
        let link = self.links.first().ok_or(SnapshotError::NoBase)?;
        let differences = self.links.iter().flat_map(|link| &link.memory.difference);
        let runs: usize = differences.map(|of| of.extents.len()).sum();
        if runs + extents.len() > MAX_RUNS {
            return Err(link.refuse(too_many_runs(runs + extents.len())));
        }
        let mut layers = self.layers.clone();
        Ok(layers.add(&link.image, extents)?)
    }

    /// Refuses to have files replaced that are needed, but for those of the first `but` snapshots.
    pub(super) fn keep(&self, files: &SnapshotFiles, but: usize) -> Result<(), SnapshotError> {
        for path in [&files.state, &files.memory] {
            let Ok(there) = fs::metadata(path) else {
                continue;
            };
            for link in self.links.iter().skip(but) {
                let image = link.image.metadata();
                let state = fs::metadata(&link.files.state);
                let mut kept = image.into_iter().chain(state);
                if kept.any(|kept| is_same(&kept, &there)) {
                    return Err(SnapshotError::Base {
                        path: path.clone(),
                        what:
                            "would be replaced, and the new snapshot needs it: write that elsewhere"
                                .to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// As what it is named by a snapshot in `files` that is the difference to it.
    pub(super) fn named_by(
        &self,
        files: &SnapshotFiles,
        extents: image::Extents,
    ) -> Result<Difference, SnapshotError> {
        let link = self.links.first().ok_or(SnapshotError::NoBase)?;
        let directory = real(parent(&files.state))?;
        Ok(Difference {
            base: link.memory.id,
            digest: link.memory.digest().ok_or(SnapshotError::NoBase)?,
            state: relative(&directory, &real(&link.files.state)?),
            // It need not have its name yet.
            memory: match link.files.memory.file_name() {
                Some(name) => relative(&directory, &real(parent(&link.files.memory))?).join(name),
                None => link.files.memory.clone(),
            },
            extents,
        })
    }
}

/// Refuses to have `files` replaced by a snapshot with this memory, if they are what it is the difference to, as far as that is
/// found.
pub(super) fn refuse_to_replace_base(
    files: &SnapshotFiles,
    memory: &MemoryState,
) -> Result<(), SnapshotError> {
    let there = read_state(&files.state).map(|state| state.memory.id);
    let at = fs::metadata(&files.state);
    let (mut from, mut next) = (files.clone(), memory.difference.clone());
    for _ in 0..MAX_LEN {
        let Some(difference) = next else {
            break;
        };
        let base = difference.files(&from);
        let same = match (fs::metadata(&base.state), &at) {
            (Ok(base), Ok(there)) => is_same(&base, there),
            _ => false,
        };
        if same || there.as_ref().is_ok_and(|there| *there == difference.base) {
            return Err(SnapshotError::Base {
                path: files.state.clone(),
                what: "would be replaced, and the new snapshot needs it: write that elsewhere"
                    .to_owned(),
            });
        }
        next = read_state(&base.state).map_or(None, |state| state.memory.difference);
        from = base;
    }
    Ok(())
}

fn too_many_runs(runs: usize) -> String {
    format!(
        "has changed, with those before it, in {runs} places, more than {MAX_RUNS}: make a full one"
    )
}

fn layers(links: &[Link]) -> Result<Layers, SnapshotError> {
    let mut oldest_first = links.iter().rev();
    let base = oldest_first.next().ok_or(SnapshotError::NoBase)?;
    let mut layers = Layers::new(base.image.clone(), base.memory.config.size);
    for link in oldest_first {
        if let Some(difference) = &link.memory.difference {
            layers.add(&link.image, &difference.extents)?;
        }
    }
    Ok(layers)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The directory of a file.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn real(path: &Path) -> Result<PathBuf, SnapshotError> {
    path.canonicalize().map_err(file_error("find", path))
}

/// The way from a directory to a file, both of which are absolute and without links.
fn relative(directory: &Path, to: &Path) -> PathBuf {
    let common = directory
        .components()
        .zip(to.components())
        .take_while(|(one, other)| one == other)
        .count();
    let up = directory.components().skip(common).map(|_| "..");
    up.map(Path::new)
        .chain(
            to.components()
                .skip(common)
                .map(|part| Path::new(part.as_os_str())),
        )
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
