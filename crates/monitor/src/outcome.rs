//! How a machine ended.

use std::fmt;

use goldcrest_vcpu::{Exit, Report};

use crate::StopReason;

/// How a machine ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The guest powered it off.
    PowerOff,
    /// The guest reset it.
    Reset,
    /// The guest ended with a status, 0 meaning success.
    Exit(u32),
    /// It was stopped from outside.
    Stopped(StopReason),
    /// The guest asked a device for what it has no answer to: what that was.
    Violation(String),
    /// The guest did what a machine does not survive.
    Crashed {
        /// Why the CPU stopped.
        exit: Exit,
        /// Where it was.
        report: Box<Report>,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "the guest powered off"),
            Self::Reset => write!(f, "the guest reset the machine"),
            Self::Exit(status) => write!(f, "the guest ended with status {status}"),
            Self::Stopped(StopReason::Signal(number)) => write!(f, "stopped by signal {number}"),
            Self::Stopped(StopReason::Timeout) => write!(f, "stopped: time is up"),
            Self::Stopped(StopReason::Escape) => write!(f, "stopped by Ctrl-a x"),
            Self::Stopped(StopReason::Request) => write!(f, "stopped as requested"),
            Self::Violation(what) => write!(f, "{what}"),
            Self::Crashed { report, .. } => write!(f, "{report}"),
        }
    }
}
