//! The log, on `/dev/kvm`: what it says of machines, and that guests cannot fill it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use support::*;

#[test]
fn the_log_tells_of_a_machine_from_its_devices_to_its_end_and_the_guest_does_as_ever() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (log, disk) = (folder.path().join("log"), folder.path().join("disk"));
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let image = unikernel("exit-status");
    let plain = run(&mut boot(&image)).expect(7);
    let mut command = boot(&image);
    command.arg("--log-file").arg(&log).arg("--disk").arg(&disk);
    let logged = run(&mut command).expect(7);
    assert_eq!(logged.stdout, plain.stdout);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (line, words) in lines.iter().zip([
        &["a device is made", "id=disk0", "interrupt=16"][..],
        &["a machine is made", "cpus=1", "memory_mib=128", "devices=1"],
        &["the machine has ended", "outcome=\"", "7"],
    ]) {
        assert!(
            line.contains(":INFO] ") && line.contains("Z [anonymous-instance:"),
            "{line}"
        );
        for word in words {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(
        fs::metadata(&log).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn levels_and_formats_are_as_asked() {
    if skip_without_kvm() {
        return;
    }
    let image = unikernel("exit-status");
    let with = |arguments: &[&str]| {
        let mut command = boot(&image);
        run(command.args(arguments)).expect(7).stderr
    };
    assert_eq!(with(&[]), "");
    assert_eq!(with(&["--log-level", "error"]), "");
    let text = with(&[
        "--log-level",
        "trace",
        "--log-format",
        "json",
        "--id",
        "one",
    ]);
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let misses = lines.last().unwrap();
    assert_eq!(misses["message"], "accesses that no device is for");
    assert_eq!(
        (&misses["level"], &misses["id"]),
        (&"DEBUG".into(), &"one".into())
    );
    assert!(misses["port_misses"].is_u64() && misses["timestamp"].is_string());
}

#[test]
fn a_guest_that_misuses_its_devices_does_not_fill_the_log() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let image = guests::misusing();
    let mut command = boot(&image);
    command.arg("--disk").arg(&disk);
    let text = run(command.args(["--log-level", "warn"])).expect(4).stderr;
    let lines: Vec<_> = text.lines().collect();
    let misuses = "a driver did what it must not";
    let told = lines.iter().filter(|line| line.contains(misuses)).count();
    // Ten at once, and one for each second that it took.
    assert!((10..50).contains(&told), "{text}");
    let number = |line: &&str| -> usize {
        let (_, left_out) = line.split_once("left_out=").unwrap_or(("", "0"));
        left_out.trim().parse().unwrap()
    };
    let left_out: usize = lines.iter().map(number).sum();
    assert_eq!(told + left_out, 3000, "{text}");
}

#[test]
fn a_log_that_cannot_be_is_refused() {
    let image = unikernel("exit-status");
    let mut command = boot(&image);
    let complaint = run(command.arg("--log-file").arg(&image)).complaint(2);
    assert_contains(&complaint, &["the guest's image or disk"]);
    let mut command = boot(&image);
    let complaint = run(command.args(["--log-file", "/nowhere/log"])).complaint(2);
    assert_contains(
        &complaint,
        &["cannot open the log /nowhere/log", "No such file"],
    );
    let mut command = boot(&image);
    run(command.args(["--log-level", "loud"])).usage_error();
}
