//! `--metrics`: what the machine has done, in a file of JSON lines.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use goldcrest_monitor::Control;

use crate::failure::Failure;
use crate::run::create_log;
use crate::say;

/// Where metrics go, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsOption {
    path: PathBuf,
    every: Option<Duration>,
}

/// The shortest time between lines: a disk is not to be filled by a slip of the pen.
const LEAST: Duration = Duration::from_millis(10);
/// The longest: what a person may mean by "never" still fits every timer.
const MOST: Duration = Duration::from_secs(366 * 24 * 3600);

impl FromStr for MetricsOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, every) = match text.rsplit_once(",every=") {
            // One of two commas belongs to the path.
            Some((path, every)) if !path.ends_with(',') => (path, Some(time(every)?)),
            _ => (text, None),
        };
        let plain = path.replace(",,", "");
        if path.is_empty() {
            return Err("a file is needed; write FILE[,every=TIME]".into());
        }
        if plain.contains(',') {
            return Err(format!(
                "{text:?} has another option than every=TIME; a comma in the path is written twice"
            ));
        }
        Ok(Self {
            path: path.replace(",,", ",").into(),
            every,
        })
    }
}

/// `500ms`, `1s` or `2m`.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let millis = match text.get(digits.len()..) {
        Some("ms") => Some(1),
        Some("s") => Some(1000),
        Some("m") => Some(60_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let time = number
        .zip(millis)
        .and_then(|(number, millis)| number.checked_mul(millis))
        .map(Duration::from_millis);
    time.filter(|time| (LEAST..=MOST).contains(time))
        .ok_or_else(|| {
            format!(
                "a time from 10ms to a year is needed, for example 500ms, 1s or 2m, not {text:?}"
            )
        })
}

/// The file, before the machine runs.
pub(crate) struct MetricsLog {
    file: File,
    path: PathBuf,
    every: Option<Duration>,
}

impl MetricsOption {
    /// Creates or empties the file, which must not be one of those that are `taken`.
    pub(crate) fn open(&self, taken: &[Metadata]) -> Result<MetricsLog, Failure> {
        let path = self.path.clone();
        match create_log(&path, taken) {
            Ok(file) => Ok(MetricsLog {
                file,
                path,
                every: self.every,
            }),
            Err(source) => Err(Failure::usage(
                format_args!("cannot create the metrics log {}", path.display()),
                source,
            )),
        }
    }
}

impl MetricsLog {
    /// Writes from now on, until what this gives is dropped: also a line then.
    pub(crate) fn begin(self, control: Arc<Control>) -> Result<Reporter, Failure> {
        let Self { file, path, every } = self;
        // What costs something is measured from when it is first asked for.
        let _ = control.metrics();
        let lines = Lines {
            file,
            path,
            control,
        };
        let Some(every) = every else {
            return Ok(Reporter::AtEnd(lines));
        };
        let (end, ended) = channel::<()>();
        let work = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if !lines.write() {
                    return;
                }
            }
            lines.write();
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(work);
        match thread {
            Ok(thread) => Ok(Reporter::Thread(Some((end, thread)))),
            Err(source) => Err(Failure::failed(
                "cannot start the thread of metrics",
                source,
            )),
        }
    }
}

/// Who writes.
pub(crate) enum Reporter {
    AtEnd(Lines),
    Thread(Option<(Sender<()>, JoinHandle<()>)>),
}

impl Drop for Reporter {
    fn drop(&mut self) {
        match self {
            Self::AtEnd(lines) => {
                lines.write();
            }
            Self::Thread(thread) => {
                if let Some((end, thread)) = thread.take() {
                    drop(end);
                    // It does not panic; if it did, that has been said.
                    let _ = thread.join();
                }
            }
        }
    }
}

pub(crate) struct Lines {
    file: File,
    path: PathBuf,
    control: Arc<Control>,
}

impl Lines {
    /// Writes a line, in one piece. Says so if that is not possible, which does not end the machine.
    fn write(&self) -> bool {
        let line = self.control.metrics().json() + "\n";
        let written = (&self.file).write_all(line.as_bytes());
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let path = self.path.display();
            say(&format!(
                "goldcrest: cannot write metrics to {path}: {error}\n"
            ));
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_time() {
        let parse = |text: &str| {
            let option: MetricsOption = text.parse().unwrap();
            (option.path.display().to_string(), option.every)
        };
        let millis = |millis| Some(Duration::from_millis(millis));
        for (text, path, every) in [
            ("a.jsonl", "a.jsonl", None),
            ("a,every=1s", "a", millis(1000)),
            ("a,,b,every=10ms", "a,b", millis(10)),
            ("a,every=2m", "a", millis(120_000)),
            ("a,,every=1s", "a,every=1s", None),
        ] {
            assert_eq!(parse(text), (path.into(), every), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, why) in [
            ("", "a file is needed"),
            (",every=1s", "a file is needed"),
            ("a,each=1s", "another option"),
            ("a,every=1", "not \"1\""),
            ("a,every=9ms", "not \"9ms\""),
            ("a,every=-1s", "not \"-1s\""),
            ("a,every=99999999999999999999s", "from 10ms to a year"),
            ("a,every=999999999999999999m", "from 10ms to a year"),
        ] {
            let error = text.parse::<MetricsOption>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
