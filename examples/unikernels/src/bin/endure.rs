//! Computes, writes to a disk and reads from it, looks at its clocks and waits for a timer, again and again: whatever a
//! machine that is saved and restored meanwhile loses, or does twice, shows.
//!
//! `endure [ROUNDS]` ends with 0 and prints a sum that depends on ROUNDS alone (2000 without an argument). The first disk,
//! if there is one, must have 64 KiB or more, and loses what it had.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use goldcrest_guest::trap::{TrapFrame, set_handler};
use goldcrest_guest::virtio::{Block, is_announcement};
use goldcrest_guest::{Options, apic, args, println, ring0, time};

goldcrest_guest::main!(main, Options::new().clock());

const SECTOR: usize = Block::SECTOR as usize;
/// Sectors that are used, one after the other.
const SECTORS: u64 = 128;
/// How many rounds one wait for the timer belongs to.
const WAIT_EVERY: u64 = 64;
/// The vector of the timer, and how many of its ticks are a millisecond.
const TIMER: u8 = 0x40;
const TICKS: u32 = 1_000_000;

/// Ticks of the time-stamp counter, longer than a machine is ever saved, after which the timer is given up.
const PATIENCE: u64 = 1 << 38;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<(), &'static str> {
    let word = args().find(|word| !is_announcement(word));
    let rounds = word.map_or(Ok(2000), |word| {
        word.parse().map_err(|_| "usage: endure [ROUNDS]")
    })?;
    // SAFETY: the handler leaves the frame alone.
    unsafe { set_handler(TIMER, Some(on_timer)) };
    apic::enable();
    let mut disk = Block::first().ok();
    let mut clock = Clock::new();
    let mut table: Vec<u64> = (0..8192).collect();
    let mut sum = 1_u64;
    println!("endure: begins");
    for round in 0..rounds {
        sum = compute(&mut table, sum);
        if let Some(disk) = &mut disk {
            use_disk(disk, round, sum)?;
        }
        clock.look()?;
        if round % WAIT_EVERY == 0 {
            wait()?;
        }
    }
    println!("endure: longest round {} us", clock.longest / 1000);
    println!("endure: sum {sum:016x}");
    Ok(())
}

/// Changes a table, and gives a sum of what was in it.
fn compute(table: &mut [u64], mut sum: u64) -> u64 {
    for word in table {
        sum = (sum ^ *word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        *word = word.wrapping_add(sum);
    }
    sum
}

/// Writes a sector, and looks whether one that was written before is as it was.
fn use_disk(disk: &mut Block, round: u64, sum: u64) -> Result<(), &'static str> {
    let mut sector = vec![0; SECTOR];
    sector[..8].copy_from_slice(&round.to_le_bytes());
    sector[8..16].copy_from_slice(&sum.to_le_bytes());
    disk.write(round % SECTORS, &sector)
        .map_err(|_| "a sector cannot be written")?;
    let Some(before) = round.checked_sub(SECTORS / 2) else {
        return Ok(());
    };
    disk.read(before % SECTORS, &mut sector)
        .map_err(|_| "a sector cannot be read")?;
    match sector[..8] == before.to_le_bytes() {
        true => Ok(()),
        false => Err("a sector is not as it was written"),
    }
}

/// The clocks, as they were last.
struct Clock {
    monotonic: Option<u64>,
    wall: Option<u64>,
    tsc: u64,
    /// The most nanoseconds from one look to the next.
    longest: u64,
}

impl Clock {
    fn new() -> Self {
        Self {
            monotonic: time::monotonic_ns(),
            wall: time::wall_clock_ns(),
            tsc: time::tsc(),
            longest: 0,
        }
    }

    /// They must not have gone back.
    fn look(&mut self) -> Result<(), &'static str> {
        let now = Self::new();
        if now.tsc < self.tsc {
            return Err("the time-stamp counter went back");
        }
        if now.wall < self.wall {
            return Err("the wall clock went back");
        }
        let passed = match (self.monotonic, now.monotonic) {
            (Some(before), Some(now)) => now
                .checked_sub(before)
                .ok_or("the monotonic clock went back")?,
            _ => 0,
        };
        *self = Self {
            longest: self.longest.max(passed),
            ..now
        };
        Ok(())
    }
}

/// Has a timer of a millisecond interrupt running code.
fn wait() -> Result<(), &'static str> {
    let before = INTERRUPTS.load(Ordering::Relaxed);
    ring0::enable_interrupts();
    apic::start_timer(TIMER, TICKS);
    let start = time::tsc();
    while INTERRUPTS.load(Ordering::Relaxed) == before {
        if time::tsc() - start > PATIENCE {
            return Err("the timer does not interrupt");
        }
    }
    ring0::disable_interrupts();
    Ok(())
}

fn on_timer(_: &mut TrapFrame) {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    apic::end_of_interrupt();
}
