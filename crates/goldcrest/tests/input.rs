//! Input that is no terminal's: all of it arrives, and what the guest does not want is left to others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::thread;

use support::guests::{echo, exit, guest};
use support::*;

/// Many times what the serial port holds; `q` at the end has the guest end.
fn flood() -> String {
    let mut text: String = (0..4_000).map(|n| format!("{n:x}\n")).collect();
    text.retain(|key| key != 'c');
    text + "q"
}

#[test]
fn a_pipe_that_is_always_full_loses_nothing() {
    if skip_without_kvm() {
        return;
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    let sender = thread::spawn(move || writer.write_all(flood().as_bytes()));
    let ended = run(boot(&echo()).stdin(reader)).expect(3);
    sender.join().unwrap().unwrap();
    assert!(ended.stdout == format!(">{}", flood()), "lost or mixed up");
}

#[test]
fn a_file_arrives_whole() {
    if skip_without_kvm() {
        return;
    }
    let text = file(flood());
    let ended = run(boot(&echo()).stdin(File::open(&text).unwrap())).expect(3);
    assert!(ended.stdout == format!(">{}", flood()), "lost or mixed up");
}

#[test]
fn without_a_terminal_ctrl_a_is_a_byte_like_others() {
    if skip_without_kvm() {
        return;
    }
    let text = file("\x01x\x01q");
    let ended = run(boot(&echo()).stdin(File::open(&text).unwrap())).expect(3);
    assert_eq!(ended.stdout, ">\x01x\x01q");
}

#[test]
fn a_guest_whose_input_ends_runs_on() {
    if skip_without_kvm() {
        return;
    }
    let text = file("abd");
    for input in [Stdio::null(), File::open(&text).unwrap().into()] {
        run(boot(&echo()).stdin(input).args(["--timeout", "0.5"])).expect(124);
    }
}

#[test]
fn input_that_the_guest_does_not_listen_for_is_left_to_the_next_program() {
    if skip_without_kvm() {
        return;
    }
    let (image, text) = (guest(&[&exit(0)]), file("for the next\n"));
    let mut shell = within("\"$@\" && cat", &boot(&image));
    let ended = run(shell.stdin(File::open(&text).unwrap())).expect(0);
    assert_eq!(ended.stdout, "for the next\n");
}

#[test]
fn with_the_serial_port_elsewhere_input_is_not_read() {
    if skip_without_kvm() {
        return;
    }
    let (image, text, log) = (echo(), file("q"), file(""));
    for serial in ["none", log.to_str().unwrap()] {
        let mut command = boot(&image);
        command.args(["--timeout", "0.3", "--serial", serial]);
        let ended = run(command.stdin(File::open(&text).unwrap())).expect(124);
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), ">");
}
