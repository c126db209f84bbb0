//! `goldcrest run`: from options to a machine, and from its end to an exit status.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use goldcrest_boot::{Announce, BootError, Image, Module};
use goldcrest_monitor::memory::{self, MemoryConfig};
use goldcrest_monitor::{
    ConsoleConfig, DiskConfig, Input, MachineConfig, MachineKind, MonitorError, Notice, OnReset,
    Outcome, Output, Solo5Backing, Solo5Config, Stage, StopReason,
};
use goldcrest_vcpu::kvm::Kvm;
use nix::poll::{PollFd, PollFlags, poll};

use crate::args::{self, RunOptions};
use crate::failure::Failure;
use crate::metrics::MetricsLog;
use crate::terminal::Stdin;
use crate::timeline::MainReached;
use crate::{api, devices, disk_boot, say, signals, terminal, timeline};

/// The demo, built from `examples/unikernels`.
static DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// Ran out of time, as `timeout(1)` says it.
const TIMED_OUT: u8 = 124;
/// Added to the number of the signal that ended the machine, as shells do.
const SIGNALLED: u8 = 128;

/// Boots the demo and says how long it took.
pub(crate) fn demo(main_reached: MainReached) -> Result<u8, Failure> {
    let mut config = MachineConfig::new(Image::from_bytes("demo", DEMO)?);
    config.output = standard_output()?;
    let timeline = timeline::begin(main_reached);
    config.timeline = Some(timeline.clone());
    let status = boot(&config)?;
    say(&format!("{}\n", timeline::summary(&timeline.marks())));
    Ok(status)
}

/// `goldcrest run`.
pub(crate) fn run(options: &RunOptions, main_reached: MainReached) -> Result<u8, Failure> {
    if api::is_wanted(options) {
        return api::run(options);
    }
    let (mut config, metrics) = configure(options)?;
    if disk_boot::is_wanted(options) {
        disk_boot::check_ring_0()?;
    }
    // It ends when all else has.
    let _reporter = metrics
        .map(|log| log.begin(config.control.clone()))
        .transpose()?;
    let Some(format) = options.timeline else {
        return boot(&config);
    };
    let timeline = timeline::begin(main_reached);
    config.timeline = Some(timeline.clone());
    let status = boot(&config)?;
    timeline::write(&timeline.marks(), format, options.timeline_file.as_deref())?;
    Ok(status)
}

/// The machine, and where its metrics go.
fn configure(options: &RunOptions) -> Result<(MachineConfig, Option<MetricsLog>), Failure> {
    let boots_disk = disk_boot::is_wanted(options);
    let image = match &options.image {
        Some(path) => Image::open(path)?,
        None if boots_disk => disk_boot::firmware(options)?,
        None => Image::from_bytes("demo", DEMO)?,
    };
    let initrd = options.initrd.as_deref().map(Image::open).transpose()?;
    let modules = modules(options)?;
    let solo5 = [&options.solo5_block[..], &options.solo5_net].concat();
    let taken = taken(&image, initrd.as_ref(), &modules, &options.disk, &solo5);
    let (output, mut input) = serial(&options.serial, &taken)?;
    if options.console.contains(&ConsoleConfig::Stdio) {
        // What is typed has one reader.
        input = None;
    }
    let metrics = options.metrics.as_ref();
    let metrics = metrics.map(|log| log.open(&taken)).transpose()?;
    options.log.begin(&options.api.id, &taken)?;
    let control = Arc::default();
    let virtio = devices::virtio(options, &image, &taken, &control)?;
    let name = match (options.machine, &options.image) {
        (args::MachineKind::Test, Some(path)) => path.to_string_lossy(),
        _ => "".into(),
    };
    let mut words = vec![&*name, options.cmdline.as_str()];
    words.extend(options.args.iter().map(String::as_str));
    words.retain(|word| !word.is_empty());
    let mut config = MachineConfig {
        initrd,
        modules,
        cmdline: words.join(" "),
        protocol: options.format,
        memory: memory_config(options),
        cpus: options.cpus,
        output,
        input,
        virtio,
        solo5,
        notice: Notice::new(|text| say(&format!("goldcrest: {text}\n"))),
        announce: match options.announce {
            args::Announce::Acpi => Announce::Acpi,
            args::Announce::Cmdline => Announce::CommandLine,
            args::Announce::Both => Announce::Both,
            args::Announce::DeviceTree => Announce::DeviceTree,
        },
        machine: match options.machine {
            args::MachineKind::Standard => MachineKind::Standard,
            args::MachineKind::Test => MachineKind::Test,
        },
        on_reset: match options.on_reset {
            args::OnReset::Exit => OnReset::Exit,
            args::OnReset::Reboot => OnReset::Reboot,
        },
        timeout: options.timeout,
        control,
        ..MachineConfig::new(image)
    };
    if boots_disk {
        disk_boot::prepare(options, &mut config)?;
    }
    Ok((config, metrics))
}

/// Guest RAM unless another size is asked for: a kernel from a disk has its initial RAM disk in it twice.
const MEMORY: u64 = 128 << 20;
const MEMORY_OF_DISKS: u64 = 512 << 20;

fn modules(options: &RunOptions) -> Result<Vec<Module>, BootError> {
    let modules = options.module.iter().map(|module| {
        Ok(Module {
            image: Image::open(&module.path)?,
            arguments: module.arguments.clone(),
        })
    });
    modules.collect()
}

pub(crate) fn memory_config(options: &RunOptions) -> MemoryConfig {
    MemoryConfig {
        size: options
            .memory
            .unwrap_or(match disk_boot::is_wanted(options) {
                true => MEMORY_OF_DISKS,
                false => MEMORY,
            }),
        backing: match options.memory_backing {
            args::Backing::Anonymous => memory::Backing::Anonymous,
            args::Backing::Memfd => memory::Backing::Memfd,
        },
        huge_pages: match options.huge_pages {
            args::HugePages::None => memory::HugePages::None,
            args::HugePages::Transparent => memory::HugePages::Transparent,
            args::HugePages::TwoMiB => memory::HugePages::TwoMiB,
        },
        prefault: options.prefault,
    }
}

/// The two ends of the serial port.
pub(crate) fn serial(
    target: &Path,
    taken: &[Metadata],
) -> Result<(Output, Option<Input>), Failure> {
    match target.to_str() {
        Some("stdio") => Ok((standard_output()?, standard_input()?)),
        Some("none") => Ok((Output::discard(), None)),
        _ => {
            let file = create_log(target, taken).map_err(|source| {
                Failure::usage(
                    format_args!("cannot create the serial log {}", target.display()),
                    source,
                )
            })?;
            Ok((Output::new(Sink(file)), None))
        }
    }
}

/// The files that the guest is started from, and those that it writes to.
fn taken(
    image: &Image,
    initrd: Option<&Image>,
    modules: &[Module],
    disks: &[DiskConfig],
    solo5: &[Solo5Config],
) -> Vec<Metadata> {
    let images = [Some(image), initrd].into_iter().flatten();
    let images = images.chain(modules.iter().map(|module| &module.image));
    let images = images.filter_map(|image| image.file()?.metadata().ok());
    let blocks = solo5.iter().filter_map(|config| match &config.device {
        Solo5Backing::Block { path, .. } => Some(path),
        Solo5Backing::Net(_) => None,
    });
    let paths = disks.iter().map(|disk| &disk.path).chain(blocks);
    let files = paths.filter_map(|path| fs::metadata(path).ok());
    images.chain(files).collect()
}

/// Creates or empties a file, which must not be one of those that are `taken`.
pub(crate) fn create_log(path: &Path, taken: &[Metadata]) -> io::Result<File> {
    let log = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let metadata = log.metadata()?;
    if is_one_of(&metadata, taken) {
        return Err(io::Error::other(
            "it is the guest's image or disk; choose another file",
        ));
    }
    // Devices and pipes have no length to set.
    if metadata.is_file() {
        log.set_len(0)?;
    }
    Ok(log)
}

/// Whether a file is one of those that are `taken`.
pub(crate) fn is_one_of(file: &Metadata, taken: &[Metadata]) -> bool {
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    taken.iter().any(|other| same(other, file))
}

/// A file, pipe or terminal for output, in which no write blocks for long: a machine that is to end must not wait for
/// a reader.
struct Sink(File);

/// How long to wait for room at a time, in milliseconds.
const ROOM_WAIT: u8 = 100;
/// A pipe that has room has room for so much (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, ROOM_WAIT)? == 0 {
            // Tried again, unless the machine is to end.
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.0.write(bytes.get(..PIPE_BUF).unwrap_or(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output without a buffer.
fn standard_output() -> Result<Output, Failure> {
    let file = duplicate(io::stdout().as_fd(), "standard output")?;
    Ok(Output::new(Sink(file)))
}

pub(crate) fn standard_input() -> Result<Option<Input>, Failure> {
    let kind = terminal::stdin_kind();
    if kind == Stdin::Background {
        return Ok(None);
    }
    let terminal = kind == Stdin::Terminal;
    Ok(Some(Input {
        source: Arc::new(duplicate(io::stdin().as_fd(), "standard input")?),
        escape: terminal,
        on_listen: Arc::new(move || {
            // Without the guard, a signal may leave the terminal raw: then it stays as it is.
            if terminal && signals::guard_terminal().is_ok() {
                terminal::make_raw();
            }
        }),
    }))
}

pub(crate) fn duplicate(fd: std::os::fd::BorrowedFd<'_>, what: &str) -> Result<File, Failure> {
    match fd.try_clone_to_owned() {
        Ok(owned) => Ok(owned.into()),
        Err(source) => Err(Failure::failed(format_args!("cannot use {what}"), source)),
    }
}

/// Runs the machine; its end as an exit status.
fn boot(config: &MachineConfig) -> Result<u8, Failure> {
    signals::stop_on_signals(&config.control)?;
    let kvm = Kvm::open().map_err(MonitorError::from)?;
    if let Some(timeline) = &config.timeline {
        timeline.mark(Stage::KvmOpened);
        let timeline = timeline.clone();
        config
            .output
            .on_first_byte(move || timeline.mark(Stage::FirstOutput));
    }
    let outcome = goldcrest_monitor::run(&kvm, config)?;
    terminal::restore();
    Ok(status_of(outcome))
}

/// The end of a machine as an exit status; says what a person should know of it.
pub(crate) fn status_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::PowerOff | Outcome::Stopped(StopReason::Escape | StopReason::Request) => 0,
        Outcome::Exit(status) => u8::try_from(status).unwrap_or(u8::MAX),
        Outcome::Stopped(StopReason::Signal(number)) => SIGNALLED.saturating_add(number),
        Outcome::Stopped(StopReason::Timeout) => {
            say("goldcrest: time is up: the guest was stopped\n");
            TIMED_OUT
        }
        Outcome::Reset => {
            say(
                "goldcrest: the guest reset its machine, as a panicking kernel does \
                 (--on-reset reboot starts it anew)\n",
            );
            1
        }
        outcome => {
            say(&format!("goldcrest: {outcome}\n"));
            1
        }
    }
}
