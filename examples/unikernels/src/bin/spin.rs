//! Measures a loop in ring 3 and in ring 0. The argument is the number of iterations, 100,000 by default.
//!
//! Where a processor runs guests itself, the two are equal; where ring 0 is emulated, they are not.
#![no_std]
#![no_main]

use core::arch::naked_asm;

use goldcrest_guest::{Options, args, println, ring0, time};

goldcrest_guest::main!(main, Options::new().clock());

fn main() -> u32 {
    let Some(iterations) = args()
        .next()
        .map_or(Some(100_000), |argument| argument.parse().ok())
    else {
        println!("usage: spin [ITERATIONS]");
        return 2;
    };
    // SAFETY: the loop takes any number, and touches no memory.
    report("ring 3", iterations, || unsafe { spin(iterations) });
    // SAFETY: as above; it consists of plain integer instructions, as ring 0 wants.
    report("ring 0", iterations, || unsafe {
        ring0::call(spin, iterations)
    });
    println!("spin: done");
    0
}

fn report(ring: &str, iterations: u64, spin: impl Fn() -> u64) {
    let (start, ticks) = (time::monotonic_ns(), time::tsc());
    spin();
    let ticks = time::tsc() - ticks;
    let (Some(start), Some(end)) = (start, time::monotonic_ns()) else {
        println!("{ring}: {iterations} iterations in {ticks} ticks, of unknown length");
        return;
    };
    let picoseconds = ((end - start) * 1000).checked_div(iterations).unwrap_or(0);
    let (whole, thousandths) = (picoseconds / 1000, picoseconds % 1000);
    println!("{ring}: {iterations} iterations in {ticks} ticks, {whole}.{thousandths:03} ns each");
}

/// Counts its argument down to zero.
#[unsafe(naked)]
unsafe extern "C" fn spin(iterations: u64) -> u64 {
    naked_asm!(
        "test rdi, rdi",
        "jz 3f",
        "2:",
        "dec rdi",
        "jnz 2b",
        "3:",
        "xor eax, eax",
        "ret"
    )
}
