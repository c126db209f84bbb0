//! A virtual CPU on KVM.

mod revert;
mod saved;
mod shared;

use std::sync::Arc;

use goldcrest_memory::layout::LOCAL_APIC;
use goldcrest_x86::{Registers, SystemRegisters};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;

use super::kick::Kicker;
use super::{Kvm, call, convert};
use crate::cpuid::Cpuid;
use crate::{Exit, ExitHandler, Flow, Kick, Vcpu, VcpuError, VcpuState};

/// Most data that one exit hands to a device at once.
const MAX_ACCESS: usize = 8;

/// Bits of `IA32_APIC_BASE` after reset (SDM vol. 3A §11.4.3, §11.4.4).
const BOOT_CPU: u64 = 1 << 8;
const APIC_ENABLED: u64 = 1 << 11;

/// More parts than any access has: 64 bytes that cross pages, a byte at a time.
const MAX_PARTS: usize = 128;

/// What `KVM_RUN` is called for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// To run guest code.
    Run,
    /// To finish what the last call began, and nothing more.
    CompleteOnly,
}

/// A virtual CPU.
pub struct KvmVcpu {
    fd: VcpuFd,
    kicker: Arc<Kicker>,
    run_size: usize,
    kvm: Kvm,
    /// `IA32_APIC_BASE`, which KVM sets together with system registers.
    apic_base: u64,
    /// Whether it is CPU 0, by whose time-stamp counter the others' go.
    first: bool,
    /// Whether registers and events wait in [what is shared](shared) for the next `KVM_RUN`.
    waiting: bool,
    /// Registers that KVM has and does not list, once they are needed.
    unlisted: Option<Vec<(u32, u64)>>,
    /// The kernel may touch RAM for as long as any descriptor of the machine is open.
    _memory: GuestMemoryMmap,
}

impl KvmVcpu {
    pub(super) fn new(
        kvm: Kvm,
        vm: &VmFd,
        memory: GuestMemoryMmap,
        id: u32,
        cpuid: &Cpuid,
    ) -> Result<Self, VcpuError> {
        let fd = vm
            .create_vcpu(id.into())
            .map_err(VcpuError::call("KVM_CREATE_VCPU"))?;
        if !cpuid.entries.is_empty() {
            set_cpuid(&fd, cpuid)?;
        }
        let kicker = Kicker::new(&fd).map_err(|source| VcpuError::Call {
            call: "mmap of the vCPU",
            source,
        })?;
        Ok(Self {
            run_size: vm.run_size(),
            fd,
            kicker: Arc::new(kicker),
            kvm,
            apic_base: LOCAL_APIC | APIC_ENABLED | if id == 0 { BOOT_CPU } else { 0 },
            first: id == 0,
            waiting: false,
            unlisted: None,
            _memory: memory,
        })
    }

    /// One `KVM_RUN`, and what it returned for. None: go on.
    fn step(
        &mut self,
        handler: &mut dyn ExitHandler,
        entry: Entry,
    ) -> Result<Option<Exit>, VcpuError> {
        // The call takes them, or fails.
        self.waiting = false;
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => {
                return Ok(self.port_access(handler));
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                data.fill(0xff);
                handler.memory_read(address, data);
                return Ok(None);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                return Ok(requested(handler.memory_write(address, data)));
            }
            Ok(VcpuExit::IoapicEoi(vector)) => {
                handler.end_of_interrupt(vector);
                return Ok(None);
            }
            Ok(VcpuExit::IrqWindowOpen | VcpuExit::SetTpr) => return Ok(None),
            Ok(VcpuExit::Hlt) => Exit::Halted,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::SystemEvent(kind, _)) => Exit::SystemEvent(kind),
            Ok(VcpuExit::FailEntry(reason, _)) => Exit::EntryFailure { reason },
            Ok(VcpuExit::MemoryFault { gpa, .. }) => Exit::MemoryFault { address: gpa },
            Ok(VcpuExit::Intr) => Exit::Kicked,
            Ok(VcpuExit::InternalError) => {
                let (suberror, data) = call::internal_error(self.fd.get_kvm_run());
                Exit::InternalError { suberror, data }
            }
            Ok(_) => Exit::Unknown(self.fd.get_kvm_run().exit_reason),
            Err(e) if e.errno() == libc::EINTR => {
                if entry == Entry::Run {
                    self.kicker.returned();
                }
                Exit::Kicked
            }
            // A CPU that waits to be started was woken.
            Err(e) if e.errno() == libc::EAGAIN => return Ok(None),
            Err(e) => return Err(VcpuError::call("KVM_RUN")(e)),
        };
        Ok(Some(exit))
    }

    fn port_access(&mut self, handler: &mut dyn ExitHandler) -> Option<Exit> {
        let Some(access) = call::port_access(self.fd.get_kvm_run(), self.run_size) else {
            return Some(Exit::Unknown(kvm_bindings::KVM_EXIT_IO));
        };
        // A string instruction gives several items; all must be taken, as the guest will not repeat them.
        let mut flow = Flow::Continue(());
        for data in access.data.chunks_mut(access.size.clamp(1, MAX_ACCESS)) {
            if !access.write {
                data.fill(0xff);
                handler.port_read(access.port, data);
            } else if handler.port_write(access.port, data).is_break() {
                flow = Flow::Break(());
            }
        }
        requested(flow)
    }

    /// Hands over the 8259 pair's interrupt, or asks to be told when the guest can take it (api.rst §5,
    /// `request_interrupt_window`).
    fn external_interrupt(&mut self, handler: &mut dyn ExitHandler) -> Result<(), VcpuError> {
        let mut wanted = handler.has_external_interrupt();
        if wanted
            && self.fd.get_kvm_run().ready_for_interrupt_injection != 0
            && let Some(vector) = handler.acknowledge_external_interrupt()
        {
            call::interrupt(&self.fd, vector).map_err(VcpuError::call("KVM_INTERRUPT"))?;
            wanted = handler.has_external_interrupt();
        }
        self.fd.get_kvm_run().request_interrupt_window = wanted.into();
        Ok(())
    }

    /// Lets an instruction whose access was just served finish, so that registers are those after it (api.rst §4.10).
    /// A wide or page-crossing access comes in parts: `handler` is given those that are left.
    fn complete_access(
        &mut self,
        handler: &mut dyn ExitHandler,
    ) -> Result<Option<Exit>, VcpuError> {
        self.kicker.only_complete();
        let mut result = Err(VcpuError::Unfinished);
        for _ in 0..MAX_PARTS {
            match self.step(handler, Entry::CompleteOnly) {
                Ok(None) => {}
                // There is nothing left.
                Ok(Some(Exit::Kicked)) => {
                    result = Ok(None);
                    break;
                }
                other => {
                    result = other;
                    break;
                }
            }
        }
        self.kicker.completed();
        result
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, handler: &mut dyn ExitHandler) -> Result<Exit, VcpuError> {
        self.kicker.enter();
        let result = loop {
            if let Err(error) = self.external_interrupt(handler) {
                break Err(error);
            }
            match self.step(handler, Entry::Run) {
                Ok(None) => {}
                Ok(Some(exit)) => break Ok(exit),
                Err(error) => break Err(error),
            }
        };
        self.kicker.leave();
        result
    }

    fn set_cpuid(&mut self, cpuid: &Cpuid) -> Result<(), VcpuError> {
        set_cpuid(&self.fd, cpuid)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicker.clone()
    }

    fn registers(&self) -> Result<Registers, VcpuError> {
        if self.waiting {
            return Ok(convert::from_kvm_regs(&self.fd.sync_regs().regs));
        }
        let registers = self
            .fd
            .get_regs()
            .map_err(VcpuError::call("KVM_GET_REGS"))?;
        Ok(convert::from_kvm_regs(&registers))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), VcpuError> {
        self.hand_over()?;
        self.fd
            .set_regs(&convert::to_kvm_regs(registers))
            .map_err(VcpuError::call("KVM_SET_REGS"))
    }

    fn system_registers(&self) -> Result<SystemRegisters, VcpuError> {
        if self.waiting {
            return Ok(convert::from_kvm_sregs(&self.fd.sync_regs().sregs));
        }
        let sregs = self
            .fd
            .get_sregs()
            .map_err(VcpuError::call("KVM_GET_SREGS"))?;
        Ok(convert::from_kvm_sregs(&sregs))
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) -> Result<(), VcpuError> {
        self.hand_over()?;
        self.fd
            .set_sregs(&convert::to_kvm_sregs(registers, self.apic_base))
            .map_err(VcpuError::call("KVM_SET_SREGS"))
    }

    fn msr(&self, index: u32) -> Result<u64, VcpuError> {
        let mut msrs = msr_list([(index, 0)])?;
        match (self.fd.get_msrs(&mut msrs), msrs.as_slice()) {
            (Ok(1), [msr]) => Ok(msr.data),
            _ => Err(VcpuError::Msr(index)),
        }
    }

    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), VcpuError> {
        if msrs.is_empty() {
            return Ok(());
        }
        let list = msr_list(msrs.iter().copied())?;
        // The count of those before the first that was refused.
        let count = self
            .fd
            .set_msrs(&list)
            .map_err(VcpuError::call("KVM_SET_MSRS"))?;
        match msrs.get(count) {
            Some((index, _)) => Err(VcpuError::Msr(*index)),
            None => Ok(()),
        }
    }

    fn tsc_khz(&self) -> u64 {
        self.fd.get_tsc_khz().map_or(0, u64::from)
    }

    fn translate(&self, address: u64) -> Option<u64> {
        let translation = self.fd.translate_gva(address).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }

    fn finish_access(&mut self, handler: &mut dyn ExitHandler) -> Result<Option<Exit>, VcpuError> {
        self.complete_access(handler)
    }

    fn save(&mut self) -> Result<VcpuState, VcpuError> {
        self.save_state()
    }

    fn restore(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.restore_state(state, false)
    }

    fn restore_taken(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.restore_state(state, true)
    }

    fn revert(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.put_again(state)
    }
}

fn requested(flow: Flow) -> Option<Exit> {
    flow.is_break().then_some(Exit::Requested)
}

fn set_cpuid(fd: &VcpuFd, cpuid: &Cpuid) -> Result<(), VcpuError> {
    let list = convert::to_kvm_cpuid(cpuid).ok_or(VcpuError::State {
        what: "CPUID",
        found: cpuid.entries.len(),
        expected: KVM_MAX_CPUID_ENTRIES,
    })?;
    fd.set_cpuid2(&list)
        .map_err(VcpuError::call("KVM_SET_CPUID2"))
}

fn msr_list(msrs: impl IntoIterator<Item = (u32, u64)>) -> Result<Msrs, VcpuError> {
    let entries: Vec<_> = msrs
        .into_iter()
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        })
        .collect();
    Msrs::from_entries(&entries).map_err(|_| VcpuError::State {
        what: "MSRs",
        found: entries.len(),
        expected: kvm_bindings::KVM_MAX_MSR_ENTRIES,
    })
}
