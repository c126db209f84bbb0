//! What a KVM can do, for people: which of its features are used, and for what.

use kvm_ioctls::Cap;

use super::Kvm;

/// Whether a capability can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No guest runs without it.
    Required,
    /// Linux needs it, or runs worse.
    Linux,
    /// Something is slower or not offered without it.
    Optional,
}

/// A capability of the running kernel's KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its name in the KVM interface.
    pub name: &'static str,
    /// What it is used for.
    pub purpose: &'static str,
    /// Whether it can be missing.
    pub need: Need,
    /// What `KVM_CHECK_EXTENSION` says: 0 where it is missing, else 1 or a number that the interface explains.
    pub value: i32,
}

/// Name, number, need, purpose.
const USED: [(&str, Cap, Need, &str); 12] = [
    (
        "KVM_CAP_USER_MEMORY",
        Cap::UserMemory,
        Need::Required,
        "guest RAM",
    ),
    (
        "KVM_CAP_SPLIT_IRQCHIP",
        Cap::SplitIrqchip,
        Need::Required,
        "local APICs in the kernel",
    ),
    (
        "KVM_CAP_SIGNAL_MSI",
        Cap::SignalMsi,
        Need::Required,
        "interrupts from devices",
    ),
    (
        "KVM_CAP_IMMEDIATE_EXIT",
        Cap::ImmediateExit,
        Need::Required,
        "interrupting a CPU without a race",
    ),
    (
        "KVM_CAP_IRQ_ROUTING",
        Cap::IrqRouting,
        Need::Linux,
        "the end of level-triggered interrupts",
    ),
    (
        "KVM_CAP_TSC_DEADLINE_TIMER",
        Cap::TscDeadlineTimer,
        Need::Linux,
        "the guest's timer",
    ),
    (
        "KVM_CAP_NR_VCPUS",
        Cap::NrVcpus,
        Need::Optional,
        "how many CPUs run well",
    ),
    (
        "KVM_CAP_MAX_VCPUS",
        Cap::MaxVcpus,
        Need::Optional,
        "how many CPUs are possible",
    ),
    (
        "KVM_CAP_GET_TSC_KHZ",
        Cap::GetTscKhz,
        Need::Optional,
        "telling the guest its clock's frequency",
    ),
    (
        "KVM_CAP_ADJUST_CLOCK",
        Cap::AdjustClock,
        Need::Optional,
        "kvmclock over a snapshot",
    ),
    (
        "KVM_CAP_IOEVENTFD",
        Cap::Ioeventfd,
        Need::Optional,
        "device notifications without an exit",
    ),
    (
        "KVM_CAP_IRQFD",
        Cap::Irqfd,
        Need::Optional,
        "interrupts without a system call",
    ),
];

impl Kvm {
    /// Asks for every capability that Goldcrest uses.
    pub fn capabilities(&self) -> Vec<Capability> {
        USED.iter()
            .map(|&(name, cap, need, purpose)| Capability {
                name,
                purpose,
                need,
                value: self.fd().check_extension_int(cap),
            })
            .collect()
    }
}
