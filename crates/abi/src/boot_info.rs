//! What a guest started by direct entry is told: one structure, found in `rdi`.

/// [`BootInfo::magic`]: `GOLDCRST`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"GOLDCRST");

/// Boot information. Little-endian, no padding; addresses are guest-physical, and 0 where there is nothing.
///
/// The page it lies in is the guest's to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BootInfo {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::note::VERSION`].
    pub version: u32,
    /// Bytes of this structure as the host wrote it; later versions only append.
    pub size: u32,
    /// The command line: UTF-8 as the host was given it, not terminated.
    pub cmdline: u64,
    /// Bytes of the command line.
    pub cmdline_len: u64,
    /// An array of [`MemoryRegion`].
    pub regions: u64,
    /// How many regions there are.
    pub region_count: u64,
    /// The initial RAM disk or module, as given.
    pub initrd: u64,
    /// Bytes of the initial RAM disk.
    pub initrd_len: u64,
    /// The ACPI root pointer (RSDP).
    pub rsdp: u64,
    /// A flattened device tree with the machine's virtio devices, if it has any (["Devices"](crate#devices)).
    pub fdt: u64,
    /// The kvmclock page (`pvclock_vcpu_time_info`), when asked for by [`crate::note::FLAG_PVCLOCK`] and available.
    pub pvclock: u64,
    /// Frequency of the time-stamp counter in kHz, 0 if the host does not know.
    pub tsc_khz: u64,
    /// Nanoseconds since 1970-01-01 00:00 UTC at the moment when the guest was entered, 0 if unknown.
    pub wall_clock_ns: u64,
    /// How many virtual CPUs there are.
    pub cpus: u32,
    /// Zero.
    pub reserved: u32,
    /// Time-stamp counter readings that the guest leaves for the monitor's timeline, indexed by `mark::*`.
    pub marks: [u64; mark::COUNT],
    /// Tells this run from others: random when the machine is made, and another whenever it is made from a snapshot. A
    /// guest that finds it changed has a past in common with others: what was to be used once, such as the state of a
    /// random number generator, may be theirs too.
    pub generation_id: [u8; 16],
}

/// Indexes into [`BootInfo::marks`].
pub mod mark {
    /// Taken in the first instructions.
    pub const ENTRY: usize = 0;
    /// Taken when `main` is called.
    pub const MAIN: usize = 1;
    /// Taken when the guest asks to end.
    pub const EXIT: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryRegion {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// [`region::USABLE`], [`region::RESERVED`], …; a guest leaves alone what it does not know.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// Values of [`MemoryRegion::kind`].
pub mod region {
    /// Free RAM, zeroed, the guest's to use.
    pub const USABLE: u32 = 1;
    /// Not for use: the host's tables, a device.
    pub const RESERVED: u32 = 2;
    /// The image's own segments.
    pub const IMAGE: u32 = 3;
    /// The stack that the guest was started on.
    pub const STACK: u32 = 4;
    /// The initial RAM disk.
    pub const INITRD: u32 = 5;
}

const _: () = assert!(size_of::<BootInfo>() == 160);
const _: () = assert!(size_of::<MemoryRegion>() == 24);
