//! Where KVM's interface is not safe: the unions of `kvm_run`, and calls that `kvm-ioctls` does not wrap.
#![allow(unsafe_code, reason = "unions and ioctls")]

use kvm_bindings::{
    KVM_EXIT_IO_OUT, KVMIO, kvm_interrupt, kvm_run, kvm_userspace_memory_region, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::errno::Error;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// A port access: one or, for string instructions, several items of `size` bytes.
pub(super) struct PortAccess<'a> {
    pub(super) port: u16,
    pub(super) size: usize,
    pub(super) write: bool,
    pub(super) data: &'a mut [u8],
}

/// The access that made KVM return `KVM_EXIT_IO`; nothing if it claims data outside `run_size` bytes.
pub(super) fn port_access(run: &mut kvm_run, run_size: usize) -> Option<PortAccess<'_>> {
    // SAFETY: any bytes are a valid `io`: it consists of integers.
    let io = unsafe { run.__bindgen_anon_1.io };
    let size = usize::from(io.size);
    let offset = usize::try_from(io.data_offset).ok()?;
    let len = size.checked_mul(usize::try_from(io.count).ok()?)?;
    if offset < size_of::<kvm_run>() || offset.checked_add(len)? > run_size {
        return None;
    }
    // SAFETY: `run` is the start of a mapping of `run_size` bytes, which the range was just checked to lie in, behind
    // the structure itself, so that nothing else refers to it while `run` is borrowed.
    let data = unsafe {
        std::slice::from_raw_parts_mut((run as *mut kvm_run).cast::<u8>().add(offset), len)
    };
    Some(PortAccess {
        port: io.port,
        size,
        write: u32::from(io.direction) == KVM_EXIT_IO_OUT,
        data,
    })
}

/// What `KVM_EXIT_INTERNAL_ERROR` says: its suberror and data.
pub(super) fn internal_error(run: &kvm_run) -> (u32, Vec<u64>) {
    // SAFETY: any bytes are a valid `internal`: it consists of integers.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = usize::try_from(internal.ndata).unwrap_or(0);
    let data = internal.data.iter().take(count).copied().collect();
    (internal.suberror, data)
}

/// Queues an external interrupt (`KVM_INTERRUPT`).
pub(super) fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), Error> {
    let interrupt = kvm_interrupt { irq: vector.into() };
    // SAFETY: the descriptor is a vCPU's and the kernel only reads the structure.
    match unsafe { ioctl_with_ref(vcpu, KVM_INTERRUPT(), &interrupt) } {
        0 => Ok(()),
        _ => Err(Error::last()),
    }
}

/// Makes `len` bytes at host address `host` the guest's RAM at `guest`.
///
/// The caller keeps the mapping alive for as long as the machine.
pub(super) fn set_memory(
    vm: &VmFd,
    slot: u32,
    guest: u64,
    host: *mut u8,
    len: u64,
) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: guest,
        memory_size: len,
        userspace_addr: host.expose_provenance() as u64,
    };
    // SAFETY: guest RAM is a mapping that `KvmVm` holds a reference to, so that it outlives the machine; the guest
    // writes to it at any time, which is what volatile access to it expects.
    unsafe { vm.set_user_memory_region(region) }
}

/// Sets the XSAVE area.
pub(super) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), Error> {
    // SAFETY: the kernel reads more than the structure only for features that the process has asked for by
    // `arch_prctl` (AMX), which this one never does.
    unsafe { vcpu.set_xsave(xsave) }
}
