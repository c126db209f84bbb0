//! The three traits.

use std::sync::Arc;

use goldcrest_irq::MsiSink;
use goldcrest_memory::GuestRam;
use goldcrest_x86::{Registers, SystemRegisters};

use crate::cpuid::Cpuid;
use crate::{Exit, ExitHandler, VcpuError, VcpuState};

/// Makes virtual machines.
pub trait Hypervisor {
    /// Its machines.
    type Vm: Vm;

    /// A machine with this RAM and, in the hypervisor, nothing but local APICs. The machine keeps the RAM alive.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses.
    fn create_vm(&self, ram: &GuestRam) -> Result<Self::Vm, VcpuError>;

    /// What the processors of a machine can be: the host's features that the hypervisor supports, less those that a
    /// guest has no use for. Ask once; it is slow where the host itself is virtual.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor does not tell.
    fn cpuid(&self) -> Result<Cpuid, VcpuError>;

    /// How many CPUs a machine can have.
    fn max_cpus(&self) -> u32;
}

/// A virtual machine.
pub trait Vm: Send + Sync + 'static {
    /// Its CPUs.
    type Vcpu: Vcpu;

    /// The CPU with this number, which is its local APIC's identifier too. CPU 0 starts in the state that it is
    /// given; the others wait for the guest to start them (INIT, SIPI).
    ///
    /// `cpuid` is set as [`Cpuid::for_cpu`] gave it; an empty one leaves a processor that says nothing of itself.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses, for instance a number that exists.
    fn create_vcpu(&self, id: u32, cpuid: &Cpuid) -> Result<Self::Vcpu, VcpuError>;

    /// The local APICs as a target of messages.
    fn msi_sink(&self) -> Arc<dyn MsiSink>;

    /// What the guest's paravirtual clock shows, in nanoseconds.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor does not tell.
    fn clock(&self) -> Result<u64, VcpuError>;

    /// Has the guest's paravirtual clock go on from `nanoseconds`. After its CPUs were restored.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses.
    fn set_clock(&self, nanoseconds: u64) -> Result<(), VcpuError>;

    /// Forgets what the guest's page tables said, which have changed without the guest: RAM was given other contents
    /// ([`GuestRam::revert`]) while no CPU ran. A hypervisor that walks them for the processor keeps what it found, and
    /// would go on by tables that are not there any more.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses.
    fn forget_translations(&self) -> Result<(), VcpuError>;
}

/// A virtual CPU. Created on any thread, run on one thread at a time.
pub trait Vcpu: Send {
    /// Runs guest code, handing accesses to `handler`, until the guest ends, is kicked, or `handler` breaks the flow.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor itself fails.
    fn run(&mut self, handler: &mut dyn ExitHandler) -> Result<Exit, VcpuError>;

    /// Sets what the CPU says it is, as [`Cpuid::for_cpu`] gave it. Before it first runs.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses.
    fn set_cpuid(&mut self, cpuid: &Cpuid) -> Result<(), VcpuError>;

    /// A handle that interrupts [`run`](Self::run).
    fn kicker(&self) -> Arc<dyn Kick>;

    /// The general registers.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor does not tell.
    fn registers(&self) -> Result<Registers, VcpuError>;

    /// Sets the general registers.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), VcpuError>;

    /// The system registers.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor does not tell.
    fn system_registers(&self) -> Result<SystemRegisters, VcpuError>;

    /// Sets the system registers.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor refuses, for instance a state that no processor can be in.
    fn set_system_registers(&mut self, registers: &SystemRegisters) -> Result<(), VcpuError>;

    /// Reads one model-specific register.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Msr`] if this CPU does not have it.
    fn msr(&self, index: u32) -> Result<u64, VcpuError>;

    /// Sets model-specific registers: pairs of index and value.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Msr`] with the first that was refused.
    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), VcpuError>;

    /// Frequency of the guest's time-stamp counter in kHz, 0 if unknown.
    fn tsc_khz(&self) -> u64;

    /// The guest-physical address behind a guest-virtual one, as the guest's page tables have it now.
    fn translate(&self, address: u64) -> Option<u64>;

    /// Has an access finished that the CPU is in the middle of, and hands what is left of it to `handler`; no further
    /// instruction is run. As for [`run`](Self::run), an exit means that the guest ends or the handler broke the flow.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if the hypervisor itself fails.
    fn finish_access(&mut self, handler: &mut dyn ExitHandler) -> Result<Option<Exit>, VcpuError>;

    /// The CPU's state. It must not be running; an access that was begun is completed first.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Unfinished`] in the middle of an access of several parts, which
    /// [`finish_access`](Self::finish_access) finishes, else [`VcpuError`] if the hypervisor does not tell.
    fn save(&mut self) -> Result<VcpuState, VcpuError>;

    /// Puts a state back. The state is checked by the hypervisor. Returns the model-specific registers that it did not
    /// take, which are as after a reset.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if it is refused; the CPU's state is undefined then.
    fn restore(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError>;

    /// As [`restore`](Self::restore), of a state that another CPU of this hypervisor has taken: what only finds faults in it
    /// may be left to the first [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if it is refused; the CPU's state is undefined then.
    fn restore_taken(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.restore(state)
    }

    /// As [`restore`](Self::restore), of a CPU that has run and was restored from the same state before: nothing stays of
    /// what it has done since. An access in whose middle it is ends unseen.
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if it is refused; the CPU is of no use then.
    fn revert(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError>;
}

/// Interrupts a vCPU.
pub trait Kick: Send + Sync {
    /// Makes [`Vcpu::run`] return [`Exit::Kicked`]: at once if it is running, else as soon as it is called.
    ///
    /// May be called from any thread and from a signal handler.
    fn kick(&self);
}
