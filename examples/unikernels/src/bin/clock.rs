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
/// Ticks of the time-stamp counter, a few seconds, after which a clock or a timer is given up.
const PATIENCE: u64 = 10_000_000_000;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<(), &'static str> {
    match (time::tsc_khz(), time::monotonic_ns()) {
        (Some(khz), Some(now)) => watch(khz, now)?,
        _ => println!("clock: nobody knows the frequency of the counter"),
    }
    // SAFETY: the handler leaves the frame alone.
    unsafe { set_handler(TIMER, Some(on_timer)) };
    apic::enable();
    // In this order: a wait without a timer has no end, so that the timer is tried on running code first.
    interrupt()?;
    wake_up()?;
    println!("clock: ok, {} interrupts handled", interrupts());
    Ok(())
}

/// Reads the clocks for five milliseconds. They must not run backwards, nor stand still.
fn watch(khz: u64, start: u64) -> Result<(), &'static str> {
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
        if time::tsc() - start_tsc > PATIENCE {
            return Err("the monotonic clock stands still");
        }
    }
    println!(
        "monotonic: {} ns passed in {} ticks, {backwards} steps backwards",
        last - start,
        time::tsc() - start_tsc
    );
    if backwards != 0 {
        return Err("the monotonic clock runs backwards");
    }
    match (wall, time::wall_clock_ns()) {
        (Some(before), Some(after)) => {
            let passed = after
                .checked_sub(before)
                .ok_or("the wall clock runs backwards")?;
            println!("wall clock: {after} ns since 1970, {passed} ns passed");
        }
        _ => println!("wall clock: not known"),
    }
    Ok(())
}

/// Has a timer end a wait, three times.
fn wake_up() -> Result<(), &'static str> {
    for expected in interrupts() + 1..=interrupts() + 3 {
        let start = time::tsc();
        apic::start_timer(TIMER, TICKS);
        ring0::wait_for_interrupt();
        if interrupts() < expected {
            return Err("something else than the timer ended the wait");
        }
        println!(
            "timer: woken {} ticks after a timer of 1 ms was set",
            time::tsc() - start
        );
    }
    Ok(())
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
