//! A virtual machine on KVM.

use std::fs;
use std::sync::{Arc, OnceLock};

use goldcrest_irq::MsiSink;
use goldcrest_memory::{GuestRam, PAGE_SIZE};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_clock_data, kvm_enable_cap};
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use super::msi::{IOAPIC_PINS, KvmMsiSink};
use super::{Kvm, KvmVcpu, call};
use crate::cpuid::Cpuid;
use crate::{VcpuError, Vm};

/// Three pages below 4 GiB that KVM needs on Intel CPUs that cannot run real mode, and one for its page table.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;
/// A slot that is there for a moment while no CPU runs: RAM has the first two. A page below 4 GiB that no device has.
const PASSING_SLOT: u32 = 2;
const PASSING_ADDRESS: u64 = 0xfffb_b000;
/// How often `KVM_CREATE_VM` is tried again when a signal interrupted it.
const CREATE_TRIES: u32 = 5;

/// A virtual machine.
pub struct KvmVm {
    fd: Arc<VmFd>,
    kvm: Kvm,
    sink: Arc<KvmMsiSink>,
    /// The kernel has the addresses of this memory for as long as `fd` is open.
    memory: GuestMemoryMmap,
}

impl KvmVm {
    pub(super) fn new(kvm: &Kvm, ram: &GuestRam) -> Result<Self, VcpuError> {
        let fd = create(kvm)?;
        let split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            args: [IOAPIC_PINS.into(), 0, 0, 0],
            ..kvm_enable_cap::default()
        };
        fd.enable_cap(&split)
            .map_err(|_| VcpuError::Missing("KVM_CAP_SPLIT_IRQCHIP (Linux 4.4 or newer has it)"))?;
        fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(VcpuError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(VcpuError::call("KVM_SET_TSS_ADDR"))?;
        let memory = ram.memory().clone();
        for (slot, region) in (0..).zip(memory.iter()) {
            let host = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|_| VcpuError::Missing("a host address of guest RAM"))?;
            call::set_memory(&fd, slot, region.start_addr().0, host, region.len())
                .map_err(VcpuError::call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let fd = Arc::new(fd);
        Ok(Self {
            sink: Arc::new(KvmMsiSink::new(fd.clone())),
            fd,
            kvm: kvm.clone(),
            memory,
        })
    }
}

impl Vm for KvmVm {
    type Vcpu = KvmVcpu;

    fn create_vcpu(&self, id: u32, cpuid: &Cpuid) -> Result<KvmVcpu, VcpuError> {
        KvmVcpu::new(self.kvm.clone(), &self.fd, self.memory.clone(), id, cpuid)
    }

    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        self.sink.clone()
    }

    fn clock(&self) -> Result<u64, VcpuError> {
        let clock = self
            .fd
            .get_clock()
            .map_err(VcpuError::call("KVM_GET_CLOCK"))?;
        Ok(clock.clock)
    }

    fn set_clock(&self, nanoseconds: u64) -> Result<(), VcpuError> {
        let clock = kvm_clock_data {
            clock: nanoseconds,
            ..kvm_clock_data::default()
        };
        self.fd
            .set_clock(&clock)
            .map_err(VcpuError::call("KVM_SET_CLOCK"))
    }

    fn forget_translations(&self) -> Result<(), VcpuError> {
        if processor_walks_tables() {
            return Ok(());
        }
        let region = self.memory.iter().next();
        let host = region.and_then(|region| region.get_host_address(MemoryRegionAddress(0)).ok());
        let host = host.ok_or(VcpuError::Missing("a host address of guest RAM"))?;
        // Where KVM shadows page tables, it drops all that it has of them when a slot goes.
        for len in [PAGE_SIZE, 0] {
            call::set_memory(&self.fd, PASSING_SLOT, PASSING_ADDRESS, host, len)
                .map_err(VcpuError::call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }
}

/// Whether the processor translates guests' addresses by tables of its own kind (EPT, NPT), so that KVM has nothing of the
/// guest's. Guests have no nested virtualization, which KVM would shadow.
fn processor_walks_tables() -> bool {
    const FILES: [&str; 2] = [
        "/sys/module/kvm_intel/parameters/ept",
        "/sys/module/kvm_amd/parameters/npt",
    ];
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let on = |value: String| matches!(value.trim(), "Y" | "1");
        FILES
            .iter()
            .any(|path| fs::read_to_string(path).is_ok_and(on))
    })
}

fn create(kvm: &Kvm) -> Result<VmFd, VcpuError> {
    let mut tries = CREATE_TRIES;
    loop {
        match kvm.fd().create_vm() {
            Err(e) if e.errno() == libc::EINTR && tries > 1 => tries -= 1,
            result => return result.map_err(VcpuError::call("KVM_CREATE_VM")),
        }
    }
}
