//! The runtime of a Goldcrest unikernel.
#![no_std]

#[cfg(test)]
extern crate std;

pub use goldcrest_abi as abi;

pub mod apic;
pub mod boot;
pub mod console;
pub mod entry;
mod exclusive;
pub mod exit;
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

pub use boot::{args, command_line};
pub use entry::Options;
pub use exit::{Termination, exit};
