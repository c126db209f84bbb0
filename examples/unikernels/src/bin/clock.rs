//! Shows that time passes, and at what rate; then lets a timer interrupt the processor.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use goldcrest_guest::trap::{TrapFrame, set_handler};
use goldcrest_guest::{Options, apic, println, ring0, time};

goldcrest_guest::main!(main, Options::new().clock());

/// The vector of the timer.
const TIMER: u8 = 0x40;
/// A millisecond in ticks of the APIC's timer.
const TICKS: u32 = 1_000_000;
/// Ticks of the time-stamp counter, a few seconds, after which a timer is given up.
const PATIENCE: u64 = 10_000_000_000;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<(), &'static str> {
    match (time::tsc_khz(), time::monotonic_ns()) {
        (Some(khz), Some(now)) => watch(khz, now),
        _ => println!("clock: nobody knows the frequency of the counter"),
    }
    set_handler(TIMER, Some(on_timer));
    apic::enable();
    wake_up();
    interrupt()?;
    println!("clock: ok, {} interrupts handled", interrupts());
    Ok(())
}

/// Reads the clocks for five milliseconds.
fn watch(khz: u64, start: u64) {
    let source = if time::clock_page().is_some() {
        "clock page"
    } else {
        "time-stamp counter"
    };
    println!("clock: from the {source}, counter at {khz} kHz");
    let (start_tsc, wall, mut last, mut backwards) = (time::tsc(), time::wall_clock_ns(), start, 0);
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
    match (wall, time::wall_clock_ns()) {
        (Some(before), Some(after)) => println!(
            "wall clock: {after} ns since 1970, {} ns passed",
            after - before
        ),
        _ => println!("wall clock: not known"),
    }
}

/// Has a timer end a wait, three times.
fn wake_up() {
    for _ in 0..3 {
        let start = time::tsc();
        apic::start_timer(TIMER, TICKS);
        ring0::wait_for_interrupt();
        println!(
            "timer: woken {} ticks after a timer of 1 ms was set",
            time::tsc() - start
        );
    }
}

/// Has a timer interrupt running code, three times.
fn interrupt() -> Result<(), &'static str> {
    ring0::enable_interrupts();
    for expected in interrupts() + 1..=interrupts() + 3 {
        let start = time::tsc();
        apic::start_timer(TIMER, TICKS);
        while interrupts() < expected {
            if time::tsc() - start > PATIENCE {
                return Err("the timer does not interrupt running code");
            }
        }
    }
    ring0::disable_interrupts();
    Ok(())
}

fn on_timer(_: &mut TrapFrame) {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    apic::end_of_interrupt();
}

fn interrupts() -> u32 {
    INTERRUPTS.load(Ordering::Relaxed)
}
