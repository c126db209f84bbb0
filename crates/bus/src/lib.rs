//! A bus of a virtual machine: devices at address ranges, and dispatch to them.
//!
//! [`Device`] is what every Goldcrest device implements: reads and writes at an *offset* into its own registers, never
//! at an absolute address. A [`Bus`] maps address ranges to devices; a machine has one for ports and one for
//! memory-mapped registers. Devices run synchronously inside the access; what the machine must do as a consequence
//! (end, reset) comes back as an [`Effect`].
//!
//! ```
//! use goldcrest_bus::{Bus, Device, Effect, Range};
//!
//! /// A register that reads back what was written.
//! struct Scratch(u8);
//!
//! impl Device for Scratch {
//!     fn read(&mut self, _offset: u64, data: &mut [u8]) {
//!         data.fill(self.0);
//!     }
//!     fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
//!         self.0 = data.first().copied().unwrap_or(0);
//!         Effect::None
//!     }
//! }
//!
//! let mut bus = Bus::new("port");
//! bus.add("scratch", Range::new(0x80, 1)?, goldcrest_bus::shared(Scratch(0)))?;
//! assert!(matches!(bus.write(0x80, &[7]), Effect::None));
//! let mut data = [0];
//! bus.read(0x80, &mut data);
//! assert_eq!(data, [7]);
//! # Ok::<(), goldcrest_bus::BusError>(())
//! ```
//!
//! # A hostile guest
//!
//! An access that hits no device, or runs past the end of one, reads all ones, writes nothing and is counted
//! ([`Bus::misses`]). Look-up takes no lock on the map; each device has a lock of its own.
//!
//! The bus does not remember the last device: the benchmark `dispatch` shows that it would save a nanosecond of an
//! exit's thousands.

mod bus;
mod device;
mod range;

pub use bus::{Bus, BusError};
pub use device::{Device, Effect, SharedDevice, shared};
pub use range::Range;
