//! Disks, as a person sets them.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_blk::spec::request::ID_SIZE;
use goldcrest_virtio_blk::{
    Access, Backend, Block, BlockConfig, DiskError, FileDisk, FileDiskConfig, Operation, Start,
};
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use crate::counters::DeviceCounters;
use crate::options::{OptionError, parts};
use crate::snapshot::{Description, path_bytes};
use crate::{DeviceFailure, Notice, VirtioConfig};

/// A disk that is a file or a block device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// The file.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// The guest can only read it.
    pub read_only: bool,
    /// Past the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Its name, up to 20 bytes: Linux shows it in `/sys/block/vda/serial`.
    pub id: String,
    /// How much may be moved.
    pub rate: Option<RateConfig>,
}

impl DiskConfig {
    /// The device. `notice` is called with what a person should know of it, if there is anything.
    pub fn device(self, cpus: u32, notice: impl Fn(&str) + Send + Sync + 'static) -> VirtioConfig {
        let queues = u16::try_from(cpus)
            .unwrap_or(MAX_QUEUES)
            .clamp(1, MAX_QUEUES);
        self.device_with(queues, Notice::new(notice))
    }

    /// As [`device`](Self::device), with so many queues.
    pub(crate) fn device_with(self, queues: u16, notice: Notice) -> VirtioConfig {
        let name = format!("disk {}", self.path.display());
        let description = Description::Disk {
            config: self.clone(),
            queues,
        };
        VirtioConfig::described(name, description, move || self.make(queues, notice.clone()))
    }

    fn make(&self, queues: u16, notice: Notice) -> Result<Block<Noticing>, DeviceFailure> {
        let file = FileDiskConfig {
            read_only: self.read_only,
            direct: self.direct,
            ..FileDiskConfig::new(&self.path)
        };
        let config = BlockConfig {
            queues,
            id: self.id.clone(),
            rate: self.rate,
            ..BlockConfig::default()
        };
        Ok(Block::new(Noticing::open(file, notice)?, &config)?)
    }
}

/// More queues than that gain nothing: they are served one at a time.
const MAX_QUEUES: u16 = 8;

/// A disk that says when it has to do without io_uring.
pub(crate) struct Noticing {
    disk: FileDisk,
    config: FileDiskConfig,
    name: String,
    notice: Notice,
    timing: Timing,
}

/// When requests that are under way began, by their tokens, if that is measured.
#[derive(Default)]
struct Timing {
    counters: Arc<DeviceCounters>,
    begun: Vec<Option<Instant>>,
}

impl Timing {
    fn pending(&mut self, token: u32, begun: Option<Instant>) {
        let index = usize::try_from(token).unwrap_or(usize::MAX);
        if let Some(place) = self.begun.get_mut(index) {
            *place = begun;
        }
    }

    fn over(&mut self, token: u32) {
        let index = usize::try_from(token).unwrap_or(usize::MAX);
        let begun = self.begun.get_mut(index).and_then(Option::take);
        self.counters.end(begun);
    }
}

impl Noticing {
    fn open(config: FileDiskConfig, notice: Notice) -> Result<Self, DiskError> {
        Ok(Self {
            name: config.path.display().to_string(),
            disk: FileDisk::open(config.clone())?,
            config,
            notice,
            timing: Timing::default(),
        })
    }

    /// One in another file, otherwise the same.
    pub(crate) fn in_file(&self, path: &Path) -> Result<Self, DiskError> {
        let config = FileDiskConfig {
            path: path.to_owned(),
            ..self.config.clone()
        };
        let mut other = Self::open(config, self.notice.clone())?;
        other.count_in(self.timing.counters.clone());
        Ok(other)
    }

    /// Has the time that requests take counted there.
    pub(crate) fn count_in(&mut self, counters: Arc<DeviceCounters>) {
        self.timing.counters = counters;
    }

    pub(crate) fn is_in(&self, path: &Path) -> bool {
        self.disk.is_in(path)
    }

    pub(crate) fn refresh(&mut self) -> Result<(), DiskError> {
        self.disk.refresh()
    }
}

impl Backend for Noticing {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn attach(&mut self, memory: &GuestMemoryMmap, depth: u32) {
        self.disk.attach(memory, depth);
        let depth = usize::try_from(depth).unwrap_or(0);
        self.timing.begun = vec![None; depth];
        if let Access::Waiting(Some(why)) = self.disk.access() {
            let name = &self.name;
            self.notice.say(&format!(
                "disk {name}: no io_uring here ({why}): the guest waits for each read and write"
            ));
        }
    }

    fn start(&mut self, operation: &Operation<'_>, token: u32) -> Start {
        let begun = self.timing.counters.begin();
        let start = self.disk.start(operation, token);
        match start {
            Start::Done(_) => self.timing.counters.end(begun),
            Start::Pending => self.timing.pending(token, begun),
            Start::Full => {}
        }
        start
    }

    fn submit(&mut self) -> bool {
        self.disk.submit()
    }

    fn completions(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> bool {
        let Self { disk, timing, .. } = self;
        disk.completions(&mut |token, result| {
            timing.over(token);
            complete(token, result);
        })
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.disk.event_fd()
    }

    fn wait_all(&mut self, complete: &mut dyn FnMut(u32, io::Result<()>)) -> io::Result<()> {
        let Self { disk, timing, .. } = self;
        disk.wait_all(&mut |token, result| {
            timing.over(token);
            complete(token, result);
        })
    }

    fn reset(&mut self) {
        self.timing.begun.fill(None);
        self.disk.reset();
    }
}

const FORM: &str =
    "PATH[,ro][,direct][,id=ID][,rate=RATE], for example root.img,ro or data.img,rate=100M";

/// `PATH[,ro][,direct][,id=ID][,rate=RATE]`; a comma in a path is written twice.
impl FromStr for DiskConfig {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let refuse = |what: String| OptionError::new(what, FORM);
        let mut parts = parts(text).into_iter();
        let path = parts.next().unwrap_or_default();
        if path.is_empty() {
            return Err(refuse("the disk's path is missing".into()));
        }
        let mut disk = Self {
            path: path.into(),
            read_only: false,
            direct: false,
            id: String::new(),
            rate: None,
        };
        for part in parts {
            match part.split_once('=') {
                None if part == "ro" => disk.read_only = true,
                None if part == "direct" => disk.direct = true,
                Some(("id", id)) if id.len() <= ID_SIZE => disk.id = id.into(),
                Some(("id", id)) => {
                    let len = id.len();
                    return Err(refuse(format!(
                        "the disk's id {id:?} has {len} bytes, at most {ID_SIZE} are possible"
                    )));
                }
                Some(("rate", rate)) => {
                    let rate = rate.parse::<RateConfig>();
                    disk.rate = Some(rate.map_err(|error| refuse(error.to_string()))?);
                }
                _ => return Err(refuse(format!("a disk has no option {part:?}"))),
            }
        }
        Ok(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_what_their_options_say() {
        let parse = |text: &str| text.parse::<DiskConfig>();
        let plain = DiskConfig {
            path: "a,b.img".into(),
            read_only: false,
            direct: false,
            id: String::new(),
            rate: None,
        };
        assert_eq!(parse("a,,b.img"), Ok(plain.clone()));
        let full = DiskConfig {
            read_only: true,
            direct: true,
            id: "x=y".into(),
            rate: "10M+500ops".parse().ok(),
            ..plain
        };
        let text = "a,,b.img,direct,rate=10M+500ops,id=x=y,ro";
        assert_eq!(parse(text), Ok(full));
        for (text, word) in [
            ("", "path is missing"),
            (",ro", "path is missing"),
            ("a,rw", "\"rw\""),
            ("a,", "\"\""),
            ("a,ro=yes", "\"ro=yes\""),
            ("a,id=123456789012345678901", "at most 20"),
            ("a,rate=fast", "fast"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains(word) && error.contains("; write PATH"),
                "{error}"
            );
        }
    }
}
