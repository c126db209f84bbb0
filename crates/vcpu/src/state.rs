//! The state of a vCPU as plain data.

use goldcrest_x86::{Registers, SystemRegisters};
use serde::{Deserialize, Serialize};

use crate::cpuid::Cpuid;

/// All of a vCPU's state that a guest can notice.
///
/// What software has a name for is typed; the rest is bytes as the processor or the KVM interface lays them out, both
/// of which are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// General registers.
    pub registers: Registers,
    /// System registers.
    pub system: SystemRegisters,
    /// `IA32_APIC_BASE`.
    pub apic_base: u64,
    /// What the CPU says it is.
    pub cpuid: Cpuid,
    /// Model-specific registers: index and value.
    pub msrs: Vec<(u32, u64)>,
    /// Extended control registers: number and value.
    pub xcrs: Vec<(u32, u64)>,
    /// The XSAVE area (SDM vol. 1 §13.4).
    pub xsave: Vec<u8>,
    /// The local APIC's register page (`kvm_lapic_state`).
    pub local_apic: Vec<u8>,
    /// Pending and injected events (`kvm_vcpu_events`).
    pub events: Vec<u8>,
    /// Debug registers (`kvm_debugregs`).
    pub debug: Vec<u8>,
    /// Running, halted, waiting for SIPI (`KVM_MP_STATE_*`).
    pub mp_state: u32,
    /// Frequency of its time-stamp counter in kHz, 0 if unknown.
    pub tsc_khz: u64,
}
