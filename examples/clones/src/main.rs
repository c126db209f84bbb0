//! Many machines of one snapshot in one process: what hosts of short functions do, with a clock beside it.
//!
//! ```sh
//! clones freeze IMAGE DIRECTORY          # runs IMAGE to its first output, and saves it
//! clones measure DIRECTORY COUNT ALIVE   # makes machines of it, and says what they cost, as lines `name value ...`
//! clones save-again DIRECTORY COUNT SECONDS            # goes on, so long each time, and saves it over itself
//! clones reset-again DIRECTORY COUNT SECONDS [TO=FROM] # goes on, and is reset; the file TO becomes FROM's copy before
//! clones working-set DIRECTORY COUNT     # records what a machine touches, and says what others save by it
//! ```
//!
//! Machines that were made begin again behind the output at which the guest was saved: a guest to be measured writes forever.

mod again;
mod alive;
mod first_byte;
mod working_set;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use goldcrest_monitor::{
    CloneConfig, Image, Machine, MachineConfig, Output, Pool, SnapshotError, SnapshotFiles,
    SnapshotKind, StopReason, Template,
};
use goldcrest_vcpu::kvm::{Kvm, KvmVm};

use crate::first_byte::FirstByte;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["freeze", image, directory] => freeze(image, directory.as_ref()),
        ["measure", directory, count, alive] => {
            measure(directory.as_ref(), count.parse()?, alive.parse()?)
        }
        ["save-again", directory, count, seconds] => {
            let time = Duration::from_secs_f64(seconds.parse()?);
            again::save(directory.as_ref(), count.parse()?, time)
        }
        ["reset-again", directory, count, seconds, copies @ ..] => {
            let time = Duration::from_secs_f64(seconds.parse()?);
            again::reset(directory.as_ref(), count.parse()?, time, copies)
        }
        ["working-set", directory, count] => {
            working_set::measure(directory.as_ref(), count.parse()?)
        }
        _ => Err(
            "usage: clones freeze IMAGE DIRECTORY | measure DIRECTORY COUNT ALIVE | \
             save-again DIRECTORY COUNT SECONDS | reset-again DIRECTORY COUNT SECONDS [TO=FROM]... | \
             working-set DIRECTORY COUNT"
                .into(),
        ),
    }
}

/// Runs an image to its first output, and saves it.
fn freeze(image: &str, directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    let kvm = Kvm::open()?;
    let mut config = MachineConfig::new(Image::open(image)?);
    let control = config.control.clone();
    let first = FirstByte::new({
        let control = control.clone();
        move || control.ask_to_pause()
    });
    config.output = Output::new(first.clone());
    let machine = Machine::new(&kvm, &config)?;
    let running = thread::spawn(move || machine.run());
    first.wait();
    let files = SnapshotFiles::in_directory(directory);
    let saved = control.snapshot(&files, SnapshotKind::Full);
    control.stop(StopReason::Escape);
    let outcome = running
        .join()
        .map_err(|_| "the machine's thread panicked")?;
    match saved {
        Err(SnapshotError::NotRunning | SnapshotError::Ended) => {
            Err(format!("{image} ended before it could be saved: {}", outcome?).into())
        }
        saved => Ok(saved.map(drop)?),
    }
}

/// Says how long machines take to their first output, in nanoseconds, and what memory they need.
fn measure(directory: &Path, count: usize, alive: usize) -> Result<(), Failure> {
    let kvm = Kvm::open()?;
    let template = Arc::new(Template::open(&SnapshotFiles::in_directory(directory))?);

    let mut clones = Vec::new();
    let mut resets = Vec::new();
    for _ in 0..count {
        let (took, spent) = to_first_byte(|config| template.clone_machine(&kvm, config))?;
        clones.push(took);
        let (took, spent) = to_first_byte(|config| template.reset(spent, config))?;
        resets.push(took);
        drop(spent);
    }
    print_all("clone", &clones);
    print_all("reset", &resets);

    let pool = Pool::new(template.clone(), kvm.clone(), 4)?;
    let mut pooled = Vec::new();
    for _ in 0..count {
        while pool.ready() < 4 {
            thread::yield_now();
        }
        pooled.push(to_first_byte(|config| pool.clone_machine(config))?.0);
    }
    drop(pool);
    print_all("pooled", &pooled);
    alive::measure(&kvm, &template, &directory.join("memory"), alive)
}

fn print_all(name: &str, values: &[u128]) {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    println!("{name} {}", values.join(" "));
}

/// Makes a machine, and runs it to its first output.
fn to_first_byte<E: Error + Send + Sync + 'static>(
    make: impl FnOnce(CloneConfig) -> Result<Machine<KvmVm>, E>,
) -> Result<(u128, goldcrest_monitor::Spent<KvmVm>), Failure> {
    let mut config = CloneConfig::default();
    let first = FirstByte::new({
        let control = config.control.clone();
        move || control.stop(StopReason::Escape)
    });
    config.output = Output::new(first.clone());
    let (outcome, spent) = make(config)?.run_and_keep();
    outcome?;
    Ok((first.wait(), spent))
}
