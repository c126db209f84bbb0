//! The runtime of a Rust unikernel: everything between the first instruction and `main`, and what `main` needs.
//!
//! A unikernel is a program that is its own kernel: `no_std`, one address space, one processor, no files. This crate
//! gives it a console, a heap, time, readable reports of faults, handlers for interrupts, drivers for virtio devices (disks,
//! network cards, sockets to the host, consoles, entropy), and an orderly end.
//!
//! | feature | |
//! |---|---|
//! | `heap` (default) | all free memory, as the global allocator |
//! | `virtio` (default) | the drivers ([`virtio`]) |
//! | `smoltcp` | TCP/IP: the network card is a `smoltcp::phy::Device` |
//!
//! # Writing one
//!
//! Three files make a unikernel. No target and no toolchain has to be installed: it is built by stable Rust for
//! `x86_64-unknown-linux-gnu`, and only linked differently.
//!
//! `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! goldcrest-guest = "0.1"
//!
//! [profile.dev]
//! panic = "abort"
//!
//! [profile.release]
//! panic = "abort"
//! opt-level = "s"
//! lto = "fat"
//! codegen-units = 1
//! strip = "symbols"
//! ```
//!
//! `build.rs`, which passes on how an image is linked:
//!
//! ```no_run
//! fn main() {
//!     let link_args = std::env::var("DEP_GOLDCREST_GUEST_LINK_ARGS").expect("goldcrest-guest is a dependency");
//!     for argument in link_args.split(' ') {
//!         println!("cargo:rustc-link-arg-bins={argument}");
//!     }
//! }
//! ```
//!
//! `src/main.rs`:
//!
#![doc = concat!("```text\n", include_str!("../example.rs"), "```")]
//!
//! `cargo build --release` makes an image of some 20 KiB in `target/release`. With `extern crate alloc;` it may
//! allocate. `examples/unikernels` in Goldcrest's repository has more of them.
//!
//! # Two ways in
//!
//! The image starts by *direct entry* ([`abi`]): the host writes page tables and descriptor tables, and the first
//! instruction to run is the unikernel's own. Nothing is set up after that; a line printed costs one exit to the host,
//! and so does the end. The same image also has a PVH entry, so that QEMU, Firecracker and others start it with
//! `-kernel`; the runtime then builds the same tables itself, prints to the first serial port and ends by QEMU's
//! `isa-debug-exit`.
//!
//! Either way the program runs in ring 3, where every host runs it at full speed, even one that emulates ring 0. It may
//! use SSE, not AVX: nobody enables that for it. Memory is mapped at its guest-physical address; code cannot be
//! written, data cannot be executed, page 0 is not mapped and a guard page lies below the stack.
//!
//! # What is trusted
//!
//! A guest is at the mercy of its host. Boot information is checked for being what this version understands, so that a
//! mistake is reported rather than acted upon; a host that means harm has easier ways.
#![no_std]
#![allow(
    clippy::needless_doctest_main,
    reason = "one of the examples is a whole build script"
)]

#[cfg(any(feature = "heap", feature = "virtio"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub use goldcrest_abi as abi;

pub mod alarm;
pub mod apic;
#[cfg(feature = "heap")]
pub mod area;
pub mod boot;
pub mod console;
pub mod entry;
mod exclusive;
pub mod exit;
pub mod generation;
#[cfg(feature = "heap")]
pub mod handover;
#[cfg(feature = "heap")]
pub mod heap;
mod line;
mod machine;
#[doc(hidden)]
pub mod mem;
pub mod panic;
pub mod port;
pub mod pvclock;
#[doc(hidden)]
pub mod pvh;
pub mod ring0;
pub mod time;
pub mod trap;
#[cfg(feature = "virtio")]
pub mod virtio;

pub use boot::{args, command_line};
pub use entry::Options;
pub use exit::{Termination, exit};
