//! What there is to start, on all disks; and of what there is not, why.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use crate::disk::{Disk, Volume};
use crate::entry::{
    Entry, LoaderConf, Source, Timeout, compare, matches, parse, plain, split_counter, unified,
};
use crate::file::{FsError, Printable};
use crate::file_system::{FileSystem, foreign};
use crate::partition::{self, Kind, Partition};

/// Where entries of type 1 and 2 are, and the settings.
const ENTRIES: &str = "/loader/entries";
const UNIFIED: &str = "/EFI/Linux";
const LOADER_CONF: &str = "/loader/loader.conf";
/// Bytes of a text file at most.
const MAX_TEXT: usize = 64 * 1024;
/// The most entries of a directory, and in all.
const MAX_ENTRIES: usize = 256;
/// The most notes that are kept.
const MAX_NOTES: usize = 24;

/// The entries of all disks, sorted, and what was found to be in the way.
#[derive(Debug, Default)]
pub struct Survey {
    /// In the order of the menu.
    pub entries: Vec<Entry>,
    /// What the first `loader.conf` says.
    pub settings: LoaderConf,
    /// Why something is not among the entries.
    pub notes: Vec<String>,
}

/// A file system, and the partition that it is on.
struct Place {
    file_system: Rc<FileSystem>,
    /// `None`: the whole disk.
    partition: Option<Partition>,
    volume: Volume,
}

impl Place {
    /// As Linux calls it: `vda1`.
    fn name(&self) -> String {
        match &self.partition {
            Some(partition) => partition.name(),
            None => self.volume.disk().name().to_owned(),
        }
    }

    /// As messages call it.
    fn words(&self) -> String {
        let kind = self.file_system.kind();
        match &self.partition {
            Some(partition) => format!("partition {} is {kind}", partition.number),
            None => format!("it is {kind}"),
        }
    }

    /// Where loader entries belong comes first.
    fn rank(&self) -> u8 {
        match self.partition.as_ref().map(|partition| partition.kind) {
            Some(Kind::EfiSystem) => 0,
            Some(Kind::BootLoader) => 1,
            Some(Kind::Root) => 2,
            _ => 3,
        }
    }
}

impl Survey {
    /// Looks at all disks.
    pub fn of(disks: &[Disk]) -> Self {
        let mut survey = Self::default();
        for disk in disks {
            let from = survey.notes.len();
            survey.disk(disk);
            for note in survey.notes.iter_mut().skip(from) {
                *note = format!("disk {}: {note}", disk.name());
            }
        }
        if disks.is_empty() {
            survey.note("this machine has no disk".to_owned());
        }
        survey.entries.truncate(MAX_ENTRIES);
        survey.entries.sort_by(compare);
        survey
    }

    /// The place in the menu of the entry that a pattern means, or of the default one.
    ///
    /// # Errors
    ///
    /// Why there is none, on one line.
    pub fn choose(&self, wanted: Option<&str>) -> Result<usize, String> {
        if self.entries.is_empty() {
            return Err(format!("nothing to boot: {}", self.reasons()));
        }
        let find = |pattern: &str| {
            self.entries
                .iter()
                .position(|entry| matches(pattern, &entry.id))
        };
        match wanted {
            Some(pattern) => find(pattern).ok_or_else(|| {
                let ids: Vec<_> = self.entries.iter().map(|entry| entry.id.as_str()).collect();
                let ids = ids.join(", ");
                format!(
                    "there is no entry {}; there are: {}",
                    Printable(pattern),
                    Printable(&ids)
                )
            }),
            None => Ok(self.settings.default.as_deref().and_then(find).unwrap_or(0)),
        }
    }

    /// How long the menu waits.
    pub fn timeout(&self, asked: Option<Timeout>) -> Timeout {
        asked.or(self.settings.timeout).unwrap_or_default()
    }

    /// All notes, on one line.
    pub fn reasons(&self) -> String {
        let mut reasons = self.notes.join("; ");
        if self.notes.len() == MAX_NOTES {
            reasons.push_str("; and more");
        }
        reasons
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }

    fn disk(&mut self, disk: &Disk) {
        let table = match partition::read(disk) {
            Ok(table) => table,
            Err(error) => return self.note(format!("{error}")),
        };
        let volumes: Vec<(Option<Partition>, Volume)> = match table {
            Some(table) if table.partitions.is_empty() => {
                let scheme = table.scheme;
                return self.note(format!("its {scheme} partition table is empty"));
            }
            Some(table) => table
                .partitions
                .into_iter()
                .map(|partition| {
                    let volume = partition.volume.clone();
                    (Some(partition), volume)
                })
                .collect(),
            None => alloc::vec![(None, disk.whole())],
        };
        let mut places = Vec::new();
        for (partition, volume) in volumes {
            places.extend(self.place(partition, volume));
        }
        places.sort_by_key(Place::rank);
        let found = self.entries.len();
        for place in &places {
            self.loader_entries(place);
        }
        // What an operating system says of itself comes before what is guessed.
        if self.entries.len() == found {
            for place in &places {
                self.plain(place, &places);
            }
        }
    }

    fn place(&mut self, partition: Option<Partition>, volume: Volume) -> Option<Place> {
        let words = match &partition {
            Some(partition) => format!("partition {}", partition.number),
            None => "it".to_owned(),
        };
        match FileSystem::open(&volume) {
            Ok(Some(file_system)) => Some(Place {
                file_system: Rc::new(file_system),
                partition,
                volume,
            }),
            Ok(None) => {
                self.note(match foreign(&volume) {
                    Some(kind) => format!("{words} is {kind}, which is not read here"),
                    None if partition.is_some() => format!("{words} has no FAT or ext4"),
                    None => "it has neither partitions nor FAT or ext4".to_owned(),
                });
                None
            }
            Err(error) => {
                self.note(format!("{words}: {error}"));
                None
            }
        }
    }

    /// Entries of both types.
    fn loader_entries(&mut self, place: &Place) {
        if self.settings == LoaderConf::default()
            && let Some(text) = text(&place.file_system, LOADER_CONF)
        {
            self.settings = LoaderConf::parse(&text);
        }
        for (folder, suffix) in [(ENTRIES, ".conf"), (UNIFIED, ".efi")] {
            let files = match place.file_system.list(folder) {
                Ok(files) => files,
                Err(FsError::NotFound(_) | FsError::NotADirectory(_)) => continue,
                Err(error) => {
                    self.note(format!("{}, in {folder}: {error}", place.words()));
                    continue;
                }
            };
            let named = |name: &&str| split_counter(name, suffix).is_some();
            let names = files.iter().filter(|file| !file.is_dir);
            let names = names.map(|file| file.name.as_str()).filter(named);
            for name in names.take(MAX_ENTRIES) {
                let entry = match folder {
                    ENTRIES => type1(place, name),
                    _ => unified(&place.file_system, &place.name(), folder, name)
                        .map_err(|error| format!("{folder}/{name}: {error}")),
                };
                match entry {
                    Ok(entry) => self.entries.push(entry),
                    Err(why) => self.note(format!("{}", Printable(&why))),
                }
            }
        }
    }

    /// A kernel without an entry.
    fn plain(&mut self, place: &Place, all: &[Place]) {
        let root = root(place, all);
        let root_error = place.file_system.list("/").err();
        match (
            plain(&place.file_system, &place.name(), root.as_deref()),
            root_error,
        ) {
            (Some(entry), _) => self.entries.push(entry),
            (None, Some(error)) => {
                self.note(format!("{} without a root: {error}", place.words()));
            }
            (None, None) => self.note(format!(
                "{} but has neither loader entries nor a vmlinuz",
                place.words()
            )),
        }
    }
}

/// The entry of a file in [`ENTRIES`].
fn type1(place: &Place, name: &str) -> Result<Entry, String> {
    let path = format!("{ENTRIES}/{name}");
    let file_system = &place.file_system;
    let fail = |why: &dyn core::fmt::Display| format!("{path}: {why}");
    let bytes = file_system
        .find(&path)
        .and_then(|file| file.read_all(MAX_TEXT))
        .map_err(|error| fail(&error))?;
    let fields = parse(&String::from_utf8_lossy(&bytes));
    if !fields.is_for_x64() {
        return Err(fail(&"it is for another processor"));
    }
    let options = fields.options.unwrap_or_default();
    let file_system = file_system.clone();
    let source = match (fields.linux, fields.uki, fields.efi) {
        (Some(linux), ..) => Source::Linux {
            file_system,
            linux,
            initrds: fields.initrd,
            options,
        },
        (_, Some(path), _) => Source::Unified {
            file_system,
            path,
            options,
        },
        (.., Some(_)) => return Err(fail(&"it is for EFI")),
        _ => return Err(fail(&"it has no linux")),
    };
    let (stem, counter) = split_counter(name, ".conf").unwrap_or((name, None));
    Ok(Entry {
        id: format!("{stem}.conf"),
        title: fields.title,
        version: fields.version,
        sort_key: fields.sort_key,
        machine_id: fields.machine_id,
        counter,
        place: place.name(),
        source,
    })
}

/// What `root=` is to say for a kernel at this place: the place itself if it is a root file system, else the first that
/// is one, else a partition that is meant to be.
fn root(place: &Place, all: &[Place]) -> Option<String> {
    let is_root = |place: &&Place| {
        let has = |path| place.file_system.is_dir(path);
        has("/etc") && (has("/usr") || has("/sbin"))
    };
    let found = Some(place)
        .filter(is_root)
        .or_else(|| all.iter().find(is_root));
    let meant = |place: &&Place| {
        let partition = place.partition.as_ref();
        partition.is_some_and(|partition| partition.kind == Kind::Root)
    };
    let root = found.or_else(|| all.iter().find(meant))?;
    Some(match &root.partition {
        // A disk whose number nobody has set shares it with all such disks.
        Some(partition) if !partition.uuid.starts_with("00000000-") => {
            format!("PARTUUID={}", partition.uuid)
        }
        _ => format!("/dev/{}", root.name()),
    })
}

fn text(file_system: &FileSystem, path: &str) -> Option<String> {
    let bytes = file_system.find(path).ok()?.read_all(MAX_TEXT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
