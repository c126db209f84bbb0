//! Computes on all CPUs for as long as its standard input is open, and looks whether anything is lost or done twice: what a
//! machine does that is saved and restored in the middle of it.
//!
//! ```text
//! endure          goes on until its standard input ends
//! endure check    reads what others of these have printed, one after the other, and says what is wrong of it
//! ```
//!
//! Each thread has a CPU of its own, a sequence of numbers in which each follows from the one before, the same once more in
//! floating-point numbers, which is some way behind, and the numbers between in memory. It compares what it reads with what
//! it computes. All threads look at the clock in turn, which must not go back. Once a second a line is printed:
//!
//! ```text
//! ENDURE monotonic=MS real=MS longest=MS back=COUNT wrong=COUNT STEPS:VALUE STEPS:VALUE ;
//! ```
//!
//! `longest` is how long no thread had looked at the clock, at most, since the line before; `back` how often the clock had
//! gone back; `STEPS:VALUE` is where each CPU's sequence is. Its value can be computed from the number of steps at once:
//! `check` does, and that no count is smaller than in the line before. A line in whose middle a machine was saved, so that
//! it has no end, or something else in it, is left out.

mod check;
mod clock;
mod worker;

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clock::Clock;
use worker::Worker;

/// How often a line is printed.
const INTERVAL: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None => endure(),
        Some("check") => check::check(),
        Some(other) => {
            eprintln!("endure: unknown word {other}");
            ExitCode::FAILURE
        }
    }
}

fn endure() -> ExitCode {
    let ended = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(Clock::default());
    let cpus = thread::available_parallelism().map_or(1, |count| count.get());
    let workers: Vec<_> = (0..cpus).map(|cpu| Arc::new(Worker::new(cpu))).collect();
    let threads: Vec<_> = workers
        .iter()
        .map(|worker| {
            let (worker, clock, ended) = (worker.clone(), clock.clone(), ended.clone());
            thread::spawn(move || worker.run(&clock, &ended))
        })
        .collect();
    thread::spawn({
        let ended = ended.clone();
        move || {
            let mut rest = Vec::new();
            let _ = io::stdin().read_to_end(&mut rest);
            ended.store(true, Ordering::SeqCst);
        }
    });
    let mut waited = Duration::ZERO;
    while !ended.load(Ordering::SeqCst) {
        thread::sleep(POLL);
        waited += POLL;
        if waited >= INTERVAL {
            waited = Duration::ZERO;
            println!("{}", line(&clock, &workers));
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            return ExitCode::FAILURE;
        }
    }
    println!("{} end", line(&clock, &workers));
    ExitCode::SUCCESS
}

fn line(clock: &Clock, workers: &[Arc<Worker>]) -> String {
    let wrong: u64 = workers.iter().map(|worker| worker.wrong()).sum();
    let places: Vec<_> = workers
        .iter()
        .map(|worker| {
            let (steps, value) = worker.place();
            format!("{steps}:{value}")
        })
        .collect();
    format!(
        "ENDURE {} wrong={wrong} {} ;",
        clock.report(),
        places.join(" ")
    )
}
