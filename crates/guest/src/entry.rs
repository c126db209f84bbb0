//! The way in by direct entry, and the note that asks for it.
#![allow(
    unsafe_code,
    reason = "the note is found by its section; boot information is found by address"
)]

use goldcrest_abi::boot_info::{BootInfo, mark};
use goldcrest_abi::note::{self, DirectEntry};

use crate::exit::{exit, status};
use crate::trap::stubs;
use crate::{boot, machine, time};

/// What a unikernel asks of the host, given to [`main!`](crate::main).
#[derive(Debug, Clone, Copy)]
pub struct Options {
    stack_size: u64,
    flags: u32,
}

impl Options {
    /// Bytes of stack unless another size is asked for. The host backs only what is touched.
    pub const DEFAULT_STACK_SIZE: u64 = 256 * 1024;

    /// A stack of [`DEFAULT_STACK_SIZE`](Self::DEFAULT_STACK_SIZE) and nothing else.
    pub const fn new() -> Self {
        Self {
            stack_size: Self::DEFAULT_STACK_SIZE,
            flags: 0,
        }
    }

    /// Asks for a stack of this many bytes, rounded up to whole pages; 0 asks for
    /// [`DEFAULT_STACK_SIZE`](Self::DEFAULT_STACK_SIZE). Where there is less memory, the unikernel does not
    /// start.
    pub const fn stack_size(self, bytes: u64) -> Self {
        Self {
            stack_size: match bytes {
                0 => Self::DEFAULT_STACK_SIZE,
                bytes => bytes,
            },
            ..self
        }
    }

    /// Bytes of stack.
    pub(crate) const fn stack(&self) -> u64 {
        self.stack_size
    }

    /// Asks for a paravirtual clock, which makes [`time`] exact and costs the host two calls.
    pub const fn clock(self) -> Self {
        Self {
            flags: self.flags | note::FLAG_PVCLOCK,
            ..self
        }
    }

    /// Asks for a processor that describes itself: without this, `cpuid` gives zeros.
    pub const fn cpuid(self) -> Self {
        Self {
            flags: self.flags | note::FLAG_CPUID,
            ..self
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// A `main` whose result has become a status.
pub type Main = extern "C" fn() -> u32;

/// The type of the direct entry point.
pub type Entry = unsafe extern "C" fn(*mut BootInfo) -> !;

/// [`DirectEntry`] with pointers, as a compiler cannot know addresses as numbers.
#[repr(C)]
struct Descriptor {
    version: u32,
    ring: u32,
    flags: u32,
    reserved: u32,
    entry: Entry,
    stack_size: u64,
    trap_vectors: *const u8,
    trap_stack: *const u8,
    syscall_entry: u64,
}

const _: () = assert!(size_of::<Descriptor>() == size_of::<DirectEntry>());
const _: () = assert!(size_of::<Descriptor>() == 56 && note::NAME.len() == 10);
const _: () =
    assert!(core::mem::offset_of!(Descriptor, entry) == core::mem::offset_of!(DirectEntry, entry));
const _: () = assert!(
    core::mem::offset_of!(Descriptor, syscall_entry)
        == core::mem::offset_of!(DirectEntry, syscall_entry)
);

/// An ELF note; its parts are aligned to 4 bytes (System V ABI, "Note Section").
#[repr(C, packed(4))]
pub struct Note<const NAME: usize, D> {
    name_len: u32,
    desc_len: u32,
    kind: u32,
    name: [u8; NAME],
    desc: D,
}

// SAFETY: a note is only ever read, and not by this program.
unsafe impl<const NAME: usize, D> Sync for Note<NAME, D> {}

/// The note that asks for direct entry; [`main!`](crate::main) places it.
#[repr(transparent)]
pub struct DirectEntryNote(Note<12, Descriptor>);

impl DirectEntryNote {
    /// Asks for entry at `entry` with `options`.
    pub const fn new(entry: Entry, options: Options) -> Self {
        Self(Note {
            name_len: 10,
            desc_len: 56,
            kind: note::TYPE_DIRECT_ENTRY,
            name: *b"Goldcrest\0\0\0",
            desc: Descriptor {
                version: note::VERSION,
                ring: 3,
                flags: options.flags,
                reserved: 0,
                entry,
                stack_size: options.stack_size,
                trap_vectors: &raw const stubs::TRAP_VECTORS,
                trap_stack: stubs::TRAP_STACK.top(),
                syscall_entry: 0,
            },
        })
    }
}

/// The note that offers PVH as the other way in; [`main!`](crate::main) places it.
#[repr(transparent)]
pub struct PvhNote(Note<4, unsafe extern "C" fn()>);

impl PvhNote {
    /// Asks for 32-bit entry at `entry`.
    pub const fn new(entry: unsafe extern "C" fn()) -> Self {
        Self(Note {
            name_len: 4,
            desc_len: 8,
            kind: note::XEN_TYPE_PHYS32_ENTRY,
            name: note::XEN_NAME,
            desc: entry,
        })
    }
}

/// Runs `main` on the machine that `info` describes, and ends it.
///
/// # Safety
///
/// Called once, as the first thing, with what the host passed in `rdi`.
pub unsafe fn start(info: *mut BootInfo, main: Main) -> ! {
    let entered = time::tsc();
    machine::set_doorbells();
    // SAFETY: direct entry promises a pointer to boot information that is the guest's to keep.
    unsafe { run(info, entered, main) }
}

/// The part of starting that all ways in have in common.
///
/// # Safety
///
/// That of [`boot::set_info`].
pub(crate) unsafe fn run(info: *mut BootInfo, entered: u64, main: Main) -> ! {
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { boot::set_info(info) } {
        crate::println!("this unikernel cannot start: {error:?}");
        exit(status::BOOT_INFO);
    }
    boot::set_mark_at(mark::ENTRY, entered);
    boot::set_mark(mark::MAIN);
    exit(main())
}

/// Makes a function the `main` of a unikernel.
///
/// It may return nothing, a status (`u32`), or a `Result` of either. A second argument asks the host for more:
/// [`Options`]. The macro also defines what belongs in a final program only: the panic handler, the
/// global allocator, `memcpy` and its kin, and the ways in.
///
/// `goldcrest_guest::main!(main, Options::new().clock());` is a unikernel that keeps exact time; the
/// [crate's documentation](crate) has a whole one.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        $crate::main!($main, $crate::Options::new());
    };
    ($main:path, $options:expr) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".note.goldcrest")]
            static DIRECT_ENTRY: $crate::entry::DirectEntryNote =
                $crate::entry::DirectEntryNote::new(goldcrest_direct_entry, $options);

            #[unsafe(no_mangle)]
            unsafe extern "C" fn goldcrest_direct_entry(
                info: *mut $crate::abi::boot_info::BootInfo,
            ) -> ! {
                // SAFETY: the host calls this once, as the note asks.
                unsafe { $crate::entry::start(info, main_status) }
            }

            #[used]
            #[unsafe(link_section = ".note.goldcrest")]
            static PVH: $crate::entry::PvhNote = $crate::entry::PvhNote::new(pvh_entry);

            unsafe extern "C" fn start_by_pvh(start_info: u64) -> ! {
                // SAFETY: the stub calls this once, as the note asks.
                unsafe { $crate::pvh::start(start_info, $options, main_status) }
            }

            $crate::__pvh_entry!(start_by_pvh);

            extern "C" fn main_status() -> u32 {
                $crate::Termination::status($main())
            }

            #[panic_handler]
            fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
                $crate::panic::report(info)
            }

            $crate::__memory_symbols!();
            $crate::__allocator!();
        };
    };
}

/// Defines the global allocator; a part of [`main!`].
#[cfg(feature = "heap")]
#[doc(hidden)]
#[macro_export]
macro_rules! __allocator {
    () => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::Heap::new();
    };
}

/// Leaves the global allocator to the program.
#[cfg(not(feature = "heap"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __allocator {
    () => {};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stack_size_is_the_default_one() {
        let default = Options::DEFAULT_STACK_SIZE;
        assert_eq!(Options::new().stack_size(0).stack(), default);
        assert_eq!(Options::new().stack_size(1).stack(), 1);
    }
}
