//! The KVM interface, as far as it is needed (Linux `Documentation/virt/kvm/api.rst`, `asm/kvm.h`).

use std::ffi::CStr;
use std::io::{Error, Result};
use std::os::fd::RawFd;

use crate::ram::Ram;
use crate::tables::State;

const CREATE_VM: u64 = 0xae01;
const GET_VCPU_MMAP_SIZE: u64 = 0xae04;
const CREATE_VCPU: u64 = 0xae41;
const SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const RUN: u64 = 0xae80;
const GET_REGS: u64 = 0x8090_ae81;
const SET_REGS: u64 = 0x4090_ae82;
const GET_SREGS: u64 = 0x8138_ae83;
const SET_SREGS: u64 = 0x4138_ae84;
const SET_MSRS: u64 = 0x4008_ae89;
const ENABLE_CAP: u64 = 0x4068_aea3;
const GET_TSC_KHZ: u64 = 0xaea3;

const CAP_SPLIT_IRQCHIP: u32 = 121;
const EXIT_IO: u32 = 2;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SFMASK: u32 = 0xc000_0084;
const MSR_KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;

/// `struct kvm_regs`.
#[repr(C)]
#[derive(Default)]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8_to_r15: [u64; 8],
    pub rip: u64,
    pub rflags: u64,
}

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct SegmentRegister {
    pub base: u64,
    pub limit: u32,
    pub selector: u16,
    pub kind: u8,
    pub present: u8,
    pub privilege: u8,
    pub default_32: u8,
    pub code_or_data: u8,
    pub long: u8,
    pub granularity: u8,
    pub available: u8,
    pub unusable: u8,
    pub padding: u8,
}

impl SegmentRegister {
    /// A flat segment; the selector's requested level is its privilege.
    pub fn flat(selector: u16, kind: u8, code64: bool) -> Self {
        Self {
            limit: u32::MAX,
            selector,
            kind,
            present: 1,
            privilege: (selector & 3) as u8,
            default_32: u8::from(!code64),
            code_or_data: 1,
            long: u8::from(code64),
            granularity: 1,
            ..Self::default()
        }
    }
}

/// `struct kvm_dtable`.
#[repr(C)]
#[derive(Default)]
pub struct Table {
    pub base: u64,
    pub limit: u16,
    pub padding: [u16; 3],
}

/// `struct kvm_sregs`.
#[repr(C)]
#[derive(Default)]
pub struct Sregs {
    pub cs: SegmentRegister,
    pub ds: SegmentRegister,
    pub es: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ss: SegmentRegister,
    pub tr: SegmentRegister,
    pub ldt: SegmentRegister,
    pub gdt: Table,
    pub idt: Table,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
    pub interrupts: [u64; 4],
}

/// `struct kvm_enable_cap`.
#[repr(C)]
#[derive(Default)]
struct EnableCap {
    cap: u32,
    flags: u32,
    args: [u64; 4],
    padding: [u64; 8],
}

/// `struct kvm_msrs` with one entry.
#[repr(C)]
struct Msr {
    count: u32,
    padding: u32,
    index: u32,
    reserved: u32,
    value: u64,
}

const _: () =
    assert!(size_of::<Regs>() == 144 && size_of::<Sregs>() == 312 && size_of::<EnableCap>() == 104);

/// A virtual machine with a local APIC in the kernel and the other interrupt controllers left out.
pub struct Vm {
    kvm: RawFd,
    vm: RawFd,
}

/// Opens `/dev/kvm`; it stays open until the process ends.
pub fn open() -> Result<RawFd> {
    let device: &CStr = c"/dev/kvm";
    // SAFETY: the path is a terminated string.
    check(unsafe { libc::open(device.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })
}

impl Vm {
    /// Makes the machine.
    pub fn new() -> Result<Self> {
        Self::on(open()?)
    }

    /// Makes a machine by an open `/dev/kvm`.
    pub fn on(kvm: RawFd) -> Result<Self> {
        let vm = ioctl(kvm, CREATE_VM, 0)?;
        Ok(Self { kvm, vm })
    }

    /// Ends the machine, whose vCPU is `vcpu`.
    pub fn close(self, vcpu: Vcpu) -> Result<()> {
        // SAFETY: the mapping is the vCPU's own, which nobody has any more; the descriptors are used by nobody else.
        unsafe {
            check(libc::munmap(vcpu.run.cast(), vcpu.len))?;
            check(libc::close(vcpu.fd))?;
            check(libc::close(self.vm)).map(drop)
        }
    }

    /// Gives the machine its RAM.
    pub fn set_memory(&self, ram: &Ram) -> Result<()> {
        let region: [u64; 4] = [0, 0, ram.size() as u64, ram.base() as u64];
        ioctl(self.vm, SET_USER_MEMORY_REGION, region.as_ptr() as u64).map(drop)
    }

    /// Makes the one vCPU.
    pub fn vcpu(&self) -> Result<Vcpu> {
        let cap = EnableCap {
            cap: CAP_SPLIT_IRQCHIP,
            args: [24, 0, 0, 0],
            ..EnableCap::default()
        };
        ioctl(self.vm, ENABLE_CAP, &raw const cap as u64)?;
        let fd = ioctl(self.vm, CREATE_VCPU, 0)?;
        let len = usize::try_from(ioctl(self.kvm, GET_VCPU_MMAP_SIZE, 0)?).map_err(Error::other)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing of ours.
        let run = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if run == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Vcpu {
            fd,
            run: run.cast(),
            len,
        })
    }
}

/// A port access that the guest waits for.
pub enum Io<'a> {
    /// The guest wrote the low bytes of `value`.
    Write { port: u16, value: u32 },
    /// The guest reads `data`.
    Read { port: u16, data: &'a mut [u8] },
}

/// The vCPU.
pub struct Vcpu {
    fd: RawFd,
    run: *mut u8,
    len: usize,
}

impl Vcpu {
    /// Sets all registers; the MSRs of `syscall` only if the image uses it.
    pub fn set_state(&self, state: &State) -> Result<()> {
        if state.syscall_entry != 0 {
            self.set_msr(MSR_STAR, 0x0013_0008 << 32)?;
            self.set_msr(MSR_LSTAR, state.syscall_entry)?;
            self.set_msr(MSR_SFMASK, 0x4_0700)?;
        }
        ioctl(self.fd, SET_SREGS, &raw const state.sregs as u64)?;
        ioctl(self.fd, SET_REGS, &raw const state.regs as u64).map(drop)
    }

    /// Lets the port access of the last exit finish, and gives the registers behind it.
    pub fn state(&self) -> Result<(Regs, Sregs)> {
        // SAFETY: `immediate_exit` is the second byte of the run mapping.
        unsafe { self.run.add(1).write_volatile(1) };
        match ioctl(self.fd, RUN, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            result => {
                return Err(Error::other(format!(
                    "the access did not finish: {result:?}"
                )));
            }
        }
        let (mut regs, mut sregs) = (Regs::default(), Sregs::default());
        ioctl(self.fd, GET_REGS, &raw mut regs as u64)?;
        ioctl(self.fd, GET_SREGS, &raw mut sregs as u64)?;
        Ok((regs, sregs))
    }

    /// Sets the registers.
    pub fn set_registers(&self, regs: &Regs, sregs: &Sregs) -> Result<()> {
        ioctl(self.fd, SET_SREGS, std::ptr::from_ref(sregs) as u64)?;
        ioctl(self.fd, SET_REGS, std::ptr::from_ref(regs) as u64).map(drop)
    }

    /// Has KVM keep a `pvclock_vcpu_time_info` at guest-physical `address`.
    pub fn enable_pvclock(&self, address: u64) -> Result<()> {
        self.set_msr(MSR_KVM_SYSTEM_TIME, address | 1)
    }

    /// Frequency of the guest's time-stamp counter.
    pub fn tsc_khz(&self) -> Result<u64> {
        u64::try_from(ioctl(self.fd, GET_TSC_KHZ, 0)?).map_err(Error::other)
    }

    /// Runs the guest up to its next port access.
    pub fn run(&self) -> Result<Io<'_>> {
        ioctl(self.fd, RUN, 0)?;
        let reason = self.read::<u32>(8);
        if reason != EXIT_IO {
            let [a, b] = [32, 40].map(|offset| self.read::<u64>(offset));
            return Err(Error::other(format!(
                "the guest stopped: exit {reason}, {a:#x} {b:#x}"
            )));
        }
        let (write, size, port) = (
            self.read::<u8>(32) == 1,
            self.read::<u8>(33),
            self.read::<u16>(34),
        );
        let (count, offset) = (self.read::<u32>(36) as usize, self.read::<u64>(40) as usize);
        let len = usize::from(size) * count;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::other("the port data lie outside the run page"));
        }
        // SAFETY: the range lies inside the run mapping, and nothing writes to it before the next `run`, which cannot
        // begin while the slice is used as it is the last thing done with each exit.
        let data = unsafe { std::slice::from_raw_parts_mut(self.run.add(offset), len) };
        if !write {
            return Ok(Io::Read { port, data });
        }
        let mut value = [0; 4];
        let len = len.min(4);
        value[..len].copy_from_slice(&data[..len]);
        Ok(Io::Write {
            port,
            value: u32::from_le_bytes(value),
        })
    }

    fn set_msr(&self, index: u32, value: u64) -> Result<()> {
        let msr = Msr {
            count: 1,
            padding: 0,
            index,
            reserved: 0,
            value,
        };
        match ioctl(self.fd, SET_MSRS, &raw const msr as u64)? {
            1 => Ok(()),
            _ => Err(Error::other(format!("KVM refuses MSR {index:#x}"))),
        }
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        assert!(
            offset + size_of::<T>() <= 4096,
            "fields of kvm_run are in its first page"
        );
        // SAFETY: inside the run mapping as asserted; every `T` used is an integer, aligned as `kvm_run` has it.
        unsafe { self.run.add(offset).cast::<T>().read() }
    }
}

/// Wall-clock time in nanoseconds since 1970.
pub fn wall_clock_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

fn ioctl(fd: RawFd, request: u64, argument: u64) -> Result<i32> {
    // SAFETY: every caller passes a number, or the address of a structure that is alive and as large as the request
    // says; KVM writes to those only that were taken as mutable, and whatever it writes is a valid value.
    check(unsafe { libc::ioctl(fd, request, argument) })
}

fn check(result: i32) -> Result<i32> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}
