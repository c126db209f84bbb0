//! Does what it should not, and shows what becomes of it. The argument chooses the fault.
#![no_std]
#![no_main]

use core::arch::asm;

use goldcrest_guest::trap::{TrapFrame, set_handler, vector};
use goldcrest_guest::{args, println};

goldcrest_guest::main!(main);

const USAGE: &str =
    "arguments: null | unmapped | guard | write-code | exec-data | ud | div | breakpoint";

fn main() -> u32 {
    let what = args().next().unwrap_or("unmapped");
    println!("about to try: {what}");
    match what {
        "null" => read(core::ptr::null()),
        // Canonical, and above what any machine maps for us.
        "unmapped" => read(core::ptr::without_provenance(0x7fff_dead_b000)),
        "guard" => {
            println!("stack used up: {}", use_up_the_stack(0));
        }
        "write-code" => write(main as fn() -> u32 as *mut u8),
        "exec-data" => execute(&raw const DATA),
        // SAFETY: #UD is what is wanted.
        "ud" => unsafe { asm!("ud2") },
        "div" => divide_by_zero(),
        "breakpoint" => return breakpoint(),
        _ => {
            println!("{USAGE}");
            return 2;
        }
    }
    println!("fault: nothing happened");
    1
}

/// `ret`, where code has no business.
static mut DATA: u8 = 0xc3;

fn read(from: *const u8) {
    // SAFETY: not at all: the fault is what is wanted. In assembly, so that the compiler cannot tell.
    unsafe {
        asm!("mov {value}, [{from}]", from = in(reg) from, value = out(reg) _, options(nostack))
    };
}

fn write(to: *mut u8) {
    // SAFETY: as in `read`.
    unsafe { asm!("mov byte ptr [{to}], 0", to = in(reg) to, options(nostack)) };
}

fn execute(code: *const u8) {
    // SAFETY: as in `read`; if it did not fault, it would return at once.
    unsafe { asm!("call {code}", code = in(reg) code, clobber_abi("C")) };
}

fn divide_by_zero() {
    // SAFETY: as in `read`.
    unsafe {
        asm!("div {zero:r}", zero = in(reg) 0, inout("rax") 1 => _, inout("rdx") 0 => _, options(nostack))
    };
}

#[allow(unconditional_recursion, reason = "that is the point")]
#[inline(never)]
fn use_up_the_stack(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    use_up_the_stack(depth + 1) + frame[0]
}

/// Breakpoints are handled and resumed; registers, also those of SSE, and the red zone are as before.
/// The status is 1 if they are not.
fn breakpoint() -> u32 {
    // SAFETY: the handler changes rax only, which the code around the breakpoint declares.
    unsafe { set_handler(vector::BREAKPOINT, Some(on_breakpoint)) };
    let (mut intact, mut wide): (u64, u64) = (0x1234_5678_9abc_def0, 1);
    for _ in 0..3 {
        // SAFETY: the handler changes nothing but rax, which is declared.
        unsafe {
            asm!("mov [rsp - 128], {intact}", "movq xmm5, {intact}", "int3", "movq {wide}, xmm5",
                 "mov {intact}, [rsp - 128]", intact = inout(reg) intact, wide = inout(reg) wide,
                 out("xmm5") _, out("rax") _);
        }
    }
    let all_intact = intact == 0x1234_5678_9abc_def0 && wide == intact;
    println!("breakpoint: 3 resumed, registers intact: {all_intact}");
    u32::from(!all_intact)
}

fn on_breakpoint(frame: &mut TrapFrame) {
    println!("breakpoint at {:#x}", frame.rip - 1);
    // Use SSE, as any handler may.
    // SAFETY: declared.
    unsafe { asm!("pcmpeqb xmm5, xmm5", out("xmm5") _) };
    frame.rax = 1;
}
