//! Snapshots in one file: `goldcrest snapshot pack` and `unpack`, and what is said of archives.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read};
use std::path::Path;

use goldcrest_archive::{Key, MAGIC};
use goldcrest_monitor::{ArchiveInfo, MonitorError, SnapshotFiles, archive_info, verify_archive};

use super::{begins, description, made_of, make, with_progress};
use crate::failure::Failure;
use crate::print;
use crate::snapshot_args::KeyFile;

/// Whether a file is an archive, by how it begins.
pub(crate) fn is_archive(path: &Path) -> bool {
    begins(path) == Some(MAGIC)
}

/// Refuses a key for what is not encrypted.
pub(super) fn refuse_key(snapshot: &Path, key: &KeyFile) -> Result<(), Failure> {
    match key.key_file {
        Some(_) => Err(Failure::asked_wrongly(format!(
            "{} is no archive, and --key-file was given",
            snapshot.display()
        ))),
        None => Ok(()),
    }
}

/// Puts a snapshot into an archive.
pub(super) fn pack(directory: &Path, archive: &Path, key: &KeyFile) -> Result<u8, Failure> {
    let key = read_key(key)?;
    let files = SnapshotFiles::in_directory(directory);
    if is_standard(archive) {
        let output = io::stdout();
        if output.is_terminal() {
            return Err(Failure::asked_wrongly(
                "an archive is not for a terminal: redirect the output".to_owned(),
            ));
        }
        with_progress(directory, |progress| {
            let output = BufWriter::new(output.lock());
            goldcrest_monitor::pack(&files, output, key.as_ref(), progress)
        })?;
        return Ok(0);
    }
    let (made, len) = with_progress(archive, |progress| {
        goldcrest_monitor::pack_file(&files, archive, key.as_ref(), progress)
    })?;
    let text = format!(
        "{}: {} KiB, of {} KiB of memory{}\n",
        archive.display(),
        len >> 10,
        made.memory_written >> 10,
        if key.is_some() { ", encrypted" } else { "" }
    );
    print(text.as_bytes())
}

/// Takes a snapshot out of an archive. The directory is removed if it was made for nothing.
pub(super) fn unpack(archive: &Path, directory: &Path, key: &KeyFile) -> Result<u8, Failure> {
    let key = read_key(key)?;
    let from: Box<dyn Read> = match is_standard(archive) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(open(archive)?),
    };
    let was_there = directory.exists();
    make(directory)?;
    let files = SnapshotFiles::in_directory(directory);
    let made = with_progress(directory, |progress| {
        goldcrest_monitor::unpack(from, &files, key.as_ref(), progress)
    });
    if made.is_err() && !was_there {
        let _ = fs::remove_dir(directory);
    }
    print(made_of(directory, &made.map_err(|failure| failure.of(archive))?).as_bytes())
}

/// Compares an archive with its checksums.
pub(super) fn verify(archive: &Path, key: &KeyFile) -> Result<u8, Failure> {
    let key = read_key(key)?;
    let info = verify_archive(open(archive)?, key.as_ref());
    let info = info.map_err(|error| Failure::from(MonitorError::from(error)).of(archive))?;
    let text = format!("{}: ok, {}\n", archive.display(), info.id);
    print(text.as_bytes())
}

/// Says what is in an archive, as far as that can be read without a key.
pub(crate) fn info_without_key(archive: &Path) -> Result<u8, Failure> {
    info(archive, &KeyFile { key_file: None })
}

/// Says what is in an archive.
pub(super) fn info(archive: &Path, key: &KeyFile) -> Result<u8, Failure> {
    let key = read_key(key)?;
    let info = archive_info(open(archive)?, key.as_ref());
    let info = info.map_err(|error| Failure::from(MonitorError::from(error)).of(archive))?;
    let ArchiveInfo {
        encrypted,
        snapshot,
        ..
    } = info;
    let mut text = format!(
        "{}: an archive of a machine that was saved{}\n",
        archive.display(),
        if encrypted { ", encrypted" } else { "" }
    );
    match snapshot {
        Some(snapshot) => text += &description(&snapshot),
        None => text += "  its key is needed to say more (goldcrest snapshot info --key-file)\n",
    }
    print(text.as_bytes())
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn open(archive: &Path) -> Result<File, Failure> {
    File::open(archive).map_err(|source| {
        Failure::failed(format_args!("cannot open {}", archive.display()), source)
    })
}

fn read_key(key: &KeyFile) -> Result<Option<Key>, Failure> {
    let Some(path) = &key.key_file else {
        return Ok(None);
    };
    match Key::read(path) {
        Ok(key) => Ok(Some(key)),
        Err(error) => Err(Failure::asked_wrongly(
            goldcrest_api::Fault::of(&error).to_string(),
        )),
    }
}
