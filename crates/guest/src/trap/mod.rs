//! Processor exceptions and interrupts.
//!
//! An exception that nobody handles is reported on the console with all registers, and ends the machine with
//! [`status::FAULT`](crate::exit::status::FAULT). A handler may be set for any vector; when it returns, the interrupted
//! code goes on. Traps need no set-up by the guest: after direct entry the tables are there before the first
//! instruction.
#![allow(unsafe_code, reason = "the table of handlers holds function addresses")]

mod report;
pub(crate) mod stubs;

use core::sync::atomic::{AtomicPtr, Ordering};

/// Vectors of exceptions (SDM vol. 3A §6.15).
pub mod vector {
    /// #DE: division by zero, or a quotient that is too large.
    pub const DIVIDE_ERROR: u8 = 0;
    /// #DB: single step and debug registers.
    pub const DEBUG: u8 = 1;
    /// #BP: `int3`.
    pub const BREAKPOINT: u8 = 3;
    /// #UD: an instruction that does not exist.
    pub const INVALID_OPCODE: u8 = 6;
    /// #GP.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// #PF; the address is in [`TrapFrame::cr2`](super::TrapFrame::cr2).
    pub const PAGE_FAULT: u8 = 14;
    /// The first vector that is an interrupt.
    pub const FIRST_INTERRUPT: u8 = 32;
}

/// The state of the interrupted code. What a handler changes is what the code goes on with, but for `cr2`, `vector` and
/// `error_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// The address of the last page fault; meaningless for other vectors.
    pub cr2: u64,
    /// Which trap it is; see [`vector`].
    pub vector: u64,
    /// The error code, 0 for vectors that have none.
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Handles a trap. Runs in ring 3 with interrupts disabled on a stack of 16 KiB.
///
/// No guard page lies below that stack: a handler that needs more of it overwrites static memory. It must not recurse
/// or keep large arrays there. A trap within a handler goes on in what is left of the same stack.
///
/// It may print. It must not allocate, unless it is sure not to have interrupted the allocator.
pub type Handler = fn(&mut TrapFrame);

/// One handler a vector, null where there is none.
static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Has `handler` called for every trap of this vector from now on; `None` takes it back.
///
/// After a fault, the interrupted code goes on with the very instruction that faulted, unless the handler changes
/// [`TrapFrame::rip`]; after a breakpoint, with the next one.
///
/// # Safety
///
/// The frame the handler leaves behind must be one that the interrupted code can go on with: whatever it changes of
/// the registers, of `rip`, `rsp`, `rflags` and the segments has to be what the code at `rip` expects. A handler that
/// leaves the frame alone, of an interrupt or a breakpoint, is always sound in this. It must also keep to what
/// [`Handler`] says of its stack.
pub unsafe fn set_handler(vector: u8, handler: Option<Handler>) {
    let pointer = handler.map_or(core::ptr::null_mut(), |handler| handler as *mut ());
    if let Some(slot) = HANDLERS.get(usize::from(vector)) {
        slot.store(pointer, Ordering::Release);
    }
}

fn handler(vector: u64) -> Option<Handler> {
    let pointer = HANDLERS
        .get(usize::try_from(vector).ok()?)?
        .load(Ordering::Acquire);
    // SAFETY: only `set_handler` writes to the table, functions of this very type and null.
    (!pointer.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Handler>(pointer) })
}

/// Called by the stub for every trap.
extern "C" fn dispatch(frame: &mut TrapFrame) {
    match handler(frame.vector) {
        // Code in ring 0 cannot be resumed from ring 3, so that its faults are nobody's to handle.
        Some(handler) if frame.cs & 3 != 0 => handler(frame),
        _ => report::fatal(frame),
    }
}
