//! x86-64 processor state as plain data, and the tables that a processor reads.
//!
//! [`Registers`] and [`SystemRegisters`] are what a virtual CPU starts from, what is saved of it and what is put back:
//! plain structs that need no hypervisor. [`Segment`] converts to and from descriptors. A boot loader produces them,
//! a vCPU consumes them, and neither needs the other.
//!
//! ```
//! use goldcrest_x86::{Segment, SystemRegisters};
//!
//! let code = Segment::code64(0x08, 0);
//! assert_eq!(code.descriptor(), 0x00af_9b00_0000_ffff);
//! let start = SystemRegisters { cs: code, ..SystemRegisters::default() };
//! assert_eq!(start.cs.selector, 0x08);
//! ```
//!
//! Section numbers are those of the Intel Software Developer's Manual, volume 3A.

mod registers;
mod segment;

pub use registers::{DescriptorTable, Registers, SystemRegisters, cr0, cr4, efer, rflags};
pub use segment::Segment;
