//! Register accesses, as a bus lets them through to a device.

pub use goldcrest_device_fuzz::{Access, Outcome};
