//! How runs end: by the guest, by the clock, by signals, by a crash; and what they leave behind, which is nothing.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::guests::{FOR_EVER, UD2, debug_exit, guest, print, reset};
use support::*;

const STOPPING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// The status by which a shell knows the signal.
fn status_of(signal: Signal) -> i32 {
    128 + signal as i32
}

#[test]
fn a_guest_that_spins_is_ended_when_its_time_is_up() {
    if skip_without_kvm() {
        return;
    }
    for cpus in ["1", "2"] {
        let ended = run(boot(&guests::spinning()).args(["--timeout", "0.3", "--cpus", cpus]));
        assert!(ended.took >= Duration::from_millis(300), "{ended:?}");
        assert_eq!(ended.stdout, ">");
        assert_eq!(ended.complaint(124), "time is up: the guest was stopped");
    }
}

#[test]
fn a_time_out_that_is_over_before_the_guest_begins_ends_it_too() {
    if skip_without_kvm() {
        return;
    }
    run(boot(&guests::spinning()).args(["--timeout", "0.000000001"]))
        .soon()
        .expect(124);
}

#[test]
fn a_time_out_that_is_not_reached_changes_nothing() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(boot(&unikernel("exit-status")).args(["--timeout", "1e6", "--", "7"]));
    assert_eq!(ended.expect(7).stderr, "");
}

#[test]
fn signals_end_a_running_guest_with_their_status() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    for signal in STOPPING {
        for cpus in ["1", "2"] {
            let mut running = Running::start(boot(&image).args(["--cpus", cpus]));
            running.wait_for(">");
            running.signal(signal);
            let ended = running.finish().soon().expect(status_of(signal));
            assert_eq!(ended.stderr, "", "{signal}");
            assert!(!ended.was_killed(), "{signal}");
        }
    }
}

#[test]
fn a_signal_is_not_lost_whenever_it_comes() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    for try_number in 0..60 {
        let signal = STOPPING[try_number % STOPPING.len()];
        let running = Running::start(&mut boot(&image));
        // The whole start takes a few milliseconds; steps that have no common divisor with it.
        std::thread::sleep(Duration::from_micros(131) * u32::try_from(try_number).unwrap());
        running.signal(signal);
        running.finish().soon().expect(status_of(signal));
    }
}

#[test]
fn a_second_signal_changes_nothing() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    let mut running = Running::start(&mut boot(&image));
    running.wait_for(">");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let code = running.finish().soon().code();
    let either = [Signal::SIGTERM, Signal::SIGINT].map(status_of);
    assert!(either.contains(&code), "{code}");
}

#[test]
fn a_guest_that_was_killed_leaves_no_process() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    let mut running = Running::start(boot(&image).args(["--cpus", "2"]));
    running.wait_for(">");
    running.signal(Signal::SIGKILL);
    running.finish().soon().expect(status_of(Signal::SIGKILL));
}

#[test]
fn there_is_a_thread_for_each_cpu_and_no_other() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::spinning();
    for cpus in 1..4 {
        let mut running = Running::start(boot(&image).arg(format!("--cpus={cpus}")));
        running.wait_for(">");
        // CPU 0 starts the others, and then runs the guest.
        assert_eq!(running.threads().len(), cpus, "{:?}", running.threads());
        running.signal(Signal::SIGTERM);
        running.finish().expect(status_of(Signal::SIGTERM));
    }
}

#[test]
fn cpus_that_the_guest_does_not_use_do_not_keep_it_from_ending() {
    if skip_without_kvm() {
        return;
    }
    for cpus in ["2", "8"] {
        let ended = run(boot(&unikernel("exit-status")).args(["--cpus", cpus, "--", "3"]));
        ended.soon().expect(3);
    }
}

#[test]
fn the_debug_exit_port_ends_with_an_odd_status() {
    if skip_without_kvm() {
        return;
    }
    for (value, status) in [(0, 1), (3, 7), (127, 255), (128, 255), (u32::MAX, 255)] {
        let ended = run(&mut boot(&guest(&[&debug_exit(value)])));
        assert_eq!(ended.expect(status).stderr, "", "{value}");
    }
}

#[test]
fn a_reset_ends_with_status_1_and_says_what_would_restart_it() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(&mut boot(&guest(&[&print(b'>'), &reset()])));
    assert_eq!(ended.stdout, ">");
    assert_contains(&ended.complaint(1), &["reset", "--on-reset reboot"]);
}

#[test]
fn a_reset_restarts_the_guest_if_so_asked_until_the_time_for_all_starts_is_up() {
    if skip_without_kvm() {
        return;
    }
    let options = ["--on-reset", "reboot", "--timeout", "1"];
    let ended = run(boot(&guest(&[&print(b'>'), &reset()])).args(options));
    assert!(ended.stdout.starts_with(">>"), "{ended:?}");
    assert_contains(&ended.complaint(124), &["time is up"]);
}

#[test]
fn a_triple_fault_is_reported_with_registers_and_instruction() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(&mut boot(&guest(&[&print(b'>'), &UD2, &FOR_EVER])));
    let ended = ended.soon().expect(1);
    assert_eq!(ended.stdout, ">");
    assert_contains(
        &ended.stderr,
        &[
            "goldcrest: cpu 0 ended: ",
            "triple fault",
            "rip   0000000000100007",
            "ring 3, 64 bits",
            "code 0f 0b eb fe",
            "\n  ud2\n",
        ],
    );
}

#[test]
fn an_image_that_is_no_kernel_at_all_ends_in_time() {
    if skip_without_kvm() {
        return;
    }
    // Zeroes are `add [rax], al`: runs off the end of the page, in one way or another.
    let ended = run(boot(&guest(&[&[0; 64]])).args(["--timeout", "5"]));
    assert!([1, 124].contains(&ended.code()), "{ended:?}");
}
