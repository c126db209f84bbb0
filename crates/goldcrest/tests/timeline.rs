//! What the tool tells people: where start-up went, what an image is, how it is used.
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

/// The stages of a unikernel's life, in order.
const STAGES: [&str; 13] = [
    "process start",
    "main",
    "KVM opened",
    "memory reserved",
    "VM created",
    "vCPU created",
    "image loaded",
    "vCPU ready",
    "first instruction",
    "guest main",
    "first output",
    "guest exit",
    "machine ended",
];

/// What `hello` gives with these options; its own output is as without them.
fn hello(options: &[&str]) -> String {
    let ended = run(boot(&unikernel("hello")).args(options)).expect(0);
    assert_eq!(ended.stdout, "Hello from a unikernel on Goldcrest!\n");
    ended.stderr
}

fn number(text: &str) -> f64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// The stages and times of a timeline as JSON. Times ascend from 0.
fn stages(json: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(json).unwrap();
    let entries = value["timeline"].as_array().unwrap();
    let times: Vec<_> = entries
        .iter()
        .map(|entry| entry["at_us"].as_f64().unwrap())
        .collect();
    assert_eq!(times[0], 0.0);
    assert!(times.is_sorted(), "{times:?}");
    entries
        .iter()
        .map(|entry| entry["stage"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_timeline_as_text_has_all_stages_in_order() {
    if skip_without_kvm() {
        return;
    }
    for options in [["--timeline"], ["--timeline=text"]] {
        let text = hello(&options);
        let rows: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(rows.len(), STAGES.len() - 1, "{text}");
        let mut sum = 0.0;
        for (row, stage) in rows.iter().zip(&STAGES[1..]) {
            assert_contains(row, &[&format!("  {stage} ")]);
            let mut words = row.split_whitespace();
            let (at, took) = (number(words.next().unwrap()), number(words.next().unwrap()));
            sum += took;
            assert!((at - sum).abs() < 1.0, "{text}");
        }
    }
}

#[test]
fn the_timeline_as_json_has_all_stages_and_ascending_times() {
    if skip_without_kvm() {
        return;
    }
    assert_eq!(stages(&hello(&["--timeline=json"])), STAGES);
}

#[test]
fn the_timeline_as_a_picture_is_a_well_formed_file() {
    if skip_without_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = boot(&unikernel("hello"));
    let ended = run(command.arg("--timeline=svg").current_dir(&dir)).expect(0);
    assert_eq!(ended.stderr, "");
    let svg = fs::read_to_string(dir.path().join("timeline.svg")).unwrap();
    for stage in &STAGES[1..] {
        assert_contains(&svg, &[&format!(">{stage}</text>")]);
    }
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    assert_tags_are_closed(&svg);
}

/// Every element that is opened is closed, in the right order.
fn assert_tags_are_closed(xml: &str) {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.split(' ').next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_timeline_goes_to_a_file_in_each_format() {
    if skip_without_kvm() {
        return;
    }
    for (format, begins) in [
        ("--timeline", "    at µs"),
        ("--timeline=json", "{\"timeline\":["),
        ("--timeline=svg", "<svg "),
    ] {
        let path = file("");
        let said = hello(&[format, "--timeline-file", path.to_str().unwrap()]);
        assert_eq!(said, "");
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.starts_with(begins), "{written}");
    }
}

#[test]
fn the_timeline_is_that_of_the_first_start() {
    if skip_without_kvm() {
        return;
    }
    let image = guests::guest(&[&guests::print(b'>'), &guests::reset()]);
    let options = ["--timeline=json", "--on-reset=reboot", "--timeout=0.2"];
    let ended = run(boot(&image).args(options)).expect(124);
    let json = ended.stderr.lines().last().unwrap();
    let reached = stages(json);
    // This guest leaves no marks of its own.
    let expected: Vec<_> = STAGES
        .into_iter()
        .filter(|stage| !["first instruction", "guest main", "guest exit"].contains(stage))
        .collect();
    assert_eq!(reached, expected);
}

#[test]
fn the_timeline_is_written_whatever_the_guests_status() {
    if skip_without_kvm() {
        return;
    }
    let failed = run(boot(&unikernel("exit-status")).args(["--timeline=json", "--", "3"]));
    assert_eq!(stages(&failed.expect(3).stderr), STAGES);
    let crashed = run(boot(&guests::guest(&[&guests::UD2])).arg("--timeline=json")).expect(1);
    assert_contains(&crashed.stderr, &["triple fault", "\n{\"timeline\":["]);
}

#[test]
fn without_arguments_the_demo_says_how_long_it_took() {
    if skip_without_kvm() {
        return;
    }
    let demo = run(&mut goldcrest()).soon().expect(0);
    assert_eq!(demo.stdout, "Hello from a unikernel on Goldcrest!\n");
    assert_eq!(demo.stderr.lines().count(), 1, "{demo:?}");
    let summary = demo.stderr.strip_prefix("goldcrest: ").unwrap();
    let times: Vec<_> = summary
        .split_whitespace()
        .filter(|word| word.contains('.'))
        .map(number)
        .collect();
    // On a busy machine loading may have taken so long that it cannot be told from what was before it.
    let loading = usize::from(summary.starts_with("started after "));
    assert_eq!(times.len(), 5 + loading, "{summary}");
    assert!(times.is_sorted(), "{summary}");
    assert_contains(
        summary,
        &[
            "KVM open at",
            "first instruction at",
            "guest main at",
            "ended at",
        ],
    );
}

#[test]
fn help_and_version_are_for_people_and_need_no_kvm() {
    let say = |args: &[&str]| run(goldcrest().args(args)).soon().expect(0).stdout;
    assert_eq!(
        say(&["--version"]),
        concat!("goldcrest ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_contains(
        &say(&["--help"]),
        &["Usage: ", "run", "inspect", "doctor", "Examples:"],
    );
    assert_contains(
        &say(&["run", "--help"]),
        &["--timeline", "--memory", "Exit status:", "124"],
    );
    // Whether it is read for itself or beside the other commands.
    assert_eq!(say(&["run", "--help"]), say(&["help", "run"]));
    assert_contains(&say(&["man"]), &[".TH", "goldcrest"]);
    for shell in ["bash", "zsh", "fish"] {
        assert_contains(&say(&["completions", shell]), &["goldcrest", "timeline"]);
    }
}

#[test]
fn inspect_says_what_an_image_is_and_how_it_would_be_started() {
    let inspect = |path: &std::path::Path| run(goldcrest().arg("inspect").arg(path)).soon();
    let say = |bytes: Vec<u8>| inspect(&file(bytes)).expect(0).stdout;
    assert_contains(
        &inspect(&unikernel("hello")).expect(0).stdout,
        &[
            "format: ELF64",
            "chosen: direct, entry 0x",
            "offered: pvh",
            "r-x",
            "ring 3",
        ],
    );
    let note = 0x100_0000_u32.to_le_bytes();
    assert_contains(
        &say(images::pvh_kernel(&note)),
        &[
            "chosen: pvh, entry 0x1000000",
            "offered: linux-elf",
            "segment 1: 0x1000000-",
        ],
    );
    assert_contains(
        &say(images::vmlinux()),
        &["chosen: linux-elf, entry 0x1000040"],
    );
    assert_contains(
        &say(images::bzimage()),
        &[
            "format: bzImage",
            "chosen: linux-bzimage",
            "kernel version: 6.1.0-test (someone) #1 SMP",
            "boot protocol: 2.15",
            "command line: at most 2047 bytes",
        ],
    );
    let garbage = inspect(&file("garbage")).complaint(2);
    assert_contains(
        &garbage,
        &["not a kernel or unikernel: text, begins with 67 61 72 62"],
    );
}

#[test]
fn what_an_image_says_of_itself_cannot_reach_the_terminal_as_control_codes() {
    let mut bytes = images::bzimage();
    bytes[0x500..0x508].copy_from_slice(b"\x1b[31m\x07\xff\n");
    let path = file(bytes);
    let ended = run(goldcrest().arg("inspect").arg(&path)).expect(0);
    let harmless = |c: char| c == '\n' || !c.is_control();
    assert!(ended.stdout.chars().all(harmless), "{ended:?}");
}
