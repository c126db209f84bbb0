//! Guests whose output nobody reads, and tools whose messages nobody reads: they end all the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::io::{PipeReader, Read, pipe};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use support::*;

/// The size of a small pipe, and long enough for a guest to fill it.
const PIPE: usize = 4096;
const FULL: Duration = Duration::from_millis(800);

/// Starts the tool with standard output into a pipe that is never read, but for the end of the test.
fn start_unread(command: &mut Command, nonblocking: bool) -> (Running, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let size = PIPE.try_into().unwrap();
    fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(size)).unwrap();
    if nonblocking {
        fcntl(writer.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    (Running::start_with_stdout(command.stdout(writer)), reader)
}

#[test]
fn a_full_pipe_does_not_hold_a_machine_that_is_to_end() {
    if skip_without_kvm() {
        return;
    }
    for nonblocking in [false, true] {
        for cpus in ["1", "2"] {
            let guest = guests::chatty();
            let mut command = boot(&guest);
            let (running, _unread) = start_unread(command.args(["--cpus", cpus]), nonblocking);
            std::thread::sleep(FULL);
            running.signal(Signal::SIGTERM);
            running.finish().soon().expect(143);
        }
        let guest = guests::chatty();
        let (running, _unread) = start_unread(boot(&guest).args(["--timeout", "0.8"]), nonblocking);
        let complaint = running.finish().soon().complaint(124);
        assert_eq!(complaint, "time is up: the guest was stopped");
    }
}

#[test]
fn a_guest_goes_on_when_its_reader_does() {
    if skip_without_kvm() {
        return;
    }
    let guest = guests::chatty();
    let (running, mut reader) = start_unread(&mut boot(&guest), false);
    std::thread::sleep(FULL);
    let mut output = vec![0; 3 * PIPE];
    reader.read_exact(&mut output).unwrap();
    assert!(output.iter().all(|byte| *byte == b'x'));
    running.signal(Signal::SIGTERM);
    running.finish().soon().expect(143);
}

#[test]
fn messages_that_nobody_reads_change_no_status() {
    if skip_without_kvm() {
        return;
    }
    let spinning = guests::spinning();
    for (tool, status) in [
        (boot(&spinning).args(["--timeout", "0.2"]), 124),
        (goldcrest().args(["inspect", "/nonexistent"]), 2),
    ] {
        let script = r#""$@" 2>/dev/full >/dev/null"#;
        run(&mut within(script, tool)).soon().expect(status);
    }
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    if skip_without_kvm() {
        return;
    }
    let spinning = guests::spinning();
    let mut tool = within(
        r#"trap '' HUP; exec "$@""#,
        boot(&spinning).args(["--timeout", "1"]),
    );
    let mut running = Running::start(&mut tool);
    running.wait_for(">");
    running.signal(Signal::SIGHUP);
    running.finish().expect(124);
}

#[test]
fn the_image_is_not_overwritten_by_its_own_output() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    let before = std::fs::read(&image).unwrap();
    let complaint = run(boot(&image).arg("--serial").arg(&image)).complaint(2);
    assert_contains(&complaint, &["serial log", "it is the guest's image"]);
    assert_eq!(std::fs::read(&image).unwrap(), before);
}
