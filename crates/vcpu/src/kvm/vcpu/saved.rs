//! Saving and restoring a virtual CPU (api.rst; the order is that in which one part may depend on another).

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_vcpu_events, kvm_xcr, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::Cap;
use zerocopy::{FromBytes, IntoBytes};

use super::{KvmVcpu, msr_list, set_cpuid};
use crate::kvm::{MSR_KVM_SYSTEM_TIME_NEW, call, convert};
use crate::{ExitHandler, Flow, Vcpu, VcpuError, VcpuState};

/// `IA32_TIME_STAMP_COUNTER` and `IA32_TSC_DEADLINE` (SDM vol. 4 §2.1).
pub(super) const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// What the first CPU's counter is set to before it is set to a state's: KVM takes one that is set to within a second of what
/// it shows for one that is to be synchronous, and leaves it as it is. A new one shows next to nothing, as do those of guests
/// that were saved soon after their start. Far from any counter that a guest may have: 2^62 lasts for decades.
pub(super) const FAR: u64 = 1 << 62;
/// `MSR_KVM_SYSTEM_TIME` and `MSR_KVM_SYSTEM_TIME_NEW`: a clock is in use if bit 0 is set.
const MSR_CLOCKS: [u32; 2] = [0x12, MSR_KVM_SYSTEM_TIME_NEW];
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

/// How a state is put back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put {
    /// The CPU is a new one, and has some of it already.
    pub(super) new: bool,
    /// A CPU has taken the state before: what only finds faults in it is left out.
    pub(super) taken: bool,
}

impl KvmVcpu {
    pub(super) fn save_state(&mut self) -> Result<VcpuState, VcpuError> {
        self.hand_over()?;
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

    /// A state that was `taken` is one that another CPU has taken before.
    pub(super) fn restore_state(
        &mut self,
        state: &VcpuState,
        taken: bool,
    ) -> Result<Vec<u32>, VcpuError> {
        self.set_tsc_khz(state.tsc_khz)?;
        if !state.cpuid.entries.is_empty() {
            set_cpuid(&self.fd, &state.cpuid)?;
        }
        // See `FAR`.
        let far = [(MSR_TSC, FAR)];
        let before: &[_] = if self.first { &far } else { &[] };
        self.put(state, before, Put { new: true, taken })
    }

    /// Puts all of a state back but what never changes. MSRs of `before` are set first; those of all that were refused. Each
    /// call that is left out saves 10 µs where the host is virtual itself.
    pub(super) fn put(
        &mut self,
        state: &VcpuState,
        before: &[(u32, u64)],
        Put { new, taken }: Put,
    ) -> Result<Vec<u32>, VcpuError> {
        let waits = taken && self.can_wait(state);
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
        if !waits {
            self.set_registers(&state.registers)?;
            self.apic_base = state.apic_base;
            self.set_system_registers(&state.system)?;
        }
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
        if !taken {
            self.check_tsc(&state.msrs)?;
        }
        if waits {
            self.wait_with(state, events);
        } else {
            self.fd
                .set_vcpu_events(&events)
                .map_err(VcpuError::call("KVM_SET_VCPU_EVENTS"))?;
        }
        if has_clock(&state.msrs) {
            // Tells the guest's watchdogs that they were not looked after.
            let _ = self.fd.kvmclock_ctrl();
        }
        Ok(refused)
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

    /// Has the counter run as fast as it did, within what clocks of one kind differ by.
    fn set_tsc_khz(&self, saved: u64) -> Result<(), VcpuError> {
        let here = *self.kvm.0.tsc_khz.get_or_init(|| self.tsc_khz());
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
        Ok(refused)
    }

    /// A KVM that takes a counter's value and does not set it would have time go back on a host that was started later. What
    /// was found once holds from then on, as counters go on.
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

/// Whether the guest has a paravirtual clock.
fn has_clock(msrs: &[(u32, u64)]) -> bool {
    msrs.iter()
        .any(|(index, value)| MSR_CLOCKS.contains(index) && value & 1 != 0)
}

/// Nobody who could serve a part of an access.
#[derive(Default)]
pub(super) struct Nobody {
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
