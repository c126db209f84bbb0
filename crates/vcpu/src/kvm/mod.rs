//! The backend on Linux's KVM (`Documentation/virt/kvm/api.rst`).
//!
//! Local APICs live in the kernel, the IOAPIC and the 8259 pair do not (`KVM_CAP_SPLIT_IRQCHIP`): less of the kernel
//! is exposed to the guest, and no call on the way waits for a grace period.

mod call;
mod capability;
mod convert;
mod kick;
mod msi;
mod vcpu;
mod vm;

pub use capability::{Capability, Need};
pub use vcpu::KvmVcpu;
pub use vm::KvmVm;

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use goldcrest_memory::GuestRam;
use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
};
use kvm_ioctls::Cap;

use crate::cpuid::Cpuid;
use crate::{Hypervisor, VcpuError};

/// The device.
const PATH: &str = "/dev/kvm";
/// The one version of the interface there has been since 2007.
const API_VERSION: i32 = 12;
/// CPU numbers are 8-bit APIC identifiers, of which one means all CPUs.
const MAX_CPUS: u32 = 254;

/// The register that enables kvmclock: the guest-physical address of a `pvclock_vcpu_time_info`, and bit 0
/// (`Documentation/virt/kvm/x86/msr.rst`). What a boot loader promises a guest, the monitor sets here.
pub const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;

/// An open `/dev/kvm`. Clones share it.
#[derive(Debug, Clone)]
pub struct Kvm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fd: kvm_ioctls::Kvm,
    /// Asked for once.
    cpuid: Mutex<Option<Cpuid>>,
    /// How fast new CPUs' time-stamp counters run, once a CPU was asked.
    tsc_khz: OnceLock<u64>,
    takes_registers: OnceLock<bool>,
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Open`] or [`VcpuError::Version`].
    pub fn open() -> Result<Self, VcpuError> {
        Self::open_at(Path::new(PATH))
    }

    /// Opens a KVM device at another path.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Open`] or [`VcpuError::Version`].
    pub fn open_at(path: &Path) -> Result<Self, VcpuError> {
        let display = path.display().to_string();
        let open_error = |source: io::Error| VcpuError::Open {
            path: display.clone(),
            hint: hint(source.kind()),
            source,
        };
        let name = CString::new(display.as_str())
            .map_err(|_| open_error(io::ErrorKind::InvalidInput.into()))?;
        let fd = kvm_ioctls::Kvm::new_with_path(&name).map_err(|e| open_error(e.into()))?;
        // On a device that is not KVM this fails, and gives -1.
        match fd.get_api_version() {
            API_VERSION => Ok(Self(Arc::new(Shared {
                fd,
                cpuid: Mutex::default(),
                tsc_khz: OnceLock::new(),
                takes_registers: OnceLock::new(),
            }))),
            found => Err(VcpuError::Version {
                path: display,
                found,
            }),
        }
    }

    fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.0.fd
    }

    /// Whether `KVM_RUN` takes registers and events that it finds in what it shares with the process
    /// (`KVM_CAP_SYNC_REGS`).
    fn takes_registers(&self) -> bool {
        let all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
        let ask = || {
            let taken = self.fd().check_extension_int(Cap::SyncRegs);
            u32::try_from(taken).is_ok_and(|taken| taken & all == all)
        };
        *self.0.takes_registers.get_or_init(ask)
    }
}

impl Hypervisor for Kvm {
    type Vm = KvmVm;

    fn create_vm(&self, ram: &GuestRam) -> Result<KvmVm, VcpuError> {
        KvmVm::new(self, ram)
    }

    fn cpuid(&self) -> Result<Cpuid, VcpuError> {
        let mut known = self.0.cpuid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cpuid) = &*known {
            return Ok(cpuid.clone());
        }
        let supported = self
            .fd()
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(VcpuError::call("KVM_GET_SUPPORTED_CPUID"))?;
        let mut cpuid = convert::from_kvm_cpuid(&supported);
        cpuid.filter(self.fd().check_extension(Cap::TscDeadlineTimer));
        Ok(known.insert(cpuid).clone())
    }

    fn max_cpus(&self) -> u32 {
        u32::try_from(self.fd().get_max_vcpus()).map_or(MAX_CPUS, |max| max.min(MAX_CPUS))
    }
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => {
            "this machine has no KVM: load kvm_intel or kvm_amd, enable virtualization in its \
             firmware, or, in a cloud, nested virtualization"
        }
        io::ErrorKind::PermissionDenied => {
            "no permission: join the group that owns it (`sudo usermod -aG kvm $USER`) and log in \
             again"
        }
        _ => "run `goldcrest doctor`",
    }
}
