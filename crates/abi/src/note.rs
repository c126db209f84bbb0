//! ELF notes: how an image says what it wants (System V ABI, "Note Section").

/// The name (owner) of Goldcrest's notes, with the terminating zero that the ELF specification counts.
pub const NAME: [u8; 10] = *b"Goldcrest\0";

/// Note type of [`DirectEntry`].
pub const TYPE_DIRECT_ENTRY: u32 = 1;

/// The version of [`DirectEntry`] and [`BootInfo`](crate::boot_info::BootInfo) that this crate describes.
///
/// A host refuses an image whose note has another version.
pub const VERSION: u32 = 1;

/// [`DirectEntry::flags`]: set up the kvmclock page, where the host has one.
pub const FLAG_PVCLOCK: u32 = 1 << 0;

/// [`DirectEntry::flags`]: describe the processor. Without it, `cpuid` says nothing: every leaf is 0.
///
/// Asking is slow where the host is itself a guest, as each leaf traps; a guest that runs on what every x86-64
/// processor has, and takes the time-stamp counter's frequency from its boot information, starts without.
pub const FLAG_CPUID: u32 = 1 << 1;

/// All `FLAG_*` bits.
pub const KNOWN_FLAGS: u32 = FLAG_PVCLOCK | FLAG_CPUID;

/// The note types of the PVH boot protocol, for images that offer both ways in (Xen `elfnote.h`).
pub const XEN_NAME: [u8; 4] = *b"Xen\0";
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit entry point of PVH, as a 4- or 8-byte integer.
pub const XEN_TYPE_PHYS32_ENTRY: u32 = 18;

/// The descriptor of a direct-entry note: little-endian, no padding. All addresses are guest-physical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DirectEntry {
    /// [`VERSION`].
    pub version: u32,
    /// The ring to start in: 3 (with port access by IOPL) or 0.
    pub ring: u32,
    /// `FLAG_*` bits; a host refuses bits it does not know.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// The first instruction.
    pub entry: u64,
    /// Bytes of stack wanted; 0 leaves it to the host.
    pub stack_size: u64,
    /// 256 entry stubs of [`TRAP_STUB_SIZE`] bytes each, one an interrupt vector, which the host's IDT points to as
    /// ring-0 interrupt gates. 0: no handlers, so that any fault ends the machine.
    pub trap_vectors: u64,
    /// The top of the ring-0 stack (`RSP0` of the TSS) that traps and interrupts arrive on; 16-byte aligned.
    /// Needed when `trap_vectors` is set.
    pub trap_stack: u64,
    /// The ring-0 entry of `syscall` (`IA32_LSTAR`; IF, DF, TF and AC are masked). 0: `syscall` is not enabled.
    pub syscall_entry: u64,
}

/// Bytes from one stub in [`DirectEntry::trap_vectors`] to the next.
pub const TRAP_STUB_SIZE: u64 = 16;

const _: () = assert!(size_of::<DirectEntry>() == 56);
