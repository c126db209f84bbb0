//! Signals: those that end the guest in an orderly way, and those that must not leave the terminal raw.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, OnceLock};

use goldcrest_monitor::{Control, StopReason};
use goldcrest_vcpu::signal_is_ignored;
use libc::{
    SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGPIPE, SIGQUIT, SIGSEGV, SIGTERM,
    SIGTSTP, SIGUSR1, SIGUSR2, SIGXCPU, siginfo_t,
};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::signal::{SignalHandler, register_signal_handler};

use crate::failure::Failure;
use crate::terminal;

static CONTROLS: OnceLock<Vec<Arc<Control>>> = OnceLock::new();

/// Has SIGINT, SIGTERM, SIGHUP and SIGQUIT stop the machine of `control`, those that are not ignored (`nohup`), SIGUSR1
/// pause it and SIGUSR2 have it go on; and a closed pipe be an error of the write, not the end of the process.
pub(crate) fn stop_on_signals(control: &Arc<Control>) -> Result<(), Failure> {
    stop_all_on_signals(vec![control.clone()])
}

/// As [`stop_on_signals`], of all these machines.
pub(crate) fn stop_all_on_signals(controls: Vec<Arc<Control>>) -> Result<(), Failure> {
    let set = CONTROLS.set(controls);
    debug_assert!(set.is_ok(), "once in a process");
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        if !signal_is_ignored(signal) {
            handle(signal, stop)?;
        }
    }
    for (signal, handler) in [(SIGUSR1, pause as SignalHandler), (SIGUSR2, resume)] {
        if !signal_is_ignored(signal) {
            handle(signal, handler)?;
        }
    }
    handle(SIGPIPE, ignore)
}

/// What is called when the process is to end, where it has no machine.
static AT_END: OnceLock<fn()> = OnceLock::new();

/// As [`stop_on_signals`], of a process that has no machine: the signals that end it call this instead.
pub(crate) fn call_at_end(call: fn()) -> Result<(), Failure> {
    let set = AT_END.set(call);
    debug_assert!(set.is_ok(), "once in a process");
    stop_all_on_signals(Vec::new())
}

/// Has SIGINT, SIGTERM, SIGHUP and SIGQUIT be read from a descriptor, those that are not ignored, by a process that has no
/// other threads.
pub(crate) fn as_descriptor() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    let ending = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ];
    for signal in ending {
        if !signal_is_ignored(signal as c_int) {
            signals.add(signal);
        }
    }
    signals
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC))
        .map_err(|source| Failure::failed("cannot handle signals", source))
}

/// Has every signal that would end or stop the process put the terminal back first.
pub(crate) fn guard_terminal() -> Result<(), Failure> {
    for signal in [SIGALRM, SIGXCPU] {
        handle(signal, stop)?;
    }
    for signal in [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV] {
        handle(signal, die)?;
    }
    handle(SIGTSTP, suspend)
}

fn handle(signal: c_int, handler: SignalHandler) -> Result<(), Failure> {
    register_signal_handler(signal, handler)
        .map_err(|source| Failure::failed("cannot handle signals", source))
}

fn controls() -> &'static [Arc<Control>] {
    CONTROLS.get().map_or(&[], Vec::as_slice)
}

extern "C" fn stop(number: c_int, _: *mut siginfo_t, _: *mut c_void) {
    if let Some(call) = AT_END.get() {
        call();
    }
    for control in controls() {
        control.stop(StopReason::Signal(u8::try_from(number).unwrap_or(0)));
    }
}

extern "C" fn pause(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    for control in controls() {
        control.ask_to_pause();
    }
}

extern "C" fn resume(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    for control in controls() {
        control.ask_to_resume();
    }
}

extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

extern "C" fn die(number: c_int, _: *mut siginfo_t, _: *mut c_void) {
    terminal::restore();
    // `abort` raises SIGABRT, and ends the process itself when this returns.
    if number != SIGABRT {
        std::process::abort();
    }
}

/// The terminal is the shell's while the process is stopped.
extern "C" fn suspend(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    terminal::restore();
    let _ = raise(Signal::SIGSTOP);
    terminal::make_raw();
}
