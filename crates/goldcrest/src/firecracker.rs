//! The tool under the name `firecracker`: programs that start Firecracker start this then, with the arguments that they
//! have for it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;
use goldcrest_api::FIRECRACKER_VERSION;
use goldcrest_api::model::{Level, Logger, Metrics};

use crate::api::{self, Start};
use crate::failure::Failure;
use crate::log::level;

/// Starts machines by Firecracker's API: Goldcrest under Firecracker's name
#[derive(Debug, Parser)]
#[command(
    name = "firecracker",
    disable_version_flag = true,
    max_term_width = 100
)]
struct Args {
    /// Serve the API at this Unix socket
    #[arg(long, value_name = "PATH", default_value = "/run/firecracker.socket")]
    api_sock: PathBuf,

    /// The machine's name
    #[arg(long, default_value = api::DEFAULT_ID)]
    id: String,

    /// Start the machine that this file describes
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,

    /// Serve no API: the file says all
    #[arg(long, requires = "config_file")]
    no_api: bool,

    /// Write a log to this file
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,

    /// The least important lines of it
    #[arg(long, value_parser = level)]
    level: Option<Level>,

    /// Lines say how important they are
    #[arg(long)]
    show_level: bool,

    /// Lines say where in the source they come from
    #[arg(long)]
    show_log_origin: bool,

    /// Log what modules whose path begins so do, and nothing else
    #[arg(long, value_name = "PATH")]
    module: Option<String>,

    /// Write metrics to this file
    #[arg(long, value_name = "FILE")]
    metrics_path: Option<PathBuf>,

    /// The most bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = goldcrest_api::MAX_BODY)]
    http_api_max_payload_size: usize,

    /// Metadata that the guest finds by the API's /mmds, from this file
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,

    /// The most bytes of metadata
    #[arg(long, value_name = "BYTES")]
    mmds_size_limit: Option<usize>,

    /// Not heeded: there is no filter
    #[arg(long)]
    no_seccomp: bool,

    /// Not heeded: when the process was asked for, as a jailer says
    #[arg(long, value_name = "MICROSECONDS")]
    start_time_us: Option<u64>,

    /// Not heeded: as the last, in processor time
    #[arg(long, value_name = "MICROSECONDS")]
    start_time_cpu_us: Option<u64>,

    /// Not heeded: as the last, of the process that asked
    #[arg(long, value_name = "MICROSECONDS")]
    parent_cpu_time_us: Option<u64>,

    /// Print which API is spoken, and by whom
    #[arg(long, short = 'V')]
    version: bool,
}

/// Whether the tool was called so.
pub(crate) fn is_called(name: Option<&OsStr>) -> bool {
    let name = name.and_then(|name| Path::new(name).file_name());
    name.is_some_and(|name| name == "firecracker")
}

/// The name and the socket of the machine that arguments are for; nothing if they are for something else.
pub(crate) fn machine(arguments: &[OsString]) -> Option<(String, Option<PathBuf>)> {
    let args = Args::try_parse_from(arguments).ok()?;
    let socket = (!args.no_api).then_some(args.api_sock);
    (!args.version).then_some((args.id, socket))
}

/// Does what the arguments say.
pub(crate) fn run() -> Result<u8, Failure> {
    let args = Args::parse();
    if args.version {
        let own = env!("CARGO_PKG_VERSION");
        let text = format!("Firecracker v{FIRECRACKER_VERSION}\n\nIts API, by Goldcrest {own}\n");
        return crate::print(text.as_bytes());
    }
    let logged = args.log_path.is_some() || args.level.is_some();
    let logger = logged.then_some(Logger {
        log_path: args.log_path,
        level: args.level,
        show_level: Some(args.show_level),
        show_log_origin: Some(args.show_log_origin),
        module: args.module,
    });
    api::start(Start {
        api_sock: (!args.no_api).then_some(args.api_sock),
        id: args.id,
        config_file: args.config_file,
        serial: "stdio".into(),
        logger,
        metrics: args
            .metrics_path
            .map(|metrics_path| Metrics { metrics_path }),
        max_body: args.http_api_max_payload_size,
        metadata: args.metadata,
        metadata_limit: args.mmds_size_limit,
    })
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
    fn the_name_counts_wherever_the_program_is() {
        for (name, called) in [
            ("firecracker", true),
            ("/usr/bin/firecracker", true),
            ("/firecracker/goldcrest", false),
            ("goldcrest", false),
            ("", false),
        ] {
            assert_eq!(is_called(Some(OsStr::new(name))), called, "{name}");
        }
        assert!(!is_called(None));
    }
}
