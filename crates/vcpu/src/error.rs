//! What can go wrong.

use std::io;

/// Why the hypervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuError {
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open {path}: {hint}")]
    Open {
        /// The device.
        path: String,
        /// What to do.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An interface that this monitor does not know.
    #[error("{path} speaks version {found} of the KVM interface, version 12 is needed")]
    Version {
        /// The device.
        path: String,
        /// What it says.
        found: i32,
    },
    /// A capability is missing that nothing replaces.
    #[error("this KVM lacks {0}")]
    Missing(&'static str),
    /// A call failed.
    #[error("{call} failed")]
    Call {
        /// The call, by its name in the KVM interface.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A model-specific register was refused.
    #[error("this KVM does not let the guest have MSR {0:#x}")]
    Msr(u32),
    /// The CPU is in the middle of an access that comes in several parts: let it run on and try again.
    #[error("the CPU is in the middle of an access: run it on before saving")]
    Unfinished,
    /// A time-stamp counter of another frequency.
    #[error(
        "the guest's time-stamp counter ran at {saved} kHz, this host's runs at {here} kHz and cannot be scaled"
    )]
    TscFrequency {
        /// The saved frequency.
        saved: u64,
        /// This host's.
        here: u64,
    },
    /// A time-stamp counter that would go back.
    #[error(
        "the guest's time-stamp counter was at {saved}, here it would be at {here}, and this KVM does not let it be set"
    )]
    TscBack {
        /// The saved value.
        saved: u64,
        /// What it would be.
        here: u64,
    },
    /// A saved state that cannot be.
    #[error("saved state: {what} has {found} bytes, {expected} are needed")]
    State {
        /// Which part.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size it should have.
        expected: usize,
    },
}

impl VcpuError {
    pub(crate) fn call(call: &'static str) -> impl FnOnce(vmm_sys_util::errno::Error) -> Self {
        move |error| Self::Call {
            call,
            source: error.into(),
        }
    }
}
