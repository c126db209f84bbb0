//! `--metrics`, on `/dev/kvm`: what the file says of a guest whose doings are known.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;

use serde_json::Value;
use support::*;

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}

#[test]
fn a_line_at_the_end_has_the_exits_of_the_demo_and_its_other_output_is_as_ever() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.jsonl");
    let plain = run(&mut boot(&unikernel("exit-status"))).expect(7);
    let mut command = boot(&unikernel("exit-status"));
    command.arg("--metrics").arg(&path);
    let counted = run(&mut command).expect(7);
    assert_eq!(counted.stdout, plain.stdout);
    let [line] = &lines(&path)[..] else {
        panic!("one line");
    };
    let exits = &line["exits"];
    // Its console and its end are doorbells, each a write to a port.
    let writes = exits["port_write"].as_u64().unwrap();
    assert!((1..1000).contains(&writes), "{line}");
    assert_eq!((&line["starts"], &exits["failed"]), (&1.into(), &0.into()));
    assert_eq!(line["devices"].as_array().map(Vec::len), Some(0));
    assert!(line["uptime_ms"].as_u64().unwrap() < 60_000);
}

#[test]
fn requests_of_disks_are_counted_by_the_second_and_in_all() {
    if skip_without_kvm() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = (folder.path().join("m.jsonl"), folder.path().join("disk"));
    fs::write(&disk, vec![0; 16 << 20]).unwrap();
    let mut command = boot(&unikernel("disk"));
    command.arg("--disk").arg(&disk);
    command.arg(format!("--metrics={},every=10ms", path.display()));
    run(command.args(["--", "write", "7", "4"])).expect(0);
    let lines = lines(&path);
    let last = &lines.last().unwrap()["devices"][0];
    let number = |name: &str| last[name].as_u64().unwrap();
    // It writes 4 MiB, and reads them back.
    let megabytes = 4 << 20;
    assert!(number("bytes_read") >= megabytes, "{last}");
    assert!(number("bytes_written") >= megabytes, "{last}");
    assert!(
        number("requests") >= 2 && number("notifications") >= 1,
        "{last}"
    );
    assert_eq!((number("misuses"), number("failures")), (0, 0), "{last}");
    let latency = &last["latency"];
    assert!(latency["count"].as_u64().unwrap() >= 2, "{last}");
    let buckets = latency["buckets"].as_array().unwrap();
    let in_buckets: u64 = buckets.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    assert_eq!(Some(in_buckets), latency["count"].as_u64());
    let requests = lines
        .iter()
        .map(|line| line["devices"][0]["requests"].as_u64().unwrap_or(0));
    assert!(requests.is_sorted(), "{lines:?}");
}

#[test]
fn files_that_cannot_be_written_or_are_the_guests_are_refused() {
    let image = unikernel("exit-status");
    let before = fs::metadata(&image).unwrap().len();
    let mut command = boot(&image);
    let complaint = run(command.arg("--metrics").arg(&image)).complaint(2);
    assert_contains(&complaint, &["the guest's image or disk"]);
    assert_eq!(fs::metadata(&image).unwrap().len(), before);
    let mut command = boot(&image);
    let complaint = run(command.args(["--metrics", "/nowhere/m"])).complaint(2);
    assert_contains(&complaint, &["/nowhere/m", "No such file"]);
    let mut command = boot(&image);
    run(command.args(["--metrics", "m,every=never"])).usage_error();
}
