//! What Goldcrest and its guests agree on: constants and layouts, nothing else.
//!
//! The monitor and the guest runtime both depend on this crate, so that a number is written once. It is `no_std`, has
//! no dependencies and no code beyond checks of its own layouts. The contract is Goldcrest's own; a guest that wants
//! to run elsewhere too offers another way in (PVH) beside it.
//!
//! # Direct entry
//!
//! An ELF64 image that carries a [`note::DirectEntry`] note is started in 64-bit mode, on page tables and descriptor
//! tables that the host wrote: the first instruction that runs is the guest's own. The registers then hold:
//!
//! | register | value |
//! |---|---|
//! | `rip` | [`DirectEntry::entry`](note::DirectEntry::entry) |
//! | `rdi` | guest-physical (= virtual) address of the [`boot_info::BootInfo`] |
//! | `rsp` | 8 below the top of a fresh, zeroed stack of at least `stack_size` bytes, with a guard page below |
//! | `rflags` | bit 1, and IOPL 3 in ring 3; interrupts disabled |
//! | `cs`, `ss` | the flat segments of [`selector`] for the ring that the note asks for |
//! | `cr0`, `cr4`, `efer` | paging, write protection, SSE (`OSFXSR`) and no-execute enabled; `syscall` only if [`syscall_entry`](note::DirectEntry::syscall_entry) is not zero |
//! | others | zero |
//!
//! Ring 3 may use ports twice over: by IOPL, and by an I/O permission bitmap in the task state segment that allows at
//! least all ports below [`PORT_LIMIT`] (Intel SDM vol. 1 §19.5). The bitmap is not redundant: a KVM that emulates ring 0
//! may lose IOPL. Such a KVM may also let `syscall` reach its entry without leaving ring 3; traps always reach ring 0.
//! Breakpoints (vector 3) may be raised by ring 3; the gates of exceptions and interrupts are for ring 0.
//!
//! All RAM is mapped at its guest-physical address: readable and writable, not executable, but for the image's own
//! segments, which have the permissions of their program headers; page 0 and the guard page below the stack, which no
//! ring can access, as they are not mapped; and the host's own tables (GDT, TSS, IDT, page tables), which ring 3 cannot
//! access. A segment must not be both writable and executable. The local APIC's page is mapped uncached.
//!
//! # Devices
//!
//! On a machine with virtio devices, [`BootInfo::fdt`](boot_info::BootInfo::fdt) is the address of a flattened device
//! tree (Devicetree Specification 0.4). It tells of these devices alone: what else a device tree may have (memory,
//! processors, command line) is in the boot information. Addresses and sizes have two cells. The children of its root are:
//!
//! - the IOAPIC, `compatible = "intel,ce4100-ioapic"`: its registers, and that an interrupt has two cells, the input
//!   and how it is triggered: 0 by a rising edge, 2 by a high level, as in Linux's binding of that name;
//! - the devices, `compatible = "virtio,mmio"`, in the order in which they were configured: `reg` and `interrupts`
//!   (virtio 1.3 §4.2.1).
//!
//! The pages of all these registers are mapped, uncached, for the guest's ring, and with them perhaps what is around
//! them up to 2 MiB, where nothing answers. Without such devices there is no tree, and no register but the local APIC's
//! is mapped.
//!
//! ```
//! use goldcrest_abi::{doorbell, note::DirectEntry};
//! assert_eq!(size_of::<DirectEntry>(), 56);
//! assert_eq!(doorbell::EXIT % 4, 0);
//! ```
#![no_std]

pub mod boot_info;
pub mod doorbell;
pub mod note;
pub mod power;

/// The ports that a guest started by direct entry in ring 3 may use at least: all below this one.
pub const PORT_LIMIT: u16 = 0x2000;

/// Selectors of the flat segments in the GDT that the host writes for direct entry.
///
/// The order is what `syscall` and `sysret` want of `IA32_STAR` (Intel SDM vol. 3A §5.8.8, AMD APM vol. 2 §6.1.1).
pub mod selector {
    /// 64-bit code, ring 0.
    pub const KERNEL_CODE: u16 = 0x08;
    /// Data and stack, ring 0.
    pub const KERNEL_DATA: u16 = 0x10;
    /// Data and stack, ring 3 (the requested privilege level is part of the value).
    pub const USER_DATA: u16 = 0x18 | 3;
    /// 64-bit code, ring 3 (the requested privilege level is part of the value).
    pub const USER_CODE: u16 = 0x20 | 3;
    /// The task state segment; its descriptor takes two slots.
    pub const TSS: u16 = 0x28;
    /// Bytes of the whole table.
    pub const GDT_SIZE: usize = 0x38;
}
