//! The devices of a PC that are not virtio: the few that kernels expect, and the few that end a machine.
//!
//! | module | device | ports |
//! |---|---|---|
//! | [`serial`] | 16550A serial port | 0x3f8–0x3ff |
//! | [`rtc`] | MC146818 clock and RAM | 0x70–0x71 |
//! | [`i8042`] | keyboard controller, with Ctrl-Alt-Del | 0x60–0x64 |
//! | [`debug_exit`] | QEMU's `isa-debug-exit` | 0xf4–0xf7 |
//! | [`power`] | ACPI sleep and reset registers | 0x600–0x602 |
//! | [`doorbell`] | Goldcrest's doorbells | 0xe00–0xe0f |
//! | [`fw_cfg`] | QEMU's `fw_cfg`, as test kernels read it | 0x510–0x511 |
//! | [`test_device`] | QEMU's `pc-testdev`, for test kernels | 0xe0–0xeb, 0x2000–0x2017 |
//!
//! Each is a [`goldcrest_bus::Device`]: a state machine that runs inside the guest's access, without a thread, a file
//! descriptor or a hypervisor. Interrupts leave through an [`IrqLine`](goldcrest_irq::IrqLine), console bytes through
//! an [`Output`], and what the machine must do (end, reset) comes back as a [`goldcrest_bus::Effect`].
//!
//! ```
//! use goldcrest_bus::{Bus, shared};
//! use goldcrest_chipset::{Output, Serial, serial};
//! use goldcrest_irq::IrqLine;
//!
//! let (output, capture) = Output::capture();
//! let mut ports = Bus::new("port");
//! ports.add(
//!     "serial",
//!     serial::RANGE,
//!     shared(Serial::new(IrqLine::detached(), output)),
//! )?;
//! let _ = ports.write(serial::PORT.into(), b"!");
//! assert_eq!(capture.take(), b"!");
//! # Ok::<(), goldcrest_bus::BusError>(())
//! ```
//!
//! # A hostile guest
//!
//! Every access is bounded work: a device holds a fixed amount of state, allocates at most what one console request
//! may carry, and wakes the host at most once for each time that the host gave it input. What makes no sense is
//! ignored, and counted where a person may want to know.
//!
//! Output is never lost silently: where the host cannot take it, the access returns
//! [`Effect::HostFailed`](goldcrest_bus::Effect::HostFailed).

pub mod debug_exit;
pub mod doorbell;
pub mod fw_cfg;
pub mod i8042;
mod output;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod test_device;

pub use debug_exit::DebugExit;
pub use doorbell::Doorbell;
pub use fw_cfg::FwCfg;
pub use i8042::{I8042, I8042State};
pub use output::{Capture, Output};
pub use power::Power;
pub use rtc::{Rtc, RtcState, SystemClock, WallClock};
pub use serial::{Serial, SerialState};
