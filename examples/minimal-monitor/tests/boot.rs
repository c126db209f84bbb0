//! The monitor boots unikernels on the machine's real KVM.
#![allow(clippy::unwrap_used, reason = "tests")]

mod unikernel;

use std::process::Command;

const MONITOR: &str = env!("CARGO_BIN_EXE_minimal-monitor");

#[test]
fn a_unikernel_gets_its_command_line_and_is_heard() {
    if let Some((stdout, status)) = unikernel::run(MONITOR, "hello", "two words") {
        assert_eq!(
            stdout,
            "Hello from a unikernel on Goldcrest!\nI was given: two words\n"
        );
        assert_eq!(status, Some(0));
    }
}

#[test]
fn the_status_is_that_of_the_unikernel() {
    for (cmdline, expected) in [("", 7), ("0", 0), ("42", 42), ("256", 255)] {
        let Some((_, status)) = unikernel::run(MONITOR, "exit-status", cmdline) else {
            return;
        };
        assert_eq!(status, Some(expected), "{cmdline:?}");
    }
}

#[test]
fn without_an_image_it_says_how_it_is_used() {
    let output = Command::new(MONITOR).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with(b"usage: "));
}
