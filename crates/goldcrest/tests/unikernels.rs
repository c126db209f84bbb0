//! Every program of `examples/unikernels` on a real KVM, with what it says and how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;

use support::*;

const GREETING: &str = "Hello from a unikernel on Goldcrest!\n";

#[test]
fn hello_greets_and_says_what_it_was_given() {
    if skip_without_kvm() {
        return;
    }
    let hello = unikernel("hello");
    let given = |args: &[&str]| run(boot(&hello).args(args)).expect(0).stdout;
    assert_eq!(given(&[]), GREETING);
    let echo = |text: &str| format!("{GREETING}I was given: {text}\n");
    assert_eq!(given(&["--", "a", "b"]), echo("a b"));
    assert_eq!(given(&["--cmdline", "x  y"]), echo("x  y"));
    assert_eq!(
        given(&["--cmdline=ä", "--", "--memory", "z"]),
        echo("ä --memory z")
    );
}

#[test]
fn the_demo_is_built_in_and_needs_no_file() {
    if skip_without_kvm() {
        return;
    }
    let demo = run(goldcrest().arg("run")).expect(0);
    assert_eq!((&*demo.stdout, &*demo.stderr), (GREETING, ""));
}

#[test]
fn the_status_of_the_guest_is_the_tools_up_to_255() {
    if skip_without_kvm() {
        return;
    }
    for (status, code) in [
        ("0", 0),
        ("7", 7),
        ("255", 255),
        ("256", 255),
        ("300", 255),
        ("4294967295", 255),
    ] {
        let ended = run(boot(&unikernel("exit-status")).args(["--", status])).expect(code);
        assert_eq!(ended.stdout, format!("exit-status: ending with {status}\n"));
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn all_memory_that_was_asked_for_can_be_used() {
    if skip_without_kvm() {
        return;
    }
    for (size, used) in [("3M", "2 MiB"), ("16M", "15 MiB"), ("200M", "199 MiB")] {
        let ended = run(boot(&unikernel("memory")).args(["--memory", size])).expect(0);
        assert_contains(
            &ended.stdout,
            &[used, "allocated, written and verified: ok"],
        );
    }
}

#[test]
fn memory_above_4_gib_can_be_used() {
    if skip_without_kvm() {
        return;
    }
    run(boot(&guests::above_4_gib()).args(["--memory", "5G"])).expect(9);
}

#[test]
fn memory_can_be_of_every_kind() {
    if skip_without_kvm() {
        return;
    }
    for options in [
        &["--huge-pages", "transparent"][..],
        &["--memory-backing", "memfd"],
        &["--memory-backing", "memfd", "--huge-pages", "transparent"],
        &["--prefault"],
        &["--prefault", "--huge-pages", "transparent"],
        &["--prefault", "--memory-backing", "memfd"],
    ] {
        let hello = run(boot(&unikernel("hello")).args(options)).expect(0);
        assert_eq!(hello.stdout, GREETING, "{options:?}");
        let memory = run(boot(&unikernel("memory")).args(["-m", "32M"]).args(options)).expect(0);
        assert_contains(&memory.stdout, &["31 MiB of 31 MiB", "ok"]);
    }
}

#[test]
fn reserved_huge_pages_are_used_or_said_to_be_missing() {
    if skip_without_kvm() {
        return;
    }
    let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u32 = free.map_or(0, |pages| pages.trim().parse().unwrap());
    let ended = run(boot(&unikernel("hello")).args(["-m", "16M", "--huge-pages", "2M"]));
    if free >= 8 {
        assert_eq!(ended.expect(0).stdout, GREETING);
    } else {
        assert_contains(
            &ended.complaint(1),
            &[
                "reserved huge pages",
                "nr_hugepages",
                "16.0 MiB of guest memory",
            ],
        );
    }
}

#[test]
fn faults_are_reported_with_kind_and_address_and_end_the_guest() {
    if skip_without_kvm() {
        return;
    }
    for (what, kind, detail) in [
        (
            "null",
            "page fault (vector 14",
            "reading 0x0: nothing is mapped",
        ),
        (
            "unmapped",
            "page fault (vector 14",
            "reading 0x7fffdeadb000: nothing is mapped",
        ),
        ("guard", "page fault (vector 14", "writing to 0x1"),
        (
            "write-code",
            "page fault (vector 14",
            "the page does not allow it",
        ),
        ("exec-data", "page fault (vector 14", "executing 0x1"),
        ("ud", "invalid opcode (vector 6", "in ring 3 at rip 0x1"),
        ("div", "divide error (vector 0", "in ring 3 at rip 0x1"),
    ] {
        let ended = run(boot(&unikernel("fault")).args(["--", what])).expect(102);
        let begins = format!("about to try: {what}\nfault: {kind}");
        assert!(ended.stdout.starts_with(&begins), "{ended:?}");
        assert_contains(&ended.stdout, &[detail, "rip 0000", "cr2 0000"]);
        assert!(!ended.stdout.contains("nothing happened"), "{ended:?}");
    }
}

#[test]
fn breakpoints_are_handled_and_resumed() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(boot(&unikernel("fault")).args(["--", "breakpoint"])).expect(0);
    assert_eq!(ended.stdout.matches("breakpoint at 0x1").count(), 3);
    assert_contains(&ended.stdout, &["3 resumed, registers intact: true"]);
}

#[test]
fn clocks_run_forward_and_timers_interrupt() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(&mut boot(&unikernel("clock"))).expect(0);
    assert_eq!(ended.stdout.matches("timer: woken").count(), 3);
    assert_contains(&ended.stdout, &["clock: ok, 6 interrupts handled\n"]);
    if ended.stdout.contains("monotonic:") {
        assert_contains(&ended.stdout, &[" 0 steps backwards"]);
    }
}

#[test]
fn code_runs_in_both_rings() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(boot(&unikernel("spin")).args(["--", "10000"])).expect(0);
    assert_contains(
        &ended.stdout,
        &[
            "ring 3: 10000 iterations",
            "ring 0: 10000 iterations",
            "spin: done\n",
        ],
    );
}

#[test]
fn the_other_way_in_gives_the_same_guest() {
    if skip_without_kvm() {
        return;
    }
    let ended = run(boot(&unikernel("hello")).args(["--protocol", "pvh", "--", "a"])).expect(0);
    assert_eq!(ended.stdout, format!("{GREETING}I was given: a\n"));
}
