//! From the processor's trap to a Rust function in ring 3 and back.
//!
//! Traps arrive in ring 0. There, as little as possible is done, with the plainest instructions: some hosts emulate ring
//! 0, slowly and not completely. The stub moves what the processor pushed to the stack of the handler and leaves for
//! ring 3, all other registers untouched; everything else happens there, like the delivery of a signal:
//!
//! - The handler runs on a stack of its own, as the interrupted code may have run out of its stack. A trap within a
//!   handler continues below the red zone of the interrupted one (System V ABI §3.2.2: 128 bytes).
//! - It runs with interrupts disabled.
//! - When it returns, `iretq` resumes the interrupted code without going through ring 0.
//!
//! Interrupts reach ring 0 only while it waits for one, in [`ring0`](crate::ring0). There is nothing to go back to,
//! then: the stub makes it look as if the `syscall` that began the wait had just returned.
#![allow(
    unsafe_code,
    reason = "trap entry is assembly; its stacks are raw memory"
)]

use core::arch::{global_asm, naked_asm};
use core::cell::UnsafeCell;

use goldcrest_abi::{note::TRAP_STUB_SIZE, selector};

use super::TrapFrame;

/// IOPL 3 and the bit that is always set: how handlers run.
pub(crate) const HANDLER_FLAGS: u64 = 0x3002;

/// Memory for a stack that only assembly uses.
#[repr(C, align(16))]
pub(crate) struct Stack<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

// SAFETY: no Rust code reads or writes it but as a stack that it runs on.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; SIZE]))
    }

    /// The first byte above the stack.
    pub(crate) const fn top(&'static self) -> *const u8 {
        self.0.get().cast::<u8>().wrapping_add(SIZE)
    }
}

/// Where traps arrive: a few words, ever.
pub(crate) static TRAP_STACK: Stack<512> = Stack::new();
/// Where handlers run.
static HANDLER_STACK: Stack<HANDLER_STACK_SIZE> = Stack::new();
const HANDLER_STACK_SIZE: usize = 16 * 1024;

unsafe extern "C" {
    /// The 256 stubs.
    #[link_name = "goldcrest_trap_vectors"]
    pub(crate) static TRAP_VECTORS: u8;
}

// Each stub completes what the processor pushed to an error code and the vector. The vectors that come with an error
// code are listed in SDM vol. 3A §6.15; 29 and 30 are AMD's (APM vol. 2 §8.2).
//
// In `goldcrest_trap`, offsets from rsp are, after the two pushes: 0 rcx, 8 rax, 16 vector, 24 error code, 32 rip, 40 cs,
// 48 rflags, 56 rsp, 64 ss. The block that is passed on has the same order from the vector on, and CR2 in front.
global_asm!(
    ".pushsection .text.goldcrest_trap, \"ax\", @progbits",
    ".balign {stub_size}",
    ".global goldcrest_trap_vectors",
    "goldcrest_trap_vectors:",
    ".set vector, 0",
    ".rept 256",
    ".balign {stub_size}",
    ".if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14",
    ".if vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    ".endif",
    "push vector",
    "jmp goldcrest_trap",
    ".set vector, vector + 1",
    ".endr",
    ".balign {stub_size}",
    "goldcrest_trap:",
    "push rax",
    "push rcx",
    "test byte ptr [rsp + 40], 3",
    "jz 4f",
    // Within a handler: below the red zone of what was interrupted. Else: at the top of the handler stack.
    "2:",
    "mov rax, [rsp + 56]",
    "lea rcx, [rip + {stack}]",
    "cmp rax, rcx",
    "jb 3f",
    "add rcx, {stack_size}",
    "cmp rax, rcx",
    "ja 3f",
    "sub rax, 128",
    "jmp 5f",
    "3:",
    "lea rax, [rip + {stack} + {stack_size}]",
    "5:",
    "and rax, -16",
    "sub rax, 64",
    "mov rcx, cr2",
    "mov [rax], rcx",
    "mov rcx, [rsp + 16]",
    "mov [rax + 8], rcx",
    "mov rcx, [rsp + 24]",
    "mov [rax + 16], rcx",
    "mov rcx, [rsp + 32]",
    "mov [rax + 24], rcx",
    "mov rcx, [rsp + 40]",
    "mov [rax + 32], rcx",
    "mov rcx, [rsp + 48]",
    "mov [rax + 40], rcx",
    "mov rcx, [rsp + 56]",
    "mov [rax + 48], rcx",
    "mov rcx, [rsp + 64]",
    "mov [rax + 56], rcx",
    // Leave for the handler with all other registers as they were.
    "lea rcx, [rip + {handler}]",
    "mov [rsp + 32], rcx",
    "mov qword ptr [rsp + 40], {user_code}",
    "mov qword ptr [rsp + 48], {flags}",
    "mov [rsp + 56], rax",
    "mov qword ptr [rsp + 64], {user_data}",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    // From ring 0. A fault is reported as it is; an interrupt ends the wait: the caller's rip is in rcx, its rflags
    // in r11, its rsp in rdx.
    "4:",
    "cmp qword ptr [rsp + 16], 32",
    "jb 2b",
    "mov rcx, [rsp]",
    "mov [rsp + 32], rcx",
    "mov qword ptr [rsp + 40], {user_code}",
    "mov [rsp + 48], r11",
    "mov [rsp + 56], rdx",
    "mov qword ptr [rsp + 64], {user_data}",
    "jmp 2b",
    ".popsection",
    stub_size = const TRAP_STUB_SIZE,
    stack = sym HANDLER_STACK,
    stack_size = const HANDLER_STACK_SIZE,
    handler = sym enter_handler,
    user_code = const selector::USER_CODE,
    user_data = const selector::USER_DATA,
    flags = const HANDLER_FLAGS,
);

/// Completes the [`TrapFrame`] in ring 3, calls [`dispatch`](super::dispatch) and resumes from what it left there.
///
/// The SSE and x87 state is kept aside: handlers are compiled Rust, which uses it. They are not compiled for AVX, so
/// that the upper halves of its registers survive (SDM vol. 1 §14.1.3).
#[unsafe(naked)]
unsafe extern "C" fn enter_handler() {
    naked_asm!(
        "push rax", "push rcx", "push rdx", "push rbx", "push rbp", "push rsi", "push rdi",
        "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "mov rdi, rsp",
        "sub rsp, 8 + 512",
        "fxsave64 [rsp]",
        "call {dispatch}",
        "fxrstor64 [rsp]",
        "add rsp, 8 + 512",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
        "pop rdi", "pop rsi", "pop rbp", "pop rbx", "pop rdx", "pop rcx", "pop rax",
        "add rsp, 24",
        "iretq",
        dispatch = sym super::dispatch,
    )
}

const _: () = assert!(size_of::<TrapFrame>() == 15 * 8 + 64);
