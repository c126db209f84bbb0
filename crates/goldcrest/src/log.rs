//! The log: what the crates say of what happens, as lines in a file or on standard error.
//!
//! Nothing is there for it until it is asked for: an event is a comparison of two numbers then.

mod limits;
mod line;
mod subscriber;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use goldcrest_api::model::{Level, Logger};
use goldcrest_api::{Fault, Logs};
use tracing::level_filters::LevelFilter;

use self::line::Style;
use self::subscriber::{Log, Sink};
use crate::failure::Failure;
use crate::run::is_one_of;

/// The process' log, once there is one.
static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// What is logged, and where.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogOptions {
    /// Log what happens, from this level on: off, error, warn, info, debug or trace [default: info, with --log-file or
    /// --log-format]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub(crate) log_level: Option<Level>,

    /// How lines of the log are written [default: text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<Format>,

    /// Append the log to this file or pipe [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// An object of JSON on each line
    Json,
}

/// A level by its name.
pub(crate) fn level(text: &str) -> Result<Level, serde::de::value::Error> {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    Level::deserialize(text.into_deserializer())
}

impl LogOptions {
    /// Logs from now on, if that is asked for. The file must not be one of those that are `taken`.
    pub(crate) fn begin(&self, id: &str, taken: &[Metadata]) -> Result<(), Failure> {
        let Self {
            log_level,
            log_format,
            log_file,
        } = self;
        if log_level.is_none() && log_format.is_none() && log_file.is_none() {
            return Ok(());
        }
        let sink = match log_file {
            Some(path) => Sink::File(open(path, taken).map_err(|source| {
                let what = format_args!("cannot open the log {}", path.display());
                Failure::usage(what, source)
            })?),
            None => Sink::StandardError,
        };
        begun().set(|settings, style| {
            settings.sink = sink;
            settings.level = filter(log_level.unwrap_or_default());
            *style = Style {
                id: id.to_owned(),
                format: log_format.unwrap_or_default(),
                show_level: true,
                ..Style::default()
            };
        });
        Ok(())
    }
}

/// The log as clients of the API set it.
pub(crate) struct ClientLog;

impl Logs for ClientLog {
    fn set(&mut self, id: &str, logger: &Logger) -> Result<(), Fault> {
        let path = logger.log_path.as_deref();
        let file = path.map(|path| {
            let why = |error| format!("cannot open the log {}: {error}", path.display());
            open(path, &[]).map_err(|error| Fault::new(why(error)))
        });
        let file = file.transpose()?;
        let is_first = LOG.get().is_none();
        begun().set(|settings, style| {
            if let Some(file) = file {
                settings.sink = Sink::File(file);
            }
            match logger.level {
                Some(level) => settings.level = filter(level),
                None if is_first => settings.level = LevelFilter::INFO,
                None => {}
            }
            if let Some(module) = &logger.module {
                settings.module = Some(module.clone()).filter(|module| !module.is_empty());
            }
            id.clone_into(&mut style.id);
            style.show_level = logger.show_level.unwrap_or(style.show_level);
            style.show_origin = logger.show_log_origin.unwrap_or(style.show_origin);
        });
        Ok(())
    }

    fn lost(&self) -> u64 {
        LOG.get().map_or(0, |log| log.lost())
    }
}

/// Says how much was left out.
pub(crate) fn end() {
    if let Some(log) = LOG.get() {
        log.end();
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warning => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// The log, which is there from when it is first set.
fn begun() -> &'static Log {
    LOG.get_or_init(|| {
        let log = Arc::<Log>::default();
        // The process has no other.
        let _ = tracing::subscriber::set_global_default(log.clone());
        log
    })
}

/// Opens a file or a pipe to be written to, without waiting for a reader.
fn open(path: &Path, taken: &[Metadata]) -> io::Result<File> {
    let file = OpenOptions::new()
        // Read, too: a pipe is opened for writing alone when it has a reader only.
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    match is_one_of(&file.metadata()?, taken) {
        true => Err(io::Error::other(
            "it is the guest's image or disk; choose another file",
        )),
        false => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_named_in_any_case() {
        assert_eq!(level("warn"), Ok(Level::Warning));
        assert_eq!(level("DEBUG"), Ok(Level::Debug));
        assert!(level("loud").is_err());
    }

    #[test]
    fn a_disk_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, "disk").unwrap();
        let taken = std::fs::metadata(&path).unwrap();
        assert!(open(&path, &[taken]).is_err());
        assert!(open(&path, &[]).is_ok());
        assert!(open(dir.path(), &[]).is_err());
    }
}
