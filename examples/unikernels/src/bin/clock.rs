//! Shows that time passes, and at what rate; then lets a timer interrupt the processor.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use goldcrest_guest::trap::{TrapFrame, set_handler};
use goldcrest_guest::{Options, apic, args, println, ring0, time};

goldcrest_guest::main!(main, Options::new().clock());

/// The vector of the timer.
const TIMER: u8 = 0x40;
/// A millisecond in ticks of the APIC's timer.
const TICKS: u32 = 1_000_000;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn main() -> u32 {
    let source = if time::clock_page().is_some() {
        "clock page"
    } else {
        "time-stamp counter"
    };
    println!(
        "clock: from the {source}, counter at {:?} kHz",
        time::tsc_khz()
    );
    let (Some(start), first) = (time::monotonic_ns(), time::wall_clock_ns()) else {
        println!("clock: nobody knows the frequency of the counter");
        return 1;
    };
    let (start_tsc, mut last) = (time::tsc(), start);
    let mut backwards = 0;
    while last < start + 5_000_000 {
        let now = time::monotonic_ns().unwrap_or(0);
        backwards += u32::from(now < last);
        last = now;
    }
    println!(
        "monotonic: {} ns passed in {} ticks, {backwards} steps backwards",
        last - start,
        time::tsc() - start_tsc
    );
    match (first, time::wall_clock_ns()) {
        (Some(before), Some(after)) => println!(
            "wall clock: {after} ns since 1970, {} ns passed",
            after - before
        ),
        _ => println!("wall clock: not known"),
    }
    if args().any(|argument| argument == "no-timer") {
        return 0;
    }
    timer()
}

/// Interrupts running code once, then waits for a few.
fn timer() -> u32 {
    set_handler(TIMER, Some(on_timer));
    apic::enable();
    for _ in 0..3 {
        let before = time::monotonic_ns().unwrap_or(0);
        apic::start_timer(TIMER, TICKS);
        ring0::wait_for_interrupt();
        let took = time::monotonic_ns().unwrap_or(0) - before;
        println!(
            "timer: woken after {took} ns, {} interrupts",
            INTERRUPTS.load(Ordering::Relaxed)
        );
    }
    ring0::enable_interrupts();
    for expected in 4..=6 {
        apic::start_timer(TIMER, TICKS);
        let start = time::monotonic_ns().unwrap_or(0);
        while INTERRUPTS.load(Ordering::Relaxed) < expected {
            if time::monotonic_ns().unwrap_or(0) - start > 1_000_000_000 {
                println!("timer: running code was not interrupted");
                return 1;
            }
        }
    }
    ring0::disable_interrupts();
    println!("timer: 6 interrupts handled, 3 of them in running code");
    0
}

fn on_timer(_: &mut TrapFrame) {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    apic::end_of_interrupt();
}
