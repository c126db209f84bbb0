//! How a unikernel ends.

use core::fmt::Debug;

use goldcrest_abi::boot_info::mark;

use crate::{boot, console, machine};

/// Statuses that the runtime itself ends with.
pub mod status {
    /// `main` returned an error.
    pub const FAILURE: u32 = 1;
    /// A panic, as with programs that use `std`.
    pub const PANIC: u32 = 101;
    /// A processor exception that nobody handles.
    pub const FAULT: u32 = 102;
    /// The boot information is not what this runtime understands.
    pub const BOOT_INFO: u32 = 103;
}

/// Prints what is held back and ends the machine; the status reaches whoever started it.
///
/// Under `goldcrest` a status over 255 arrives as 255. Booted by PVH under QEMU with
/// `-device isa-debug-exit,iobase=0xf4,iosize=4`, QEMU ends with `2 * status + 1`.
pub fn exit(status: u32) -> ! {
    console::flush();
    boot::set_mark(mark::EXIT);
    machine::end(status)
}

/// What a unikernel's `main` may return.
pub trait Termination {
    /// The status to end with.
    fn status(self) -> u32;
}

impl Termination for () {
    fn status(self) -> u32 {
        0
    }
}

impl Termination for u32 {
    fn status(self) -> u32 {
        self
    }
}

impl<T: Termination, E: Debug> Termination for Result<T, E> {
    /// An error is printed.
    fn status(self) -> u32 {
        match self {
            Ok(value) => value.status(),
            Err(error) => {
                crate::println!("Error: {error:?}");
                status::FAILURE
            }
        }
    }
}
