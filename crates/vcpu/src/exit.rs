//! Why guest code stopped running.

use std::fmt;
use std::ops::ControlFlow;

/// Whether [`run`](crate::Vcpu::run) goes on after an access; `Break` makes it return [`Exit::Requested`].
pub type Flow = ControlFlow<()>;

/// What a vCPU does with the guest's accesses. Without a method of its own, reads give all ones and writes nothing.
pub trait ExitHandler {
    /// `in` from a port; `data` is 1, 2 or 4 bytes and starts as all ones.
    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        let _ = (port, data);
    }

    /// `out` to a port; `data` is 1, 2 or 4 bytes.
    fn port_write(&mut self, port: u16, data: &[u8]) -> Flow {
        let _ = (port, data);
        Flow::Continue(())
    }

    /// A read at a guest-physical address that is not RAM; `data` is 1 to 8 bytes and starts as all ones.
    fn memory_read(&mut self, address: u64, data: &mut [u8]) {
        let _ = (address, data);
    }

    /// A write at a guest-physical address that is not RAM; `data` is 1 to 8 bytes.
    fn memory_write(&mut self, address: u64, data: &[u8]) -> Flow {
        let _ = (address, data);
        Flow::Continue(())
    }

    /// The guest acknowledged the level-triggered interrupt with this vector.
    fn end_of_interrupt(&mut self, vector: u8) {
        let _ = vector;
    }

    /// Whether the 8259 pair wants to interrupt this CPU. Asked before each entry.
    fn has_external_interrupt(&mut self) -> bool {
        false
    }

    /// The CPU takes the 8259 pair's interrupt: its vector.
    fn acknowledge_external_interrupt(&mut self) -> Option<u8> {
        None
    }
}

/// Why [`run`](crate::Vcpu::run) returned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It was kicked, or a signal arrived.
    Kicked,
    /// The handler broke the flow.
    Requested,
    /// The guest halted, and no local APIC could wake it.
    Halted,
    /// The processor shut down: a triple fault.
    Shutdown,
    /// The guest told the hypervisor of an event (`KVM_SYSTEM_EVENT_*`).
    SystemEvent(u32),
    /// The hypervisor cannot go on with this guest.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// What the hypervisor says of it.
        data: Vec<u64>,
    },
    /// The processor refused the guest's state.
    EntryFailure {
        /// The hardware's reason.
        reason: u64,
    },
    /// The guest touched memory that the hypervisor could not give.
    MemoryFault {
        /// Guest-physical address.
        address: u64,
    },
    /// A reason that this monitor does not know, by its number in the KVM interface.
    Unknown(u32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kicked => write!(f, "interrupted"),
            Self::Requested => write!(f, "stopped by the monitor"),
            Self::Halted => write!(f, "halted for good"),
            Self::Shutdown => write!(f, "triple fault"),
            Self::SystemEvent(kind) => write!(f, "system event {kind}"),
            Self::InternalError { suberror: 1, .. } => {
                write!(f, "the hypervisor cannot emulate an instruction")
            }
            Self::InternalError { suberror, .. } => {
                write!(f, "internal error {suberror} of the hypervisor")
            }
            Self::EntryFailure { reason } => {
                write!(f, "the processor refused the state (reason {reason:#x})")
            }
            Self::MemoryFault { address } => {
                write!(f, "no memory behind guest-physical {address:#x}")
            }
            Self::Unknown(reason) => write!(f, "unknown exit reason {reason}"),
        }
    }
}
