//! Registers and events that wait for the next `KVM_RUN` (api.rst §5, `kvm_dirty_regs`).
//!
//! That call takes them from the memory that it shares with the process, which saves three calls. It finds out only then
//! whether they are possible: this is for states that a CPU has taken before.

use goldcrest_memory::layout::LOCAL_APIC;
use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_vcpu_events};
use kvm_ioctls::SyncReg;

use super::{APIC_ENABLED, BOOT_CPU, KvmVcpu, convert};
use crate::{VcpuError, VcpuState};

/// Of the local APIC: the task-priority register, which is of more bits than CR8 (SDM vol. 3A §11.8.6).
const TASK_PRIORITY: usize = 0x80;
const BELOW_CR8: u8 = 0xf;

impl KvmVcpu {
    /// Whether a state's registers and events can be set after all else. The local APIC is in the mode that system
    /// registers tell, and one of its registers is part of CR8; a CPU that waits to be started takes nothing.
    pub(super) fn can_wait(&self, state: &VcpuState) -> bool {
        self.first
            && self.kvm.takes_registers()
            && self.apic_base == state.apic_base
            && state.apic_base == LOCAL_APIC | APIC_ENABLED | BOOT_CPU
            && matches!(state.mp_state, KVM_MP_STATE_RUNNABLE | KVM_MP_STATE_HALTED)
            && state
                .local_apic
                .get(TASK_PRIORITY)
                .is_some_and(|priority| priority & BELOW_CR8 == 0)
    }

    /// Has the next `KVM_RUN` take a state's registers and events.
    pub(super) fn wait_with(&mut self, state: &VcpuState, events: kvm_vcpu_events) {
        let shared = self.fd.sync_regs_mut();
        shared.regs = convert::to_kvm_regs(&state.registers);
        shared.sregs = convert::to_kvm_sregs(&state.system, state.apic_base);
        shared.events = events;
        for what in [
            SyncReg::Register,
            SyncReg::SystemRegister,
            SyncReg::VcpuEvents,
        ] {
            self.fd.set_sync_dirty_reg(what);
        }
        self.waiting = true;
    }

    /// Sets what waits now.
    pub(super) fn hand_over(&mut self) -> Result<(), VcpuError> {
        if !std::mem::take(&mut self.waiting) {
            return Ok(());
        }
        let shared = self.fd.sync_regs();
        self.fd.get_kvm_run().kvm_dirty_regs = 0;
        self.fd
            .set_regs(&shared.regs)
            .map_err(VcpuError::call("KVM_SET_REGS"))?;
        self.fd
            .set_sregs(&shared.sregs)
            .map_err(VcpuError::call("KVM_SET_SREGS"))?;
        self.fd
            .set_vcpu_events(&shared.events)
            .map_err(VcpuError::call("KVM_SET_VCPU_EVENTS"))
    }
}
