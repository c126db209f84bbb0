//! `goldcrest top`, on `/dev/kvm`: real machines, and processes that are none.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;

/// What it says of a process.
fn row(pid: nix::unistd::Pid) -> Value {
    let mut tool = goldcrest();
    tool.args(["top", "--once", "--json", "--interval", "0.3"]);
    let rows = run(&mut tool).expect(0).stdout;
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let mut rows = rows.as_array().unwrap().iter();
    let row = rows.find(|row| row["pid"] == pid.as_raw());
    row.unwrap_or_else(|| panic!("no {pid}")).clone()
}

#[test]
fn a_machine_with_an_api_is_shown_with_what_it_does() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let config = folder.path().join("config");
    let image = guests::chatty();
    let text = format!(
        "{{\"boot-source\":{{\"kernel_image_path\":{:?}}},\"machine-config\":{{\"vcpu_count\":2,\"mem_size_mib\":64}}}}",
        image.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut tool = goldcrest();
    tool.args(["run", "--id", "noisy", "--api-sock"])
        .arg(&socket);
    tool.arg("--config-file").arg(&config);
    let mut machine = Running::start(&mut tool);
    machine.wait_for("x");
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(5));
    }
    let row = row(machine.pid());
    assert_eq!(
        (&row["name"], &row["state"]),
        (&"noisy".into(), &"Running".into()),
        "{row}"
    );
    assert_eq!(
        (&row["cpus"], &row["memory_bytes"]),
        (&2.into(), &(64 << 20).into())
    );
    assert!(row["exits_per_second"].as_f64().unwrap() > 1.0, "{row}");
    assert!(row["cpu_percent"].as_f64().unwrap() > 0.0, "{row}");
    assert!(row["resident_bytes"].as_u64().unwrap() > 0, "{row}");
    machine.signal(nix::sys::signal::Signal::SIGTERM);
    machine.finish();
}

#[test]
fn a_machine_without_an_api_is_shown_by_its_image_and_a_table_is_text() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::chatty();
    let mut tool = boot(&image);
    tool.args(["--memory", "32M"]);
    let mut machine = Running::start(&mut tool);
    machine.wait_for("x");
    let shown = row(machine.pid());
    let name = image.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        (&shown["name"], &shown["state"]),
        (&name.into(), &Value::Null),
        "{shown}"
    );
    assert_eq!(shown["memory_bytes"], 32 << 20);
    assert!(shown["exits_per_second"].is_null());
    let mut tool = goldcrest();
    tool.args(["top", "--once", "--interval", "0.05"]);
    let table = run(&mut tool).expect(0).stdout;
    assert!(table.starts_with("    PID "), "{table}");
    assert!(table.contains(name), "{table}");
    machine.signal(nix::sys::signal::Signal::SIGTERM);
    machine.finish();
}

/// Its socket's queue is another process', which never answers: it is not asked, and nothing waits for it.
#[test]
fn a_socket_that_is_not_the_machines_holds_nobody_up() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let mut tool = goldcrest();
    tool.args(["run", "--api-sock"]).arg(&socket);
    let machine = Running::start(&mut tool);
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(&socket).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let row = row(machine.pid());
    assert_eq!(row["state"], Value::Null, "{row}");
    machine.signal(nix::sys::signal::Signal::SIGTERM);
    machine.finish();
}
