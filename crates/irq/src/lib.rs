//! Interrupts of a virtual machine: handles that devices hold, and the interrupt controllers as models.
//!
//! A device holds an [`IrqLine`] (a wire) or an [`MsiSink`] (messages), never an interrupt number. What is at the
//! other end (the IOAPIC, the 8259 pair, the local APICs in the kernel, a test) is not its concern.
//!
//! ```
//! use goldcrest_irq::IrqLine;
//!
//! let line = IrqLine::detached();
//! line.set(true);
//! assert!(line.level());
//! ```
//!
//! The controllers are [`Ioapic`] (Intel 82093AA). Local APICs are not modelled: an [`MsiSink`] stands for them.

pub mod ioapic;
mod line;
mod msi;

pub use ioapic::{Ioapic, IoapicState};
pub use line::{IrqLine, LineSink};
pub use msi::{Msi, MsiSink};
