//! A unikernel that begins anew when it is told that it is another machine: once by each restore, clone and reset, and
//! never when it was only paused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use goldcrest_monitor::{CloneConfig, Outcome, Output, SnapshotFiles, StopReason, Template};
use goldcrest_vcpu::kvm::Kvm;
use nix::sys::signal::Signal;
use support::served::serve;
use support::{LIMIT, Running, goldcrest, run, skip_without_kvm, unikernel};
use tempfile::TempDir;

/// What it says when it is told for the first time; the second time, it ends.
const TOLD: &str = "generation: start 2, seed ";
/// In this time it looks many times whether it is another.
const WHILE: Duration = Duration::from_millis(300);

/// What guests that were told once have drawn.
struct Drawn(BTreeSet<String>);

impl Drawn {
    /// From all that a guest has said.
    #[track_caller]
    fn add(&mut self, said: &str) {
        let seed = said.strip_prefix(TOLD).and_then(|s| s.strip_suffix('\n'));
        let seed = seed.unwrap_or_else(|| panic!("not told just once: {said:?}"));
        assert_eq!(seed.len(), 16, "{said:?}");
        assert!(self.0.insert(seed.to_owned()), "{seed} again");
    }
}

/// The guest, saved while it waits, and what it has drawn.
fn saved() -> (TempDir, Drawn) {
    let directory = tempfile::tempdir().unwrap();
    let mut served = serve(&[]);
    served.boot(&unikernel("generation"), "");
    served.running.wait_for("seed ");
    let path = directory.path().to_str().unwrap();
    for _ in 0..2 {
        served.ctl(&["pause"]).unwrap();
        served.ctl(&["snapshot", path]).unwrap();
        // It is the same machine still.
        served.ctl(&["resume"]).unwrap();
        sleep(WHILE);
    }
    served.ctl(&["stop"]).unwrap();
    let said = served.finish().expect(0).stdout;
    let seed = said.strip_prefix("generation: start 1, seed ");
    let seed = seed.and_then(|seed| seed.strip_suffix('\n'));
    let seed = seed.unwrap_or_else(|| panic!("told: {said:?}"));
    (directory, Drawn([seed.to_owned()].into()))
}

/// `goldcrest snapshot restore`, paused and let go on meanwhile; all that the guest says.
fn restored(directory: &Path) -> String {
    let mut running = Running::start(goldcrest().args(["snapshot", "restore"]).arg(directory));
    running.wait_for(TOLD);
    running.signal(Signal::SIGUSR1);
    sleep(WHILE);
    running.signal(Signal::SIGUSR2);
    sleep(WHILE);
    running.signal(Signal::SIGTERM);
    running.finish().expect(128 + Signal::SIGTERM as i32).stdout
}

#[test]
fn a_guest_is_told_by_each_restore_that_it_is_another_and_not_after_a_pause() {
    if skip_without_kvm() {
        return;
    }
    let (directory, mut drawn) = saved();
    for _ in 0..3 {
        drawn.add(&restored(directory.path()));
    }
}

#[test]
fn every_clone_is_told_that_it_is_another() {
    if skip_without_kvm() {
        return;
    }
    let (directory, mut drawn) = saved();
    for mode in [None, Some("--in-process")] {
        let mut tool = goldcrest();
        tool.arg("clone").arg(directory.path()).args(mode);
        // All of them wait to be told once more.
        let ended = run(tool.args(["--count", "3", "--timeout", "3"])).expect(124);
        for number in 0..3 {
            let whose = format!("{number}: ");
            let lines = ended.stdout.lines();
            let said: Vec<_> = lines.filter_map(|l| l.strip_prefix(&whose)).collect();
            drawn.add(&format!("{}\n", said.join("\n")));
        }
    }
}

#[test]
fn a_guest_is_told_by_each_reset_that_it_is_another() {
    if skip_without_kvm() {
        return;
    }
    let (directory, mut drawn) = saved();
    let template = Template::open(&SnapshotFiles::in_directory(directory.path())).unwrap();
    let kvm = Kvm::open().unwrap();
    let mut left = None;
    for _ in 0..4 {
        let (output, text) = Output::capture();
        let config = CloneConfig {
            output,
            timeout: Some(LIMIT),
            ..CloneConfig::default()
        };
        let control = config.control.clone();
        let machine = match left.take() {
            None => template.clone_machine(&kvm, config).unwrap(),
            Some(spent) => template.reset(spent, config).unwrap(),
        };
        let running = thread::spawn(move || machine.run_and_keep());
        let (begun, mut said) = (Instant::now(), Vec::new());
        while !said.ends_with(b"\n") {
            assert!(begun.elapsed() < LIMIT, "it is not told");
            sleep(Duration::from_millis(1));
            said.extend(text.take());
        }
        control.pause();
        control.resume();
        sleep(WHILE);
        control.stop(StopReason::Escape);
        let (outcome, spent) = running.join().unwrap();
        assert!(matches!(outcome, Ok(Outcome::Stopped(_))), "{outcome:?}");
        said.extend(text.take());
        drawn.add(&String::from_utf8(said).unwrap());
        left = Some(spent);
    }
}
