//! Draws numbers, and begins anew when it finds that it was started from a snapshot: a clone must not draw what others do.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use goldcrest_guest::trap::{TrapFrame, set_handler};
use goldcrest_guest::{Options, apic, generation, println, ring0};

goldcrest_guest::main!(main, Options::new());

/// The vector of the timer, and how long it runs: 10 ms in ticks.
const TIMER: u8 = 0x40;
const TICKS: u32 = 10_000_000;

static STARTS: AtomicU32 = AtomicU32::new(1);

fn main() {
    println!("generation: start 1, seed {:016x}", seed());
    generation::on_change(begin_anew);
    // SAFETY: the handler leaves the frame alone.
    unsafe { set_handler(TIMER, Some(on_timer)) };
    apic::enable();
    while STARTS.load(Ordering::Relaxed) < 3 {
        apic::start_timer(TIMER, TICKS);
        ring0::wait_for_interrupt();
    }
    println!("generation: done");
}

/// What a random number generator would start from.
fn seed() -> u64 {
    let [low, high] = *generation::id().as_chunks::<8>().0 else {
        return 0;
    };
    u64::from_le_bytes(low) ^ u64::from_le_bytes(high)
}

fn begin_anew() {
    let start = STARTS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("generation: start {start}, seed {:016x}", seed());
}

fn on_timer(_: &mut TrapFrame) {
    apic::end_of_interrupt();
}
