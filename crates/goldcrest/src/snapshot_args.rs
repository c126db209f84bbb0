//! The command line of `goldcrest snapshot`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use goldcrest_monitor::WallClock;

use crate::args::{RESTORE_ABOUT, seconds};
use crate::log::LogOptions;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save a machine that was started with --api-sock, and is paused (`goldcrest ctl -s PATH pause`)
    Create {
        /// The machine's socket
        #[arg(long, short = 's', value_name = "PATH")]
        api_sock: PathBuf,

        /// The snapshot's directory, which is made if it is not there
        directory: PathBuf,

        /// Only what has changed since the last one, or since the one that it was restored from: that stays where it is
        #[arg(long)]
        diff: bool,
    },
    #[command(about = RESTORE_ABOUT)]
    Restore(Box<RestoreCommand>),
    /// Give a snapshot's memory to machines that are restored with --memory-server, until a signal ends it
    Serve {
        /// The snapshot's directory
        directory: PathBuf,

        /// The socket at which they ask for it
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,

        #[command(flatten)]
        bases: Bases,
    },
    /// Say what a snapshot has, and which files of this machine it would open
    Info {
        /// The snapshot's directory, its state file, or an archive
        snapshot: PathBuf,

        #[command(flatten)]
        key: KeyFile,
    },
    /// Read all of a snapshot, and compare it with its checksums; with those that it is the difference to
    Verify {
        /// The snapshot's directory, or an archive: that by itself
        snapshot: PathBuf,

        #[command(flatten)]
        bases: Bases,

        #[command(flatten)]
        key: KeyFile,
    },
    /// Make a full snapshot of one that is the difference to another
    Flatten {
        /// The snapshot's directory
        directory: PathBuf,

        /// The full snapshot's directory, which is made if it is not there
        output: PathBuf,

        #[command(flatten)]
        bases: Bases,
    },
    /// Put a snapshot into one file, compressed, and encrypted if there is a key
    Pack {
        /// The snapshot's directory
        directory: PathBuf,

        /// The archive, or - for the standard output
        archive: PathBuf,

        #[command(flatten)]
        key: KeyFile,
    },
    /// Take a snapshot out of an archive
    Unpack {
        /// The archive, or - for the standard input
        archive: PathBuf,

        /// The snapshot's directory, which is made if it is not there
        directory: PathBuf,

        #[command(flatten)]
        key: KeyFile,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeyFile {
    /// The archive is encrypted with the key in this file: 32 bytes, or 64 hexadecimal digits
    #[arg(long, value_name = "PATH")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bases {
    /// Look here for a snapshot that it is the difference to, and then where that was; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Vec<PathBuf>,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  goldcrest snapshot create -s vm.sock frozen           of a machine that is paused
  goldcrest snapshot info frozen                        what it has, and its devices' names
  goldcrest snapshot restore frozen                     it goes on where it was
  goldcrest snapshot restore frozen --disk disk0=copy.img --tap net0=tap7 --clock now
  goldcrest snapshot serve frozen --socket pages.sock & goldcrest snapshot restore frozen --memory-server pages.sock

Exit status: as for goldcrest run.
";

#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct RestoreCommand {
    #[command(flatten)]
    pub(crate) options: RestoreOptions,

    /// Have memory come from who listens at this socket, as it is touched: goldcrest snapshot serve, or a page fault
    /// handler made for Firecracker. The file `memory` is not needed then
    #[arg(long, value_name = "SOCKET")]
    pub(crate) memory_server: Option<PathBuf>,

    /// When the guest ends, write down which pages of memory it touched, so that others have them before they do
    #[arg(long, conflicts_with = "memory_server")]
    pub(crate) record_working_set: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RestoreOptions {
    /// The snapshot's directory: it has the files `state` and `memory`
    pub(crate) directory: PathBuf,

    #[command(flatten)]
    pub(crate) bases: Bases,

    /// Put a disk into another file, with the same contents; may be repeated
    #[arg(long, value_name = "ID=PATH")]
    pub(crate) disk: Vec<Binding>,

    /// Put a network card on another tap; may be repeated
    #[arg(long, value_name = "ID=TAP")]
    pub(crate) tap: Vec<Binding>,

    /// Put the sockets between guest and host elsewhere
    #[arg(long, value_name = "PATH")]
    pub(crate) vsock_uds: Option<PathBuf>,

    /// Give the guest another CID
    #[arg(long, value_name = "N")]
    pub(crate) vsock_cid: Option<u64>,

    /// Let the guest read this JSON document where it could read one before (`goldcrest run --mmds`): what it read then is
    /// not saved
    #[arg(long, value_name = "FILE")]
    pub(crate) mmds: Option<PathBuf>,

    /// Whether time went on for the guest while it was saved
    #[arg(long, value_enum, default_value_t = Clock::Frozen)]
    pub(crate) clock: Clock,

    /// Wait for SIGUSR2 before it goes on
    #[arg(long)]
    pub(crate) paused: bool,

    /// Leave it to the guest to touch the pages that it needs, although a run before was recorded
    #[arg(long)]
    pub(crate) no_working_set: bool,

    /// Where the serial port goes: stdio, none, or a file for its output
    #[arg(long, value_name = "stdio|none|FILE", default_value = "stdio")]
    pub(crate) serial: PathBuf,

    /// End the guest after so many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    /// No: its clocks go on from where they were
    Frozen,
    /// Yes: its clocks are ahead by what has passed
    Now,
}

impl From<Clock> for WallClock {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Frozen => Self::Frozen,
            Clock::Now => Self::Now,
        }
    }
}

/// A device, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) id: String,
    pub(crate) end: String,
}

impl FromStr for Binding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((id, end)) if !id.is_empty() && !end.is_empty() => Ok(Self {
                id: id.to_owned(),
                end: end.to_owned(),
            }),
            _ => {
                Err("write the device's id, =, and where it is, for example disk0=copy.img".into())
            }
        }
    }
}
