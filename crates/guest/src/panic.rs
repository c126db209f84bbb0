//! What happens on a panic.

use core::panic::PanicInfo;

use crate::exit::{exit, status};

/// Prints the message and ends with status 101; [`main!`](crate::main) makes it the panic handler.
pub fn report(info: &PanicInfo<'_>) -> ! {
    crate::println!("{info}");
    exit(status::PANIC)
}
