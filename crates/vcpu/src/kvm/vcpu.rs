//! A virtual CPU on KVM.

mod revert;

use std::sync::Arc;

use goldcrest_memory::layout::LOCAL_APIC;
use goldcrest_x86::{Registers, SystemRegisters};
use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, Msrs, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_vcpu_events, kvm_xcr, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuExit, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;
use zerocopy::{FromBytes, IntoBytes};

use super::kick::Kicker;
use super::{Kvm, call, convert};
use crate::cpuid::Cpuid;
use crate::{Exit, ExitHandler, Flow, Kick, Vcpu, VcpuError, VcpuState};

/// Most data that one exit hands to a device at once.
const MAX_ACCESS: usize = 8;

/// `IA32_TIME_STAMP_COUNTER` and `IA32_TSC_DEADLINE` (SDM vol. 4 §2.1).
const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// `MSR_KVM_SYSTEM_TIME` and `MSR_KVM_SYSTEM_TIME_NEW`: a clock is in use if bit 0 is set.
const MSR_CLOCKS: [u32; 2] = [0x12, super::MSR_KVM_SYSTEM_TIME_NEW];
/// What a CPU has after a reset (SDM vol. 3A table 10-1; vol. 1 §13.3).
const XCRS_OF_NEW: [(u32, u64); 1] = [(0, 1)];
const DEBUG_OF_NEW: kvm_debugregs = kvm_debugregs {
    db: [0; 4],
    dr6: 0xffff_0ff0,
    dr7: 0x400,
    flags: 0,
    reserved: [0; 9],
};
/// Registers that one `KVM_SET_MSRS` takes.
const MAX_MSRS: usize = 256;
/// Frequencies that differ by less than a part of this are the same, measured twice: NTP takes 500 millionths.
const TSC_TOLERANCE: u64 = 4000;

/// The local APIC's timer entry, and of it the mask and the mode (SDM vol. 3A §11.5.1).
const LVT_TIMER: usize = 0x320;
const LVT_MASKED: u32 = 1 << 16;
const LVT_MODE: u32 = 3 << 17;
const LVT_TSC_DEADLINE: u32 = 2 << 17;

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

/// Nobody who could serve a part of an access.
struct Nobody {
    asked: bool,
}

impl ExitHandler for Nobody {
    fn port_read(&mut self, _: u16, _: &mut [u8]) {
        self.asked = true;
    }

    fn port_write(&mut self, _: u16, _: &[u8]) -> Flow {
        self.asked = true;
        Flow::Break(())
    }

    fn memory_read(&mut self, _: u64, _: &mut [u8]) {
        self.asked = true;
    }

    fn memory_write(&mut self, _: u64, _: &[u8]) -> Flow {
        self.asked = true;
        Flow::Break(())
    }
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

    /// All model-specific registers that this CPU lets be read.
    fn save_msrs(&self) -> Result<Vec<(u32, u64)>, VcpuError> {
        let list = self
            .kvm
            .fd()
            .get_msr_index_list()
            .map_err(VcpuError::call("KVM_GET_MSR_INDEX_LIST"))?;
        let mut saved = Vec::new();
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let mut msrs = msr_list(rest.iter().map(|&index| (index, 0)))?;
            // Stops at the first that cannot be read.
            let count = self
                .fd
                .get_msrs(&mut msrs)
                .map_err(VcpuError::call("KVM_GET_MSRS"))?;
            saved.extend(
                msrs.as_slice()
                    .iter()
                    .take(count)
                    .map(|m| (m.index, m.data)),
            );
            rest = rest.get(count + 1..).unwrap_or_default();
        }
        Ok(saved)
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
        let registers = self
            .fd
            .get_regs()
            .map_err(VcpuError::call("KVM_GET_REGS"))?;
        Ok(convert::from_kvm_regs(&registers))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), VcpuError> {
        self.fd
            .set_regs(&convert::to_kvm_regs(registers))
            .map_err(VcpuError::call("KVM_SET_REGS"))
    }

    fn system_registers(&self) -> Result<SystemRegisters, VcpuError> {
        let sregs = self
            .fd
            .get_sregs()
            .map_err(VcpuError::call("KVM_GET_SREGS"))?;
        Ok(convert::from_kvm_sregs(&sregs))
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) -> Result<(), VcpuError> {
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
        let mut nobody = Nobody { asked: false };
        self.complete_access(&mut nobody)?;
        if nobody.asked {
            return Err(VcpuError::Unfinished);
        }
        let fd = &self.fd;
        let cpuid = fd
            .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
            .map_err(VcpuError::call("KVM_GET_CPUID2"))?;
        let sregs = fd.get_sregs().map_err(VcpuError::call("KVM_GET_SREGS"))?;
        let xcrs = fd.get_xcrs().map_err(VcpuError::call("KVM_GET_XCRS"))?;
        let xsave = fd.get_xsave().map_err(VcpuError::call("KVM_GET_XSAVE"))?;
        let local_apic = fd.get_lapic().map_err(VcpuError::call("KVM_GET_LAPIC"))?;
        let debug = fd
            .get_debug_regs()
            .map_err(VcpuError::call("KVM_GET_DEBUGREGS"))?;
        let events = fd
            .get_vcpu_events()
            .map_err(VcpuError::call("KVM_GET_VCPU_EVENTS"))?;
        let mp_state = fd
            .get_mp_state()
            .map_err(VcpuError::call("KVM_GET_MP_STATE"))?;
        let mut msrs = self.save_msrs()?;
        keep_timer(&mut msrs, local_apic.as_bytes());
        let xcr_count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0);
        Ok(VcpuState {
            registers: self.registers()?,
            system: convert::from_kvm_sregs(&sregs),
            apic_base: sregs.apic_base,
            cpuid: convert::from_kvm_cpuid(&cpuid),
            msrs,
            xcrs: xcrs
                .xcrs
                .iter()
                .take(xcr_count)
                .map(|x| (x.xcr, x.value))
                .collect(),
            xsave: xsave.as_bytes().to_vec(),
            local_apic: local_apic.as_bytes().to_vec(),
            events: events.as_bytes().to_vec(),
            debug: debug.as_bytes().to_vec(),
            mp_state: mp_state.mp_state,
            tsc_khz: self.tsc_khz(),
        })
    }

    fn restore(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.set_tsc_khz(state.tsc_khz)?;
        if !state.cpuid.entries.is_empty() {
            set_cpuid(&self.fd, &state.cpuid)?;
        }
        self.put(state, &[], true)
    }

    fn revert(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.put_again(state)
    }
}

impl KvmVcpu {
    /// Puts all of a state back but what never changes. MSRs of `before` are set first; those of all that were refused. A
    /// `new` CPU has some of it already: each call that is left out saves 10 µs where the host is virtual itself.
    fn put(
        &mut self,
        state: &VcpuState,
        before: &[(u32, u64)],
        new: bool,
    ) -> Result<Vec<u32>, VcpuError> {
        let xsave: kvm_xsave = parse("XSAVE area", &state.xsave)?;
        let local_apic: kvm_lapic_state = parse("local APIC", &state.local_apic)?;
        let events: kvm_vcpu_events = parse("events", &state.events)?;
        let debug: kvm_debugregs = parse("debug registers", &state.debug)?;
        let xcrs = xcr_list(&state.xcrs)?;

        if !(new && self.first && state.mp_state == KVM_MP_STATE_RUNNABLE) {
            let mp_state = kvm_mp_state {
                mp_state: state.mp_state,
            };
            self.fd
                .set_mp_state(mp_state)
                .map_err(VcpuError::call("KVM_SET_MP_STATE"))?;
        }
        self.set_registers(&state.registers)?;
        self.apic_base = state.apic_base;
        self.set_system_registers(&state.system)?;
        if !(new && state.xcrs == XCRS_OF_NEW) {
            self.fd
                .set_xcrs(&xcrs)
                .map_err(VcpuError::call("KVM_SET_XCRS"))?;
        }
        call::set_xsave(&self.fd, &xsave).map_err(VcpuError::call("KVM_SET_XSAVE"))?;
        if !(new && debug == DEBUG_OF_NEW) {
            self.fd
                .set_debug_regs(&debug)
                .map_err(VcpuError::call("KVM_SET_DEBUGREGS"))?;
        }
        self.fd
            .set_lapic(&local_apic)
            .map_err(VcpuError::call("KVM_SET_LAPIC"))?;
        let refused = self.restore_msrs(before, &state.msrs)?;
        self.fd
            .set_vcpu_events(&events)
            .map_err(VcpuError::call("KVM_SET_VCPU_EVENTS"))?;
        if has_clock(&state.msrs) {
            // Tells the guest's watchdogs that they were not looked after.
            let _ = self.fd.kvmclock_ctrl();
        }
        Ok(refused)
    }

    /// Has the counter run as fast as it did, within what clocks of one kind differ by.
    fn set_tsc_khz(&self, saved: u64) -> Result<(), VcpuError> {
        let here = self.tsc_khz();
        if saved == 0 || here == 0 || saved.abs_diff(here) <= here / TSC_TOLERANCE {
            return Ok(());
        }
        let refused = VcpuError::TscFrequency { saved, here };
        match u32::try_from(saved) {
            Ok(khz) if self.kvm.fd().check_extension(Cap::TscControl) => {
                self.fd.set_tsc_khz(khz).map_err(|_| refused)
            }
            _ => Err(refused),
        }
    }

    /// Sets registers, in the order in which one may depend on another; those that were refused.
    fn restore_msrs(
        &mut self,
        before: &[(u32, u64)],
        msrs: &[(u32, u64)],
    ) -> Result<Vec<u32>, VcpuError> {
        let last = |msr: &&(u32, u64)| msr.0 == MSR_TSC_DEADLINE;
        // The deadline is of the counter, and arms a timer whose mode is the local APIC's.
        let mut rest = before.to_vec();
        rest.extend(msrs.iter().filter(|msr| !last(msr)));
        rest.extend(msrs.iter().filter(last));
        let mut refused = Vec::new();
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            let batch = rest.get(..MAX_MSRS).unwrap_or(rest);
            let list = msr_list(batch.iter().copied())?;
            // The count of those before the first that was refused.
            let count = self
                .fd
                .set_msrs(&list)
                .map_err(VcpuError::call("KVM_SET_MSRS"))?;
            match batch.get(count) {
                Some((index, _)) => {
                    refused.push(*index);
                    rest = rest.get(count + 1..).unwrap_or_default();
                }
                None => rest = rest.get(batch.len()..).unwrap_or_default(),
            }
        }
        self.check_tsc(msrs)?;
        Ok(refused)
    }

    /// A KVM that takes a counter's value and does not set it would have time go back on a host that was started later.
    fn check_tsc(&self, msrs: &[(u32, u64)]) -> Result<(), VcpuError> {
        let Some(&(_, saved)) = msrs.iter().find(|msr| msr.0 == MSR_TSC) else {
            return Ok(());
        };
        match self.msr(MSR_TSC) {
            Ok(here) if here < saved => Err(VcpuError::TscBack { saved, here }),
            _ => Ok(()),
        }
    }
}

/// A timer that has run out, and whose interrupt the local APIC does not have yet, reads as one that is not armed. It is
/// to run out at once after it is restored.
fn keep_timer(msrs: &mut [(u32, u64)], local_apic: &[u8]) {
    let lvt = local_apic
        .get(LVT_TIMER..)
        .and_then(|register| register.first_chunk())
        .map_or(LVT_MASKED, |bytes| u32::from_le_bytes(*bytes));
    if lvt & (LVT_MASKED | LVT_MODE) != LVT_TSC_DEADLINE {
        return;
    }
    let now = msrs.iter().find(|msr| msr.0 == MSR_TSC).map(|msr| msr.1);
    let deadline = msrs.iter_mut().find(|msr| msr.0 == MSR_TSC_DEADLINE);
    if let (Some(now), Some((_, deadline @ 0))) = (now, deadline) {
        *deadline = now;
    }
}

/// Whether the guest has a paravirtual clock.
fn has_clock(msrs: &[(u32, u64)]) -> bool {
    msrs.iter()
        .any(|(index, value)| MSR_CLOCKS.contains(index) && value & 1 != 0)
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

fn xcr_list(xcrs: &[(u32, u64)]) -> Result<kvm_xcrs, VcpuError> {
    let mut list = kvm_xcrs::default();
    if xcrs.len() > list.xcrs.len() {
        return Err(VcpuError::State {
            what: "XCRs",
            found: xcrs.len(),
            expected: list.xcrs.len(),
        });
    }
    for (slot, &(xcr, value)) in list.xcrs.iter_mut().zip(xcrs) {
        *slot = kvm_xcr {
            xcr,
            value,
            ..kvm_xcr::default()
        };
        list.nr_xcrs += 1;
    }
    Ok(list)
}

fn parse<T: FromBytes>(what: &'static str, bytes: &[u8]) -> Result<T, VcpuError> {
    T::read_from_bytes(bytes).map_err(|_| VcpuError::State {
        what,
        found: bytes.len(),
        expected: size_of::<T>(),
    })
}
