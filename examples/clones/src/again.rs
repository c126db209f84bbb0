//! A machine that goes on again and again in one process, which must not grow.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_monitor::{
    CloneConfig, Control, Machine, Outcome, Output, RestoreConfig, SnapshotFiles, SnapshotKind,
    Spent, StopReason, Template,
};
use goldcrest_vcpu::kvm::{Kvm, KvmVm};

use crate::Failure;

/// KiB that the process may have more in the end.
const MARGIN: u64 = 8 << 10;
/// How long the host may take to be rid of a thread that has ended.
const MOMENT: Duration = Duration::from_secs(10);

/// What a process has that may leak.
#[derive(Clone)]
struct Resources {
    descriptors: usize,
    /// Their names.
    threads: Vec<String>,
    /// KiB that it shares with nobody and that no file has.
    anonymous: u64,
}

/// Restores the snapshot so many times, and saves it over itself after so long.
pub(crate) fn save(directory: &Path, count: usize, time: Duration) -> Result<(), Failure> {
    let kvm = Kvm::open()?;
    let files = SnapshotFiles::in_directory(directory);
    let mut first = None;
    for round in 1..=count {
        let config = RestoreConfig {
            machine: CloneConfig {
                output: Output::new(io::stdout()),
                ..CloneConfig::default()
            },
            ..RestoreConfig::new(files.clone())
        };
        let control = config.machine.control.clone();
        let machine = Machine::restore(&kvm, &config)?;
        let (saved, _) = go_on(machine, &control, time, || {
            control.pause();
            control.snapshot(&files, SnapshotKind::Full)
        })?;
        let saved = saved?;
        println!("saved in {} ms", saved.took.as_millis());
        drop(config);
        compare(round, &mut first)?;
    }
    Ok(())
}

/// Makes a machine of the snapshot, which is reset after so long, so many times.
pub(crate) fn reset(
    directory: &Path,
    count: usize,
    time: Duration,
    copies: &[&str],
) -> Result<(), Failure> {
    let kvm = Kvm::open()?;
    let template = Template::open(&SnapshotFiles::in_directory(directory))?;
    let mut left = None;
    let mut first = None;
    for round in 1..=count {
        for copy in copies {
            let (to, from) = copy.split_once('=').ok_or("a copy is TO=FROM")?;
            fs::copy(from, to)?;
        }
        let config = CloneConfig {
            output: Output::new(io::stdout()),
            ..CloneConfig::default()
        };
        let control = config.control.clone();
        let machine = match left.take() {
            Some(blank) => template.fill(blank, config)?,
            None => template.clone_machine(&kvm, config)?,
        };
        let ((), spent) = go_on(machine, &control, time, || ())?;
        // What the guest wrote goes back to the host: it is not counted.
        left = Some(template.clean(spent)?);
        compare(round, &mut first)?;
    }
    Ok(())
}

/// Runs a machine for so long, does what is `last` with it, and stops it.
fn go_on<T>(
    machine: Machine<KvmVm>,
    control: &Arc<Control>,
    time: Duration,
    last: impl FnOnce() -> T,
) -> Result<(T, Spent<KvmVm>), Failure> {
    let running = thread::spawn(move || machine.run_and_keep());
    thread::sleep(time);
    let result = last();
    control.stop(StopReason::Escape);
    let (outcome, spent) = running
        .join()
        .map_err(|_| "the machine's thread panicked")?;
    match outcome? {
        Outcome::Stopped(_) => Ok((result, spent)),
        outcome => Err(format!("the machine ended by itself: {outcome}").into()),
    }
}

/// Says what the process has after this round, which may not be more than after the first.
fn compare(round: usize, first: &mut Option<Resources>) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut now = Resources::now()?;
    let before = first.get_or_insert_with(|| now.clone());
    // A thread that was waited for may be seen for a moment more.
    while now.is_more_than(before) && begun.elapsed() < MOMENT {
        thread::sleep(Duration::from_millis(10));
        now = Resources::now()?;
    }
    // The guest may have been stopped in the middle of a line.
    println!("\nROUND {round}: {now}");
    match now.is_more_than(before) {
        true => Err(format!("it was less after the first: {before}").into()),
        false => Ok(()),
    }
}

impl Resources {
    fn is_more_than(&self, before: &Self) -> bool {
        self.descriptors > before.descriptors
            || self.threads.len() > before.threads.len()
            || self.anonymous > before.anonymous + MARGIN
    }

    fn now() -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status")?;
        let anonymous = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let anonymous = anonymous.and_then(|line| line.split_whitespace().next());
        Ok(Self {
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            threads: threads()?,
            anonymous: anonymous
                .ok_or("no RssAnon in /proc/self/status")?
                .parse()?,
        })
    }
}

/// The names of this process's threads. One that ends meanwhile has none.
fn threads() -> io::Result<Vec<String>> {
    let tasks = fs::read_dir("/proc/self/task")?;
    let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join("comm"));
    Ok(tasks
        .filter_map(|task| Some(name(task).ok()?.trim_end().to_owned()))
        .collect())
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            threads,
            anonymous,
        } = self;
        write!(
            f,
            "{descriptors} descriptors, {} threads ({}), {anonymous} KiB of its own",
            threads.len(),
            threads.join(", ")
        )
    }
}
