//! Signals that end the guest in an orderly way.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};

use goldcrest_monitor::{Control, StopReason};
use libc::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, siginfo_t};
use vmm_sys_util::signal::{SignalHandler, register_signal_handler};

use crate::failure::Failure;

static CONTROL: OnceLock<Arc<Control>> = OnceLock::new();

/// Has SIGINT, SIGTERM, SIGHUP and SIGQUIT stop the machine of `control`; a closed pipe is an error of the write, not
/// the end of the process.
pub(crate) fn stop_on_signals(control: &Arc<Control>) -> Result<(), Failure> {
    let control = CONTROL.set(control.clone());
    debug_assert!(control.is_ok(), "one machine a process");
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        handle(signal, stop)?;
    }
    handle(SIGPIPE, ignore)
}

fn handle(signal: c_int, handler: SignalHandler) -> Result<(), Failure> {
    register_signal_handler(signal, handler)
        .map_err(|source| Failure::failed("cannot handle signals", source))
}

extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

extern "C" fn stop(number: c_int, _: *mut siginfo_t, _: *mut c_void) {
    if let Some(control) = CONTROL.get() {
        control.stop(StopReason::Signal(u8::try_from(number).unwrap_or(0)));
    }
}
