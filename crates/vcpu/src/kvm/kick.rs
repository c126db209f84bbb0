//! Interrupting a vCPU without losing the kick.
//!
//! A kick sets `immediate_exit` in the page that the vCPU shares with the kernel, then signals the vCPU's thread. If
//! the thread is in `KVM_RUN`, the signal interrupts it; if it is about to enter, the flag turns it back. Either way
//! the flag stays until [`run`](crate::Vcpu::run) has returned.
#![allow(unsafe_code, reason = "a shared mapping, and signals")]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use kvm_bindings::kvm_run;

use crate::Kick;

/// Bytes of the mapping: enough for the flag.
const PAGE: usize = 4096;

pub(super) struct Kicker {
    page: NonNull<u8>,
    /// The vCPU's thread while it runs, else 0.
    thread: AtomicI32,
    kicked: AtomicBool,
}

// SAFETY: the page is only accessed through an atomic, and stays mapped for as long as the value lives.
unsafe impl Send for Kicker {}
// SAFETY: as above; all methods take `&self` and use atomics.
unsafe impl Sync for Kicker {}

impl Kicker {
    pub(super) fn new(vcpu: &impl AsRawFd) -> io::Result<Self> {
        install_signal_handler()?;
        // SAFETY: a new shared mapping of a vCPU descriptor, which KVM offers at offset 0 (api.rst §5).
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(page.cast::<u8>()) {
            Some(page) if page.as_ptr().cast::<libc::c_void>() != libc::MAP_FAILED => Ok(Self {
                page,
                thread: AtomicI32::new(0),
                kicked: AtomicBool::new(false),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The calling thread is about to run the vCPU.
    pub(super) fn enter(&self) {
        // SAFETY: `gettid` takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() };
        self.thread.store(thread, Ordering::SeqCst);
    }

    /// The vCPU has returned because of a kick or another signal: takes the kick back.
    pub(super) fn returned(&self) {
        self.immediate_exit().store(0, Ordering::SeqCst);
        self.kicked.store(false, Ordering::SeqCst);
    }

    /// Makes the next `KVM_RUN` complete what the last one began, and nothing more.
    pub(super) fn only_complete(&self) {
        self.immediate_exit().store(1, Ordering::SeqCst);
    }

    /// Undoes [`only_complete`](Self::only_complete), but for a kick in the meantime.
    pub(super) fn completed(&self) {
        self.immediate_exit().store(0, Ordering::SeqCst);
        if self.kicked.load(Ordering::SeqCst) {
            self.only_complete();
        }
    }

    /// The calling thread runs the vCPU no longer, so that signals to it go astray.
    pub(super) fn leave(&self) {
        self.thread.store(0, Ordering::SeqCst);
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies in the mapped page; all accesses of this process to it are atomic, and the kernel
        // reads it as one byte.
        unsafe { AtomicU8::from_ptr(self.page.as_ptr().add(offset)) }
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.immediate_exit().store(1, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: sends a signal that this process handles; a thread that has ended meanwhile is an error, which
            // needs no handling, as it runs no vCPU.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody else has a reference into it.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

/// The signal that interrupts vCPUs.
fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Without a handler the signal would end the process.
fn install_signal_handler() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask. Without SA_RESTART, `KVM_RUN` returns.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing, so that it may interrupt anything.
        if unsafe { libc::sigaction(signal(), &action, std::ptr::null_mut()) } != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}
