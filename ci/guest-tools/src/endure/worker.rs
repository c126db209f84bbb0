//! The computation of one CPU.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock::Clock;

/// The minimal standard generator (Park and Miller): 16807 is a primitive root of this prime.
pub const MODULUS: u64 = (1 << 31) - 1;
pub const FACTOR: u64 = 16807;
/// How many numbers are in memory: 512 KiB.
const HELD: usize = 64 << 10;
/// How many steps there are between two looks at the clock, and how long a pause, in which others have the CPU.
const STRIDE: usize = 1024;
const REST: Duration = Duration::from_millis(3);

/// The first number of a CPU's sequence.
pub fn seed(cpu: usize) -> u64 {
    cpu as u64 + 1
}

/// A CPU's sequence.
pub struct Worker {
    cpu: usize,
    place: Mutex<(u64, u64)>,
    wrong: AtomicU64,
}

impl Worker {
    pub fn new(cpu: usize) -> Self {
        Self {
            cpu,
            place: Mutex::new((0, seed(cpu))),
            wrong: AtomicU64::new(0),
        }
    }

    /// How many steps have been done, and the number after them.
    pub fn place(&self) -> (u64, u64) {
        *self.place.lock().expect("no thread panics with the lock")
    }

    /// How often what was read was not what was written.
    pub fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::SeqCst)
    }

    /// Computes until `ended`.
    pub fn run(&self, clock: &Clock, ended: &AtomicBool) {
        let mut cpus = CpuSet::new();
        if cpus.set(self.cpu).is_ok() {
            // Where it may not, it computes all the same.
            let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
        }
        let mut held = vec![0_u64; HELD];
        let (mut steps, mut value) = self.place();
        let mut behind = seed(self.cpu) as f64;
        while !ended.load(Ordering::Relaxed) {
            for _ in 0..STRIDE {
                let slot = &mut held[(steps % HELD as u64) as usize];
                if steps >= HELD as u64 {
                    // Written so many steps ago.
                    if *slot != behind as u64 {
                        self.wrong.fetch_add(1, Ordering::SeqCst);
                    }
                    behind = next(behind);
                }
                *slot = value;
                value = value * FACTOR % MODULUS;
                steps += 1;
            }
            *self.place.lock().expect("no thread panics with the lock") = (steps, value);
            clock.look();
            thread::sleep(REST);
        }
    }
}

/// The next number, in registers for floating-point numbers. All that is rounded is the quotient.
fn next(value: f64) -> f64 {
    let (product, modulus) = (value * FACTOR as f64, MODULUS as f64);
    let rest = product - (product / modulus).floor() * modulus;
    match rest {
        rest if rest < 0.0 => rest + modulus,
        rest if rest >= modulus => rest - modulus,
        rest => rest,
    }
}
