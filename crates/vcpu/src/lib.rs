//! Virtual machines and their CPUs: what a monitor asks of a hypervisor.
//!
//! [`Hypervisor`] makes a [`Vm`], a [`Vm`] makes [`Vcpu`]s, and [`Vcpu::run`] runs guest code until something must be
//! done that a device cannot do. Port and memory-mapped accesses go to an [`ExitHandler`] on the way. There are two
//! backends: [`kvm`], and [`scripted`], which plays exits from a list so that an exit loop is tested and fuzzed
//! without a hypervisor.
//!
//! ```
//! use goldcrest_memory::{GuestRam, MemoryConfig};
//! use goldcrest_vcpu::scripted::{Scripted, Step};
//! use goldcrest_vcpu::{Exit, ExitHandler, Flow, Hypervisor, Vcpu, Vm};
//!
//! /// Prints what the guest writes to port 0x3f8.
//! struct Serial(String);
//!
//! impl ExitHandler for Serial {
//!     fn port_write(&mut self, port: u16, data: &[u8]) -> Flow {
//!         if let (0x3f8, [byte]) = (port, data) {
//!             self.0.push(char::from(*byte));
//!         }
//!         Flow::Continue(())
//!     }
//! }
//!
//! // `Kvm::open()?` in place of the script runs a real guest.
//! let hypervisor = Scripted::new([Step::PortWrite(0x3f8, vec![b'G']), Step::Exit(Exit::Shutdown)]);
//! let ram = GuestRam::new(&MemoryConfig::default())?;
//! let vm = hypervisor.create_vm(&ram)?;
//! let mut vcpu = vm.create_vcpu(0, &hypervisor.cpuid()?)?;
//! let mut serial = Serial(String::new());
//! assert_eq!(vcpu.run(&mut serial)?, Exit::Shutdown);
//! assert_eq!(serial.0, "G");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Several CPUs, stopping, pausing
//!
//! Every vCPU runs on a thread of its own. [`Vcpu::kicker`] gives a handle that makes `run` return soon,
//! from any thread or signal handler, also when it has not been entered yet: a kick is never lost. Pausing is kicking
//! and not running on.
//!
//! # A hostile guest
//!
//! No exit panics; accesses are 1 to 8 bytes long whatever the guest does. What ends a guest abnormally is an
//! [`Exit`] whose [`Report`] shows reason, registers and code.

pub mod cpuid;
pub mod kvm;
pub mod scripted;

mod error;
mod exit;
mod fork;
mod report;
mod signal;
mod state;
mod traits;

pub use error::VcpuError;
pub use exit::{Exit, ExitHandler, Flow};
pub use fork::{Forked, fork};
pub use report::Report;
pub use signal::signal_is_ignored;
pub use state::VcpuState;
pub use traits::{Hypervisor, Kick, Vcpu, Vm};
