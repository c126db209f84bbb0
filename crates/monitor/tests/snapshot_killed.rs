//! A process that replaces a snapshot is killed at each of its system calls, or has each of them fail: what is there is
//! the old snapshot or the new one, whole.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use goldcrest_boot::Image;
use goldcrest_monitor::{
    Machine, MachineConfig, RestoreConfig, SnapshotError, SnapshotFiles, SnapshotInfo, SnapshotKind,
};
use goldcrest_vcpu::scripted::Scripted;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use support::Running;
use support::images::{ElfBuilder, R, W, X, direct_note, segment};
use tempfile::TempDir;

/// Tells a process of this test where it is to write a snapshot.
const WRITE_TO: &str = "GOLDCREST_TEST_WRITE_SNAPSHOT_TO";
/// How a process ends that could not write it.
const FAILED: i32 = 3;
/// CPUs of the machine whose snapshot is replaced, of the one that replaces it, and of one that is saved afterwards.
const OLD: u32 = 1;
const NEW: u32 = 2;
const NEXT: u32 = 3;

/// `x86-64`'s number of `futex`, and of calls that need room on the disk (`write`, `pwrite64`, `ftruncate`) or change it
/// otherwise (`fsync`, `rename`, `openat`).
const FUTEX: i64 = 202;
const WRITES: [i64; 3] = [1, 18, 77];
const CHANGES: [i64; 3] = [74, 82, 257];

/// A machine that is paused, with so many CPUs, and so many in each second page of some memory, which is therefore written
/// piece by piece.
fn paused(cpus: u32) -> Running {
    let mut segments = vec![segment(R | X, 0x10_0000, &[0xf4], 0x1000)];
    for at in (0x11_0000..0x12_0000).step_by(0x2000) {
        let number = u8::try_from(cpus).unwrap();
        segments.push(segment(R | W, at, &[number; 16], 0x1000));
    }
    let elf = ElfBuilder::new(0x10_0000, segments).direct(&direct_note(0x10_0000));
    let mut config = MachineConfig {
        cpus,
        ..MachineConfig::new(Image::from_bytes("guest", elf.build()).unwrap())
    };
    config.memory.size = 2 << 20;
    config.control.pause();
    Running::start(&Scripted::new([]), config)
}

fn save(machine: &Running, directory: &Path) -> Result<(), SnapshotError> {
    let files = SnapshotFiles::in_directory(directory);
    let saved = machine.control.snapshot(&files, SnapshotKind::Full);
    saved.map(drop)
}

/// The process that writes: this program once more, with this test alone.
#[test]
fn writer() {
    let Some(directory) = std::env::var_os(WRITE_TO) else {
        return;
    };
    let machine = paused(NEW);
    // Whatever has to be set up is.
    let elsewhere = tempfile::tempdir().unwrap();
    save(&machine, elsewhere.path()).unwrap();
    ptrace::traceme().unwrap();
    raise(Signal::SIGSTOP).unwrap();
    let saved = save(&machine, directory.as_ref());
    std::process::exit(if saved.is_ok() { 0 } else { FAILED });
}

/// A process that writes, of which one thread is traced. Only the thread that started it may have anything to do with it.
struct Writer {
    process: Pid,
    thread: Pid,
}

impl Writer {
    /// Stopped where it begins.
    #[allow(clippy::zombie_processes, reason = "`wait` waits for all there is")]
    fn start(directory: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(WRITE_TO, directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let WaitStatus::Stopped(thread, Signal::SIGSTOP) = wait().unwrap() else {
            panic!("it does not begin");
        };
        ptrace::setoptions(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        Self { process, thread }
    }

    /// Goes on to where its next system call begins, and gives the call's number; nothing if the process has ended. How
    /// often it waits for another thread differs from run to run, and changes nothing.
    fn next(&self) -> Option<i64> {
        loop {
            self.step()?;
            let registers = ptrace::getregs(self.thread).ok()?;
            let call = registers.orig_rax.cast_signed();
            if call != FUTEX {
                return Some(call);
            }
            self.step()?;
        }
    }

    /// Goes on to where a system call begins, or to where the one that has begun ends; nothing if the process has ended.
    fn step(&self) -> Option<()> {
        let mut signal = None;
        loop {
            ptrace::syscall(self.thread, signal).ok()?;
            match wait()? {
                WaitStatus::PtraceSyscall(_) => return Some(()),
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => return None,
            }
        }
    }

    /// Goes on to where the call with this number among those that `which` is true of begins; nothing if there are fewer.
    fn go_to(&self, number: usize, which: impl Fn(i64) -> bool) -> Option<i64> {
        let mut before = 0;
        loop {
            let call = self.next()?;
            if which(call) {
                if before == number {
                    return Some(call);
                }
                before += 1;
            }
            self.step()?;
        }
    }

    /// The system call that begins is not done, and fails.
    fn fail_call(&self, error: Errno) {
        let mut registers = ptrace::getregs(self.thread).unwrap();
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.thread, registers).unwrap();
        self.step().unwrap();
        registers.rax = (-i64::from(error as i32)).cast_unsigned();
        ptrace::setregs(self.thread, registers).unwrap();
    }

    fn kill(self) {
        kill(self.process, Signal::SIGKILL).unwrap();
        while wait().is_some() {}
    }

    /// Its status, when it has ended by itself.
    fn finish(self) -> i32 {
        ptrace::cont(self.thread, None).unwrap();
        let mut status = None;
        while let Some(change) = wait() {
            match change {
                WaitStatus::Exited(process, with) if process == self.process => status = Some(with),
                WaitStatus::Stopped(thread, signal) => ptrace::cont(thread, signal).unwrap(),
                _ => {}
            }
        }
        status.unwrap()
    }
}

/// What happens next to processes that this thread has started; nothing if there are none.
fn wait() -> Option<WaitStatus> {
    match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        Err(Errno::ECHILD) => None,
        status => Some(status.unwrap()),
    }
}

/// A directory with the old snapshot in it.
fn old_snapshot() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let machine = paused(OLD);
    save(&machine, directory.path()).unwrap();
    machine.stop();
    directory
}

fn copy_of(original: &TempDir) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["state", "memory"] {
        let [from, to] = [original, &directory].map(|directory| directory.path().join(name));
        fs::copy(from, to).unwrap();
    }
    directory
}

/// Whose snapshot is there, whole.
fn whose(directory: &Path, when: &str) -> u32 {
    let files = SnapshotFiles::in_directory(directory);
    let info = SnapshotInfo::verify(&files).unwrap_or_else(|error| panic!("{when}: {error}"));
    let machine = Machine::restore(&Scripted::new([]), &RestoreConfig::new(files));
    assert!(machine.is_ok(), "{when}: {:?}", machine.err());
    u32::try_from(info.cpus).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn killed_at_any_system_call_it_leaves_the_old_snapshot_or_the_new_one() {
    let original = old_snapshot();
    let next = paused(NEXT);
    let mut left = Vec::new();
    loop {
        let directory = copy_of(&original);
        let writer = Writer::start(directory.path());
        let Some(call) = writer.go_to(left.len(), |_| true) else {
            while wait().is_some() {}
            assert_eq!(whose(directory.path(), "at the end"), NEW);
            break;
        };
        writer.kill();
        let when = format!("killed at call {}, which is {call}", left.len());
        left.push(whose(directory.path(), &when));
        // And it can be replaced by another.
        save(&next, directory.path()).unwrap();
        assert_eq!(whose(directory.path(), &when), NEXT);
    }
    next.stop();
    println!("killed at each of {} system calls: {left:?}", left.len());
    assert!(left.is_sorted(), "the old one came back: {left:?}");
    assert!(left.contains(&OLD) && left.contains(&NEW), "{left:?}");
}

#[test]
fn a_disk_that_is_full_at_any_write_leaves_the_old_snapshot() {
    let original = old_snapshot();
    for number in 0.. {
        let directory = copy_of(&original);
        let writer = Writer::start(directory.path());
        let Some(call) = writer.go_to(number, |call| WRITES.contains(&call)) else {
            while wait().is_some() {}
            assert!(number > 8, "it has written {number} times");
            break;
        };
        writer.fail_call(Errno::ENOSPC);
        let when = format!("write {number}, which is {call}, failed");
        assert_eq!(writer.finish(), FAILED, "{when}");
        assert_eq!(whose(directory.path(), &when), OLD);
        assert_eq!(names(directory.path()).len(), 2, "{when}");
    }
}

#[test]
fn a_disk_that_fails_otherwise_leaves_the_old_snapshot_or_the_new_one() {
    let original = old_snapshot();
    for number in 0.. {
        let directory = copy_of(&original);
        let writer = Writer::start(directory.path());
        let Some(call) = writer.go_to(number, |call| CHANGES.contains(&call)) else {
            while wait().is_some() {}
            assert!(number > 8, "it has changed the disk {number} times");
            break;
        };
        writer.fail_call(Errno::EIO);
        let when = format!("change {number}, which is {call}, failed");
        let status = writer.finish();
        let left = whose(directory.path(), &when);
        // It can do without some files that it opens.
        assert!(left == NEW || (left, status) == (OLD, FAILED), "{when}");
    }
}
