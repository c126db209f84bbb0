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
//! The controllers are [`Ioapic`] (Intel 82093AA) and [`Pic`] (a pair of 8259As); [`FanOut`] leads a line to both.
//! Local APICs are not modelled: an [`MsiSink`] stands for them.
//!
//! # A hostile guest
//!
//! Every register access is bounded work on a fixed amount of state, and sends at most one message per pin. A guest
//! can make the IOAPIC call [`MsiSink::watch_eoi`] by rewriting its redirection table, and by nothing else.

mod fan_out;
pub mod ioapic;
mod line;
mod msi;
pub mod pic;
mod wire;

pub use fan_out::FanOut;
pub use ioapic::{Ioapic, IoapicState};
pub use line::{IrqLine, LineSink};
pub use msi::{Msi, MsiSink};
pub use pic::{Pic, PicPorts, PicState};
