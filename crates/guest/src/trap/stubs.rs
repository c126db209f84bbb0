//! From the processor's trap to a Rust function in ring 3 and back.
//!
//! Traps arrive in ring 0. There, as little as possible is done, with the plainest instructions: some hosts emulate
//! ring 0, slowly and not completely. The stub moves what the processor pushed to the stack of the handler and leaves
//! for ring 3, all other registers untouched; everything else happens there, like the delivery of a signal:
//!
//! - The handler runs on a stack of its own, as the interrupted code may have run out of its stack. A trap within a
//!   handler continues below the red zone of the interrupted one (System V ABI §3.2.2: 128 bytes).
//! - It runs with interrupts disabled.
//! - When it returns, `iretq` resumes the interrupted code without going through ring 0, unless interrupts have to be
//!   enabled: on some hosts only ring 0 can do that.
//!
//! Ring 0 is also where [`ring0`] does its work, on the same stack. The way there is an undefined instruction at a known
//! place rather than `syscall` or `int`, because those do not reach ring 0 on every host.
//!
//! Interrupts find the processor in ring 0 only while it waits for one. There is nothing to go back to, then: the stub
//! makes it look as if the wait had just returned to ring 3.
#![allow(
    unsafe_code,
    reason = "trap entry is assembly; its stacks are raw memory"
)]

use core::arch::global_asm;
use core::cell::UnsafeCell;

use goldcrest_abi::{note::TRAP_STUB_SIZE, selector};

use super::TrapFrame;
use crate::ring0;

/// The interrupt flag of `rflags`.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// IOPL 3 of `rflags`.
const IO_PRIVILEGE: u64 = 3 << 12;
/// IOPL 3 and the bit that is always set: how handlers run.
const HANDLER_FLAGS: u64 = IO_PRIVILEGE | 1 << 1;

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

/// Where traps arrive, and where ring 0 works.
pub(crate) static TRAP_STACK: Stack<{ 8 * 1024 }> = Stack::new();
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
// In `goldcrest_trap`, offsets from rsp are, after the two pushes: 0 rcx, 8 rax, 16 vector, 24 error code, 32 rip, 40
// cs, 48 rflags, 56 rsp, 64 ss. The block that is passed on has the same order from the vector on, and CR2 in front.
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
    "jz .Lgoldcrest_from_ring0",
    "cmp qword ptr [rsp + 16], 6",
    "je .Lgoldcrest_undefined",
    // Within a handler: below the red zone of what was interrupted. Else: at the top of the handler stack.
    ".Lgoldcrest_deliver:",
    "mov rax, [rsp + 56]",
    "lea rcx, [rip + {stack}]",
    "cmp rax, rcx",
    "jb .Lgoldcrest_fresh_stack",
    "add rcx, {stack_size}",
    "cmp rax, rcx",
    "ja .Lgoldcrest_fresh_stack",
    "sub rax, 128",
    "jmp .Lgoldcrest_move",
    ".Lgoldcrest_fresh_stack:",
    "lea rax, [rip + {stack} + {stack_size}]",
    ".Lgoldcrest_move:",
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
    "lea rcx, [rip + goldcrest_handler]",
    "mov [rsp + 32], rcx",
    "mov qword ptr [rsp + 40], {user_code}",
    "mov qword ptr [rsp + 48], {flags}",
    "mov [rsp + 56], rax",
    "mov qword ptr [rsp + 64], {user_data}",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    // From ring 0. A fault is reported as it is; an interrupt ends the wait: what ring 0 would have returned to is
    // what the interrupted rsp points to.
    ".Lgoldcrest_from_ring0:",
    "cmp qword ptr [rsp + 16], 32",
    "jb .Lgoldcrest_deliver",
    "call .Lgoldcrest_replace_frame",
    "jmp .Lgoldcrest_deliver",
    // Replaces the frame above the return address by the one that its rsp points to.
    ".Lgoldcrest_replace_frame:",
    "mov rax, [rsp + 64]",
    "mov rcx, [rax]",
    "mov [rsp + 40], rcx",
    "mov rcx, [rax + 8]",
    "mov [rsp + 48], rcx",
    "mov rcx, [rax + 16]",
    "mov [rsp + 56], rcx",
    "mov rcx, [rax + 24]",
    "mov [rsp + 64], rcx",
    "mov rcx, [rax + 32]",
    "mov [rsp + 72], rcx",
    "ret",
    // A handler is done, and what it interrupted had interrupts enabled.
    ".Lgoldcrest_resume:",
    "call .Lgoldcrest_replace_frame",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "or qword ptr [rsp + 16], {io_privilege}",
    "iretq",
    // An undefined instruction: a handler that is done, the gate, or somebody's mistake. What the gate is asked for is
    // in rdi. IOPL is set anew, as some hosts lose it.
    ".Lgoldcrest_undefined:",
    "lea rcx, [rip + goldcrest_resume]",
    "cmp [rsp + 32], rcx",
    "je .Lgoldcrest_resume",
    "lea rcx, [rip + {gate}]",
    "cmp [rsp + 32], rcx",
    "jne .Lgoldcrest_deliver",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "add qword ptr [rsp], 2",
    "or qword ptr [rsp + 16], {io_privilege}",
    "cmp edi, {wait}",
    "je .Lgoldcrest_wait",
    "cmp edi, {enable}",
    "je .Lgoldcrest_enable",
    "cmp edi, {disable}",
    "je .Lgoldcrest_disable",
    "mov rax, rsi",
    "mov rdi, rdx",
    "sub rsp, 8",
    "call rax",
    "add rsp, 8",
    "iretq",
    ".Lgoldcrest_wait:",
    "sti",
    "hlt",
    "cli",
    "iretq",
    ".Lgoldcrest_enable:",
    "or qword ptr [rsp + 16], {interrupt_flag}",
    "iretq",
    ".Lgoldcrest_disable:",
    "and qword ptr [rsp + 16], ~{interrupt_flag}",
    "iretq",
    // In ring 3: completes the `TrapFrame`, calls `dispatch` and resumes from what it left there. The SSE and x87 state
    // is kept aside: handlers are compiled Rust, which uses it. They are not compiled for AVX, so that the upper halves
    // of its registers survive (SDM vol. 1 §14.1.3).
    "goldcrest_handler:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "sub rsp, 8 + 512",
    "fxsave64 [rsp]",
    "call {dispatch}",
    "fxrstor64 [rsp]",
    "add rsp, 8 + 512",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rbp",
    "pop rbx",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 24",
    "test dword ptr [rsp + 16], {interrupt_flag}",
    "jnz goldcrest_resume",
    "iretq",
    "goldcrest_resume:",
    "ud2",
    ".popsection",
    stub_size = const TRAP_STUB_SIZE,
    stack = sym HANDLER_STACK,
    stack_size = const HANDLER_STACK_SIZE,
    dispatch = sym super::dispatch,
    user_code = const selector::USER_CODE,
    user_data = const selector::USER_DATA,
    flags = const HANDLER_FLAGS,
    gate = sym ring0::gate,
    io_privilege = const IO_PRIVILEGE,
    interrupt_flag = const INTERRUPT_FLAG,
    wait = const ring0::WAIT,
    enable = const ring0::ENABLE,
    disable = const ring0::DISABLE,
);

const _: () = assert!(size_of::<TrapFrame>() == 15 * 8 + 64);
