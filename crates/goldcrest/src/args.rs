//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use goldcrest_boot::Protocol;
use goldcrest_monitor::{
    BalloonConfig, ConsoleConfig, DiskConfig, NetConfig, Solo5Config, VsockConfig, parse_balloon,
    parse_solo5_block, parse_solo5_net, parse_vsock,
};

use crate::clone_args::CloneOptions;
use crate::metrics::MetricsOption;
use crate::mmds::MmdsOptions;
use crate::snapshot_args::SnapshotCommand;

/// A micro-hypervisor: boots unikernels and Linux on KVM in milliseconds.
///
/// Without a command, boots the built-in demo and says how long that took.
#[derive(Debug, Parser)]
#[command(name = "goldcrest", version, max_term_width = MAX_WIDTH, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Args {
    /// The process's arguments. Describing the options of all commands to the parser is a third of what a start computes:
    /// for commands that are to be quick, only their own are described.
    pub(crate) fn read() -> Self {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        let command = match words.as_slice() {
            [run, rest @ ..] if run == "run" => Command::Run(alone(RUN, RUN_ABOUT, rest)),
            [clone, rest @ ..] if clone == "clone" => {
                Command::Clone(alone(CLONE, CLONE_ABOUT, rest))
            }
            [snapshot, restore, rest @ ..] if snapshot == "snapshot" && restore == "restore" => {
                let options = alone(RESTORE, RESTORE_ABOUT, rest);
                Command::Snapshot {
                    command: SnapshotCommand::Restore(options),
                }
            }
            _ => return Self::parse(),
        };
        Self {
            command: Some(command),
        }
    }
}

/// The options of a command, which are described to the parser alone; `words` is what follows its name.
fn alone<T: clap::Args>(name: &'static str, about: &'static str, words: &[OsString]) -> T {
    let command = clap::Command::new(name)
        .bin_name(name)
        .max_term_width(MAX_WIDTH);
    // What is said of a part of the options is not said of the command.
    let command = T::augment_args(command).about(about);
    let words = std::iter::once(name.into()).chain(words.iter().cloned());
    let matches = command.get_matches_from(words);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

const MAX_WIDTH: usize = 100;

/// The commands that are read for themselves.
const RUN: &str = "goldcrest run";
const RUN_ABOUT: &str = "Boot a guest and run it to its end";
const CLONE: &str = "goldcrest clone";
const CLONE_ABOUT: &str = "Have many machines go on that were saved as one";
const RESTORE: &str = "goldcrest snapshot restore";
pub(crate) const RESTORE_ABOUT: &str = "Have a machine go on that was saved";

const EXAMPLES: &str = "\
Examples:
  goldcrest                                       boot the built-in demo
  goldcrest doctor                                can this machine host guests?
  goldcrest inspect vmlinuz                       what is this image, and how would it be started?
  goldcrest run unikernel.elf -- --verbose        boot a unikernel with an argument
  goldcrest run vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' --memory 512M --cpus 2
  goldcrest run --disk debian.img                 boot what is on a disk
  goldcrest run --api-sock vm.sock                wait for programs to describe and start a machine
  goldcrest ctl -s vm.sock status                 what does the machine do?
";

const RUN_EXAMPLES: &str = "\
Examples:
  goldcrest run                                   the built-in demo
  goldcrest run --disk debian.img --memory 1G     what is on the disk, by its loader entries
  goldcrest run app.elf --timeline -- --port 80   a unikernel with arguments; where start-up went
  goldcrest run vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' --memory 512M --cpus 2
  goldcrest run vmlinuz --disk root.img --cmdline 'console=ttyS0 root=/dev/vda' --memory 512M
  goldcrest run vmlinuz --disk a.img,ro,id=tools --disk b.img,rate=50M+1000ops --initrd initrd.img
  goldcrest run vmlinuz --console stdio --serial none --cmdline 'console=hvc0' --disk root.img
  goldcrest run app.elf --timeout 2.5 --serial log.txt

On a terminal, Ctrl-a x ends the guest, and Ctrl-a Ctrl-a sends it one Ctrl-a.

Exit status: the guest's own (0 after power-off; over 255 is 255); 1 if something failed, the guest
crashed or reset itself; 2 if what was asked for is not possible; 124 if time ran out; 128 + n after
signal n. SIGUSR1 pauses the guest, SIGUSR2 has it go on.
";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(about = RUN_ABOUT)]
    Run(Box<RunOptions>),
    /// Say what a file is, how `run` would start it, and why not in other ways
    ///
    /// Ends with status 2 if nothing can start it.
    Inspect {
        /// A kernel, a unikernel, the state file of a snapshot, or any other file
        image: PathBuf,

        /// As if this was asked of `run`
        #[arg(long, value_name = "NAME[,OPTION]...", alias = "protocol")]
        format: Option<Protocol>,
    },
    /// Ask something of a machine that was started with --api-sock
    Ctl {
        /// The machine's socket
        #[arg(long, short = 's', value_name = "PATH")]
        api_sock: PathBuf,

        #[command(subcommand)]
        request: crate::ctl::Request,
    },
    /// Machines that were saved
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    #[command(about = CLONE_ABOUT)]
    Clone(Box<CloneOptions>),
    /// Say whether this machine can host guests, and how to mend what is missing
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a command (for `man -l -`)
    Man {
        /// A command, for example run
        command: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunOptions {
    /// A bzImage, vmlinux or unikernel; what it is, is found from its bytes [default: with --disk, the firmware, which
    /// boots the disk; else the built-in demo]
    pub(crate) image: Option<PathBuf>,

    /// Boot the disk by this firmware [default: the built-in one]
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub(crate) firmware: Option<PathBuf>,

    /// Boot this entry of the disk's, without a menu: its file's name, or a pattern like 'debian-*'
    #[arg(long, value_name = "ID", conflicts_with = "image", value_parser = entry_id)]
    pub(crate) firmware_entry: Option<String>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// A file for the guest, with arguments, for protocols that have modules; may be repeated
    ///
    /// What follows the first comma are its arguments. A comma in the path is written twice.
    #[arg(long, value_name = "FILE[,ARGUMENTS]")]
    pub(crate) module: Vec<ModuleOption>,

    /// Command line for the guest
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) cmdline: String,

    /// Guest RAM, for example 64M or 2G [default: 128M, and 512M to boot a disk]
    #[arg(long, short, value_name = "SIZE", value_parser = memory_size)]
    pub(crate) memory: Option<u64>,

    /// Virtual CPUs
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: u32,

    /// Where the serial port goes: stdio, none, or a file for its output
    #[arg(long, value_name = "stdio|none|FILE", default_value = "stdio")]
    pub(crate) serial: PathBuf,

    /// A disk, for example root.img,ro; may be repeated
    ///
    /// Options: ro (the guest can only read it), direct (past the host's page cache), id=ID (its name, up to 20
    /// bytes), rate=RATE (10M for bytes per second, 500ops, or 10M+500ops; a burst follows a slash: 10M/40M). A comma
    /// in the path is written twice.
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub(crate) disk: Vec<DiskConfig>,

    /// A virtio console, in Linux /dev/hvc0: stdio, pty, file:PATH or socket:PATH; may be repeated
    #[arg(long, value_name = "TARGET")]
    pub(crate) console: Vec<ConsoleConfig>,

    /// A network card, for example user,fwd=tcp:8080:80 or tap=tap0; may be repeated
    ///
    /// `user` is a network in this process that needs no privilege: fwd=tcp:HOST:GUEST (port HOST of this machine's
    /// 127.0.0.1 leads to port GUEST of the guest's), allow=WHERE and deny=WHERE (addresses, networks, ports: the first that
    /// matches decides; by default all but this machine's loopback and link-local addresses), dns=ADDRESS (a resolver,
    /// instead of this machine's). `tap=NAME` is a tap: queues=N (pairs of queues). Of both: mac=MAC, mtu=BYTES,
    /// rx-rate=RATE and tx-rate=RATE (as for disks). docs/networking.md has examples.
    #[arg(long, value_name = "user|tap=NAME[,OPTION]...")]
    pub(crate) net: Vec<NetConfig>,

    #[command(flatten)]
    pub(crate) mmds: MmdsOptions,

    /// Sockets between guest and host, for example cid=3,uds=/tmp/guest.sock
    ///
    /// Programs here connect to the Unix socket PATH and say `CONNECT PORT`; those of the guest that connect to CID 2, port
    /// PORT, reach the Unix socket PATH_PORT. streams=N is how many there may be at a time (4096 unless said otherwise).
    /// A comma in the path is written twice.
    #[arg(long, value_name = "cid=N,uds=PATH[,OPTION]", value_parser = parse_vsock)]
    pub(crate) vsock: Option<VsockConfig>,

    /// A block device of a Solo5 guest, for example storage=disk.img,ro; may be repeated
    ///
    /// NAME is the one that the guest's manifest has. With ro, the guest can only read it. A comma in the path is written
    /// twice.
    #[arg(long, value_name = "NAME=PATH[,ro]", value_parser = parse_solo5_block)]
    pub(crate) solo5_block: Vec<Solo5Config>,

    /// A network card of a Solo5 guest, for example service=tap=tap0 or service=user; may be repeated
    ///
    /// NAME is the one that the guest's manifest has; the rest is as for --net, without queues and rates.
    #[arg(
        long,
        value_name = "NAME=user|tap=TAP[,OPTION]...",
        value_parser = parse_solo5_net
    )]
    pub(crate) solo5_net: Vec<Solo5Config>,

    /// Let the guest give memory back that it does not use
    ///
    /// Options: target=SIZE (how much it is to give back in any case), deflate-on-oom=off (it may not take that back when
    /// it is out of memory), free-page-reporting=off (it does not report what it does not use).
    #[arg(
        long,
        value_name = "OPTIONS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = parse_balloon
    )]
    pub(crate) balloon: Option<BalloonConfig>,

    /// Give the guest a source of entropy [default: kernels get one, unikernels do not]
    #[arg(long, overrides_with = "no_rng")]
    pub(crate) rng: bool,

    /// Give the guest no source of entropy
    #[arg(long, overrides_with = "rng")]
    pub(crate) no_rng: bool,

    /// How a kernel is told of its virtio devices
    #[arg(long, value_enum, default_value_t = Announce::Acpi)]
    pub(crate) announce: Announce,

    /// Which devices the machine has besides: test adds those that kvm-unit-tests needs, and puts the image's name in
    /// front of its command line, as QEMU does
    #[arg(long, value_enum, default_value_t = MachineKind::Standard)]
    pub(crate) machine: MachineKind,

    /// Show where start-up went: text and json on stderr, svg in timeline.svg
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(crate) timeline: Option<TimelineFormat>,

    /// Write the timeline to this file instead
    #[arg(long, value_name = "FILE", requires = "timeline")]
    pub(crate) timeline_file: Option<PathBuf>,

    /// Write what the machine has done to this file when it ends, as a line of JSON: exits by reason, requests of devices
    ///
    /// With every=TIME (1s, 500ms, 2m) a line is also written each time that so much has passed. A comma in the path is
    /// written twice. docs/metrics.md says what there is.
    #[arg(long, value_name = "FILE[,every=TIME]")]
    pub(crate) metrics: Option<MetricsOption>,

    /// End the guest after so many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// What a reset by the guest does
    #[arg(long, value_enum, default_value_t = OnReset::Exit)]
    pub(crate) on_reset: OnReset,

    /// Start the image by this protocol [default: the best it offers]
    ///
    /// direct, solo5-hvt, hermit, pvh, multiboot2, multiboot, linux-elf, linux-bzimage, elf32, or flat,addr=ADDRESS: a flat
    /// binary that goes to this address, and starts there in 32-bit protected mode unless entry=ADDRESS and mode=16|32|64 say
    /// otherwise.
    #[arg(long, value_name = "NAME[,OPTION]...", alias = "protocol")]
    pub(crate) format: Option<Protocol>,

    /// What guest RAM is made of
    #[arg(long, value_enum, default_value_t = Backing::Anonymous)]
    pub(crate) memory_backing: Backing,

    /// Huge pages for guest RAM
    #[arg(long, value_enum, default_value_t = HugePages::None)]
    pub(crate) huge_pages: HugePages,

    /// Take all guest RAM from the host at the start
    #[arg(long)]
    pub(crate) prefault: bool,

    #[command(flatten)]
    pub(crate) api: ApiOptions,

    /// Arguments for the guest, appended to its command line
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// What describes a machine on the command line: one that programs or a file describe is described by them alone.
const DESCRIPTIONS: [&str; 29] = [
    "image",
    "firmware",
    "firmware_entry",
    "initrd",
    "module",
    "cmdline",
    "memory",
    "cpus",
    "disk",
    "console",
    "net",
    "vsock",
    "solo5_block",
    "solo5_net",
    "balloon",
    "rng",
    "no_rng",
    "announce",
    "machine",
    "timeline",
    "timeout",
    "on_reset",
    "format",
    "memory_backing",
    "huge_pages",
    "prefault",
    "args",
    "metrics",
    "mmds",
];

/// How programs describe and control the machine.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiOptions {
    /// Serve the control API at this Unix socket, and wait there for a machine to be described and started
    ///
    /// The API is Firecracker's: docs/api.md says what of it there is. What else of a machine can be set here is set there.
    #[arg(long, value_name = "PATH", conflicts_with_all = DESCRIPTIONS)]
    pub(crate) api_sock: Option<PathBuf>,

    /// The machine's name, by which the API knows it
    #[arg(long, value_name = "ID", default_value = crate::api::DEFAULT_ID)]
    pub(crate) id: String,

    /// Start the machine that this file describes: JSON with the bodies of the API's calls
    #[arg(long, value_name = "FILE", conflicts_with_all = DESCRIPTIONS)]
    pub(crate) config_file: Option<PathBuf>,

    /// Serve no API: the file says all
    #[arg(long, requires = "config_file", conflicts_with = "api_sock")]
    pub(crate) no_api: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimelineFormat {
    Text,
    Json,
    Svg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Announce {
    /// By ACPI
    Acpi,
    /// By virtio_mmio.device= on the command line, for kernels without ACPI
    Cmdline,
    /// By both
    Both,
    /// By a device tree: the last module, named device-tree; Linux finds it in its setup data
    DeviceTree,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineKind {
    /// What kernels and unikernels expect
    Standard,
    /// And debug exit, test device and fw_cfg for test kernels
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnReset {
    /// Ends the machine, with status 1
    Exit,
    /// Starts it anew
    Reboot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backing {
    /// Memory of this process; images are mapped
    Anonymous,
    /// A memfd that other processes can map; images are copied
    Memfd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugePages {
    /// Small pages
    None,
    /// Where the kernel finds them
    Transparent,
    /// 2 MiB pages from the reserved pool
    #[value(name = "2M")]
    TwoMiB,
}

/// A module as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModuleOption {
    pub(crate) path: PathBuf,
    pub(crate) arguments: String,
}

impl FromStr for ModuleOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut path = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(',') {
            path.push_str(before);
            let Some(more) = after.strip_prefix(',') else {
                return Self::new(path, after);
            };
            path.push(',');
            rest = more;
        }
        path.push_str(rest);
        Self::new(path, "")
    }
}

impl ModuleOption {
    fn new(path: String, arguments: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("a file is needed; write FILE[,ARGUMENTS]".into());
        }
        Ok(Self {
            path: path.into(),
            arguments: arguments.to_owned(),
        })
    }
}

fn memory_size(text: &str) -> Result<u64, goldcrest_monitor::memory::MemoryError> {
    goldcrest_monitor::memory::parse_size(text)
}

/// A word of the firmware's command line.
fn entry_id(text: &str) -> Result<String, String> {
    match text.split_ascii_whitespace().count() {
        1 if text.trim() == text => Ok(text.to_owned()),
        _ => Err("the name of an entry is one word".into()),
    }
}

/// A year: what a person may mean by "for ever" still fits every timer.
const MAX_SECONDS: f64 = 366.0 * 24.0 * 3600.0;

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= MAX_SECONDS => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("a number of seconds above 0 and up to a year is needed, for example 2.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_module_is_a_file_and_what_follows_a_comma() {
        let module = |text: &str| {
            let module: ModuleOption = text.parse().unwrap();
            (module.path.display().to_string(), module.arguments)
        };
        for (text, path, arguments) in [
            ("a", "a", ""),
            ("a,", "a", ""),
            ("a,b c,,d,e", "a", "b c,,d,e"),
            ("a,,b,c", "a,b", "c"),
            (",,", ",", ""),
            ("a,,,c", "a,", "c"),
        ] {
            assert_eq!(module(text), (path.into(), arguments.into()), "{text}");
        }
        for text in ["", ",x"] {
            assert!(text.parse::<ModuleOption>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_is_one_word() {
        assert_eq!(entry_id("debian-*.conf"), Ok("debian-*.conf".to_owned()));
        for text in ["", " ", "a b", " a", "a\tb"] {
            assert!(entry_id(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn timeouts_are_positive_and_finite() {
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        for text in ["0", "-1", "nan", "inf", "1e300", "1s", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
