//! Goldcrest's guest firmware: finds a kernel on the machine's disks, and starts it.
//!
//! It is a unikernel (`goldcrest-guest`) that a host starts by PVH and tells of its virtio disks by words
//! `virtio_mmio.device=` on the command line. Like any other it runs in ring 3; the last thing it does is to leave for
//! the kernel in ring 0. What it reads and how it chooses is all in the crate `goldcrest-firmware`, which is tested and
//! fuzzed apart from any machine.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod ask;
mod block;
mod load;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use goldcrest_firmware::entry::{Entry, Program};
use goldcrest_firmware::{Printable, Survey, Words};
use goldcrest_guest::{Options, boot, handover, println, time, virtio};

use block::Statistics;
use load::Loaded;

goldcrest_guest::main!(main, Options::new().stack_size(512 * 1024));

/// Nothing was started.
const FAILED: u32 = 1;

/// Starts a kernel, or says on one line why not.
fn main() -> u32 {
    let begun = time::tsc();
    let statistics = Statistics::default();
    match prepare(&statistics) {
        Ok(None) => 0,
        // All drivers have been dropped, and their devices reset.
        Ok(Some(loaded)) => {
            if loaded.time {
                report(begun, &statistics);
            }
            let refusal = handover::start_linux(loaded.kernel, loaded.entry, loaded.boot_params);
            println!("firmware: {refusal}");
            FAILED
        }
        Err(why) => {
            println!("firmware: {why}");
            FAILED
        }
    }
}

/// Everything up to a kernel in memory; `None` if there was only something to be printed.
fn prepare(statistics: &Statistics) -> Result<Option<Loaded>, String> {
    if boot::memory_map().is_empty() {
        return Err("it has to be started by PVH, with a memory map (--protocol pvh)".to_string());
    }
    let words = Words::parse(boot::command_line(), virtio::is_announcement)
        .map_err(|word| format!("unknown word {}", Printable(&word)))?;
    let (disks, faults) = block::disks(statistics);
    let mut survey = Survey::of(&disks);
    survey.notes.extend(faults);
    let default = survey.choose(words.entry.as_deref())?;
    if words.list {
        list(&survey, default);
        return Ok(None);
    }
    let chosen = match words.entry {
        Some(_) => default,
        None => ask::ask(&survey, default, words.timeout),
    };
    let entry = survey.entries.get(chosen).ok_or("no entry was chosen")?;
    let mut loaded = start(entry, &words.kernel)
        .map_err(|why| format!("{} ({}): {why}", Printable(&entry.id), entry.place))?;
    loaded.time = words.time;
    Ok(Some(loaded))
}

fn start(entry: &Entry, words: &str) -> Result<Loaded, String> {
    match entry.program().map_err(|error| error.to_string())? {
        Program::Linux(program) => load::linux(&program, words),
        // What gives boot services goes here.
        Program::EfiApplication(_) => {
            Err("it is an EFI application, which needs more than this firmware has".to_string())
        }
        _ => Err("it is of an unknown kind".to_string()),
    }
}

/// Prints the entries, the one that would be started marked.
fn list(survey: &Survey, default: usize) {
    for (index, entry) in survey.entries.iter().enumerate() {
        let mark = if index == default { '>' } else { ' ' };
        let details: Vec<_> = [entry.version.as_deref(), Some(&*entry.place)]
            .into_iter()
            .flatten()
            .collect();
        println!(
            "{mark} {}: {} ({})",
            Printable(&entry.id),
            Printable(entry.name()),
            Printable(&details.join(", "))
        );
        match entry.program() {
            Ok(Program::Linux(program)) => println!("    {}", Printable(&program.cmdline)),
            Ok(_) => println!("    an EFI application, which is not started"),
            Err(error) => println!("    {error}"),
        }
    }
    for note in &survey.notes {
        println!("{}", Printable(note));
    }
}

/// Says how long it took, and how much of that was the disks'.
fn report(begun: u64, statistics: &Statistics) {
    let all = time::tsc().saturating_sub(begun);
    time::calibrate();
    let khz = time::tsc_khz().unwrap_or(0);
    let microseconds = |ticks: u64| ticks.saturating_mul(1000).checked_div(khz).unwrap_or(0);
    println!(
        "firmware: {} us, {} us of them for {} requests to disks, {} KiB",
        microseconds(all),
        microseconds(statistics.ticks()),
        statistics.requests(),
        statistics.bytes() / 1024
    );
}
