//! Multiboot, in both versions: what they have in common.
//!
//! - Multiboot Specification 0.6.96, "Boot information format" and "Machine state": [`version1`].
//! - Multiboot2 Specification 2.0: [`version2`].
//!
//! A kernel says in a header near its beginning what it needs. It is an ELF of either class, or names in the header
//! itself where it is to lie. It starts in 32-bit protected mode, `ebx` pointing to what it is told.

mod bad;
mod header1;
mod header2;
mod info1;
mod info2;
mod kernel;
mod sections;
mod tags;
pub(crate) mod version1;
pub(crate) mod version2;

pub use bad::BadMultiboot;

use goldcrest_memory::layout;
use goldcrest_x86::Registers;

use crate::load::Loader;
use crate::pc::LOW_END;

/// What kernels are told that started them.
const LOADER_NAME: &[u8] = concat!("Goldcrest ", env!("CARGO_PKG_VERSION"), "\0").as_bytes();

/// Where upper memory begins.
const UPPER: u64 = 0x10_0000;

/// General registers at the first instruction: who started it, and what it is told.
fn registers(magic: u32, entry: u64, info: u64) -> Registers {
    Registers {
        rip: entry,
        rax: magic.into(),
        rbx: info,
        ..Registers::default()
    }
}

/// KiB of lower memory, from address 0, and of upper memory, from 1 MiB to the first hole.
fn basic_memory(loader: &Loader<'_>) -> (u32, u32) {
    let upper = loader.areas.ram().iter().find(|ram| ram.contains(&UPPER));
    let upper = upper.map_or(0, |ram| ram.end.min(layout::HOLE_END) - UPPER);
    let kib = |bytes: u64| u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    (kib(LOW_END), kib(upper))
}

/// A guest-physical address below 4 GiB: all that a kernel is told of lies there.
fn low(address: u64) -> u32 {
    debug_assert!(address < layout::HOLE_END);
    u32::try_from(address).unwrap_or(u32::MAX)
}
