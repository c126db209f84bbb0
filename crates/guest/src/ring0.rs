//! The little that only ring 0 can do: enabling interrupts, waiting for one, privileged instructions.
//!
//! A unikernel runs in ring 3 and enters ring 0 by `syscall` for single functions. It comes back by `iretq` rather than
//! `sysret`: on hosts that emulate ring 0, that is also the quicker way.
#![allow(unsafe_code, reason = "crossing privilege levels is assembly")]

use core::arch::{asm, naked_asm};

use goldcrest_abi::selector;

use crate::trap::stubs::Stack;

/// The stack that ring 0 runs on.
static CALL_STACK: Stack<CALL_STACK_SIZE> = Stack::new();
const CALL_STACK_SIZE: usize = 8 * 1024;

/// The interrupt flag of `rflags`.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// IOPL 3 of `rflags`.
const IO_PRIVILEGE: u64 = 3 << 12;

/// What [`enter`] is asked for, in `eax`.
const CALL: u64 = 0;
const WAIT: u64 = 1;
const ENABLE: u64 = 2;
const DISABLE: u64 = 3;

/// A function that [`call`] runs in ring 0.
pub type Function = unsafe extern "C" fn(u64) -> u64;

/// Runs `function` in ring 0 with interrupts disabled and gives what it returns.
///
/// A fault in it cannot be handled: it is reported and ends the machine.
///
/// # Safety
///
/// What the function does must be sound. It has 8 KiB of stack and must leave interrupts disabled. Some hosts emulate ring
/// 0 and know only the plainest integer instructions there; what the compiler emits may include others, so that the
/// function should be written in assembly.
pub unsafe fn call(function: Function, argument: u64) -> u64 {
    // SAFETY: the caller vouches for the function.
    unsafe { enter(CALL, function as usize as u64, argument) }
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: changes the interrupt flag and nothing else.
    unsafe { enter(ENABLE, 0, 0) };
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: changes the interrupt flag and nothing else.
    unsafe { enter(DISABLE, 0, 0) };
}

/// Stops the processor until an interrupt has been handled, whether or not interrupts are enabled otherwise.
///
/// An interrupt that arrived before, while interrupts were disabled, ends the wait at once: disable them, look whether
/// there is anything to wait for, then wait, and no wake-up is lost.
pub fn wait_for_interrupt() {
    // SAFETY: enables interrupts for the wait only, and whatever handles them has been set up for it.
    unsafe { enter(WAIT, 0, 0) };
}

/// # Safety
///
/// That of what is asked for.
unsafe fn enter(what: u64, first: u64, second: u64) -> u64 {
    let result;
    // SAFETY: `goldcrest_syscall` changes only what is declared here, and so does every function of the C ABI that it
    // may call. It uses no memory of ring 3's stack.
    unsafe {
        asm!("syscall", inlateout("rax") what => result, inlateout("rdi") first => _, inlateout("rsi") second => _,
             clobber_abi("sysv64"));
    }
    result
}

/// Where `syscall` arrives: rip is in rcx, rflags in r11, the stack is still the caller's, interrupts are disabled.
///
/// The frame for `iretq` is built first: offset 0 rip, 8 cs, 16 rflags, 24 rsp, 32 ss. IOPL is set anew: on some hosts
/// r11 does not have it. While waiting, rcx, r11 and rdx stay as they are, for the trap stub to find.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "or r11, {io_privilege}",
        "mov rdx, rsp",
        "lea rsp, [rip + {stack} + {stack_size}]",
        "push {user_data}",
        "push rdx",
        "push r11",
        "push {user_code}",
        "push rcx",
        "cmp eax, {wait}",
        "je 2f",
        "cmp eax, {enable}",
        "je 3f",
        "cmp eax, {disable}",
        "je 4f",
        "mov rax, rdi",
        "mov rdi, rsi",
        "sub rsp, 8",
        "call rax",
        "add rsp, 8",
        "iretq",
        "2:",
        "sti",
        "hlt",
        "cli",
        "iretq",
        "3:",
        "or qword ptr [rsp + 16], {interrupt_flag}",
        "iretq",
        "4:",
        "and qword ptr [rsp + 16], ~{interrupt_flag}",
        "iretq",
        stack = sym CALL_STACK,
        stack_size = const CALL_STACK_SIZE,
        user_code = const selector::USER_CODE,
        user_data = const selector::USER_DATA,
        io_privilege = const IO_PRIVILEGE,
        interrupt_flag = const INTERRUPT_FLAG,
        wait = const WAIT,
        enable = const ENABLE,
        disable = const DISABLE,
    )
}
