//! What the tool says when it cannot do what it was asked, and the exit status.

use std::error::Error;
use std::fmt;
use std::path::Path;

use goldcrest_api::Fault;
use goldcrest_boot::BootError;
use goldcrest_monitor::MonitorError;
use goldcrest_monitor::memory::MemoryError;

/// Asked wrongly.
const USAGE: u8 = 2;
/// Failed.
const FAILED: u8 = 1;

/// An error on its way to the person, on one line.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// Something failed although what was asked for is possible.
    pub(crate) fn failed(what: impl fmt::Display, source: impl Error) -> Self {
        Self {
            status: FAILED,
            message: format!("{what}: {}", chain(&source)),
        }
    }

    /// What was asked for is not possible.
    pub(crate) fn usage(what: impl fmt::Display, source: impl Error) -> Self {
        Self {
            status: USAGE,
            ..Self::failed(what, source)
        }
    }

    /// What was asked for is not possible, for a reason that is a sentence of its own.
    pub(crate) fn asked_wrongly(message: String) -> Self {
        Self {
            status: USAGE,
            message,
        }
    }

    /// Something is wrong with what `path` has.
    pub(crate) fn of(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message);
        self
    }

    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        MonitorError::from(error).into()
    }
}

impl From<MonitorError> for Failure {
    fn from(error: MonitorError) -> Self {
        let status = match &error {
            MonitorError::Boot(BootError::Read { .. }) => FAILED,
            MonitorError::Boot(_)
            | MonitorError::Cpus { .. }
            | MonitorError::Device { .. }
            | MonitorError::VirtioDevices { .. }
            | MonitorError::Memory(MemoryError::Size { .. }) => USAGE,
            _ => FAILED,
        };
        Self {
            status,
            message: chain(&error),
        }
    }
}

/// An error and what caused it, each once.
fn chain(error: &dyn Error) -> String {
    Fault::of(error).to_string()
}
