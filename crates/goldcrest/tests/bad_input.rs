//! What people and images can get wrong: one line that says what, where and which limit; status 2 for what was asked
//! wrongly and 1 for what failed; at once, and never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use support::guests::image;
use support::images::{
    ElfBuilder, R, W, X, bzimage, direct_note, patch, pvh_kernel, segment, vmlinux,
};
use support::*;

/// What is said of an image of these bytes, without its name.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let path = file(bytes);
    let complaint = run(&mut boot(&path)).complaint(2);
    let name = format!("{}: ", path.display());
    complaint
        .strip_prefix(&name)
        .unwrap_or_else(|| panic!("{complaint}"))
        .to_owned()
}

#[track_caller]
fn refused_with(options: &[&str]) -> String {
    run(boot(&guest()).args(options)).complaint(2)
}

/// A unikernel that would end well.
fn guest() -> tempfile::TempPath {
    guests::guest(&[&guests::exit(0)])
}

#[test]
fn what_is_no_file_or_no_image_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let empty = file("");
    let text = file("#!/bin/sh\necho hello\n");
    for (path, what) in [
        (dir.path().join("missing").as_path(), "No such file"),
        (dir.path(), "not a regular file but a directory"),
        (&fifo, "not a regular file but a named pipe"),
        (Path::new("/dev/zero"), "not a regular file but a device"),
        (&empty, ": empty"),
        (
            &text,
            "a script for /bin/sh (23 21 at 0); expected an ELF kernel, a bzImage or a Multiboot header",
        ),
    ] {
        for mut command in [boot(path), inspect(path)] {
            let complaint = run(&mut command).complaint(2);
            assert_contains(&complaint, &[path.to_str().unwrap(), what]);
        }
        // As an initial RAM disk, any bytes will do.
        if path != &*text {
            let complaint = run(boot(&guest()).arg("--initrd").arg(path)).complaint(2);
            assert_contains(&complaint, &[path.to_str().unwrap(), what]);
        }
    }
}

fn inspect(path: &Path) -> Command {
    let mut command = goldcrest();
    command.arg("inspect").arg(path);
    command
}

#[test]
fn inspect_explains_what_is_no_kernel_on_stdout_and_says_so_on_one_line() {
    let text = file("#!/bin/sh\necho hello\n");
    let ended = run(&mut inspect(&text));
    let lines: Vec<_> = ended.stdout.lines().map(str::to_owned).collect();
    assert_eq!(
        lines[0],
        "format: a script for /bin/sh (23 21 at 0), 21 bytes"
    );
    assert!(lines.contains(&"not multiboot2: no header magic e85250d6 in the first 32 KiB".into()));
    let complaint = ended.complaint(2);
    assert_contains(
        &complaint,
        &["not a kernel or unikernel: a script for /bin/sh"],
    );

    let ended = run(&mut inspect(Path::new("/bin/sh")));
    assert_contains(&ended.complaint(2), &["a dynamically linked program"]);

    // A person can insist.
    let ended = run(inspect(&text).args(["--format", "flat,addr=0x1000,mode=64"])).expect(0);
    assert_contains(
        &ended.stdout,
        &[
            "chosen: flat,addr=0x1000,mode=64, entry 0x1000 (asked for: its first byte goes to 0x1000)",
        ],
    );
    let kernel = file(bzimage());
    let ended = run(inspect(&kernel).args(["--format", "pvh"]));
    assert_contains(
        &ended.complaint(2),
        &["cannot be started by pvh: not an ELF; it offers linux-bzimage"],
    );
}

#[test]
fn names_that_are_not_text_do_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let name = Path::new(std::ffi::OsStr::from_bytes(b"/\xff\n\x1b[31m"));
    for mut command in [boot(name), inspect(name)] {
        let ended = run(&mut command).expect(2);
        assert_contains(&ended.stderr, &["goldcrest: cannot open /", "No such file"]);
    }
}

#[test]
fn an_image_cut_short_anywhere_is_called_truncated() {
    let whole = fs::read(unikernel("hello")).unwrap();
    let loaded = u64::from_le_bytes(whole[40..48].try_into().unwrap())
        .try_into()
        .unwrap();
    let lengths = (1..loaded).step_by(97).chain([4, 63, 64, 65]);
    for len in lengths {
        let message = refused(&whole[..len]);
        let expected = match len {
            1..4 => "not a kernel or unikernel: of no known kind, begins with 7f",
            _ => "but the image has",
        };
        let in_segment =
            message.starts_with("segment") && message.contains("of the file, which has");
        assert!(in_segment || message.contains(expected), "{len}: {message}");
    }
}

#[test]
fn a_bzimage_cut_short_anywhere_is_refused() {
    let whole = bzimage();
    // Its size is said in paragraphs of 16 bytes, of which the last may be incomplete.
    for len in (1..whole.len() - 15).step_by(61) {
        let message = refused(&whole[..len]);
        let expected = match len {
            ..0x206 => "4d",
            // A header that ends early is one of an old kernel.
            0x206..0x268 => "",
            _ => "it is truncated or damaged",
        };
        assert!(message.contains(expected), "{len}: {message}");
    }
}

/// One segment of code, and another.
fn with_segment(flags: u32, address: u64, memory_size: u64) -> Vec<u8> {
    let segments = vec![
        segment(R | X, 0x10_0000, &guests::exit(0), 0x1000),
        segment(flags, address, b"data", memory_size),
    ];
    ElfBuilder::new(0x10_0000, segments)
        .direct(&direct_note(0x10_0000))
        .build()
}

/// The offset of a field of a program header; the first is that of the note.
fn program_header(index: usize, field: usize) -> usize {
    images::PROGRAM_HEADERS + 56 * index + field
}

#[test]
fn elf_headers_that_lie_are_refused_with_the_lie() {
    let good = image(&guests::exit(0));
    let with = |at: usize, bytes: &[u8]| patch(good.clone(), at, bytes);
    let (offset, memory_size) = (program_header(1, 8), program_header(1, 40));
    for (bytes, parts) in [
        (with(54, &[57]), &["program headers of 57 bytes", "56"][..]),
        (
            with(56, &60_000_u16.to_le_bytes()),
            &["60000 program headers", "at most 128"],
        ),
        (with(56, &[0, 0]), &["no loadable segment"]),
        (
            with(32, &[0xff; 8]),
            &["program header table", "truncated or damaged"],
        ),
        (with(18, &[40]), &["machine 40", "expected 62"]),
        (with(16, &[3]), &["position-independent", "-no-pie"]),
        (with(4, &[3]), &["class 3", "64-bit"]),
        (
            with(offset, &u64::MAX.to_le_bytes()),
            &["segment 1", "0xffffffffffffffff of the file"],
        ),
        (
            with(offset, &0x10_0000_u64.to_le_bytes()),
            &["segment 1", "at 0x100000 of the file"],
        ),
        (
            with(memory_size, &u64::MAX.to_le_bytes()),
            &["segment 1 of 18446744073709551615 bytes"],
        ),
        (
            with(memory_size, &0_u64.to_le_bytes()),
            &["segment 1", "only 0 in memory"],
        ),
        (
            with(memory_size, &(1_u64 << 62).to_le_bytes()),
            &["0x100000-", "no RAM", "0x0-0x7ffffff"],
        ),
    ] {
        assert_contains(&refused(&bytes), parts);
    }
}

#[test]
fn segments_that_cannot_be_placed_are_refused_with_their_addresses() {
    for (bytes, parts) in [
        (
            with_segment(R, 0x10_0800, 0x1000),
            &["segments 1 and 2 overlap at address 0x100800"][..],
        ),
        (
            with_segment(R | W, 1 << 40, 0x1000),
            &["0x10000000000", "no RAM"],
        ),
        (
            with_segment(R | W, 0xfee0_0000, 0x1000),
            &["0xfee00000", "no RAM"],
        ),
        (
            with_segment(R | W, 0x7ff_f000, 0x1001),
            &["0x7fff000-0x8000000", "no RAM"],
        ),
        (
            with_segment(R | W | X, 0x20_0000, 4),
            &["segment 2", "writable and executable"],
        ),
        (with_segment(R | W, u64::MAX - 3, 4), &["segment 2"]),
    ] {
        assert_contains(&refused(&bytes), parts);
    }
}

#[test]
fn entries_outside_of_code_are_refused() {
    let elf = |entry| {
        let text = segment(R | X, 0x10_0000, &guests::FOR_EVER, 2);
        let data = segment(R | W, 0x20_0000, b"data", 4);
        ElfBuilder::new(entry, vec![text, data])
            .direct(&direct_note(entry))
            .build()
    };
    for entry in [0, 0x10_0002, 1 << 63, u64::MAX] {
        let expected = format!("{entry:#x} lies outside of every segment");
        assert_contains(&refused(&elf(entry)), &[&expected]);
    }
    assert_contains(
        &refused(&elf(0x20_0000)),
        &["0x200000", "segment 2, which is not executable"],
    );
    assert_contains(
        &refused(&pvh_kernel(&[0; 4])),
        &["entry point 0x0 lies outside"],
    );
    assert_contains(&refused(&pvh_kernel(&[1; 3])), &["note has 3 bytes"]);
}

#[test]
fn bzimage_headers_that_lie_are_refused_with_the_lie() {
    let with = |at: usize, bytes: &[u8]| patch(bzimage(), at, bytes);
    for (bytes, parts) in [
        (with(0x1f1, &[0xff]), &["truncated or damaged"][..]),
        (with(0x1f4, &[0xff; 4]), &["truncated or damaged"]),
        (
            with(0x1f4, &[0; 4]),
            &["a kernel of 0 bytes", "more than 512"],
        ),
        (with(0x1fe, &[0, 0]), &["boot flag 0x0000", "0xaa55"]),
        (
            with(0x206, &0x0203_u16.to_le_bytes()),
            &["boot protocol 2.03", "at least 2.12"],
        ),
        (with(0x211, &[0]), &["a zImage"]),
        (
            with(0x230, &[0, 0, 0x21, 0]),
            &["kernel alignment 0x210000", "power of two"],
        ),
        (
            with(0x236, &[0, 0]),
            &["no 64-bit entry point", "32-bit kernel"],
        ),
    ] {
        assert_contains(&refused(&bytes), parts);
    }
    // What it needs at run time is a matter of memory.
    let path = file(with(0x260, &u32::MAX.to_le_bytes()));
    let complaint = run(&mut boot(&path)).complaint(2);
    assert_contains(
        &complaint,
        &["init_size", "0x1001ffffe", "no RAM (0x0-0x7ffffff)"],
    );
}

#[test]
fn a_real_kernel_that_was_spoilt_is_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guests/vmlinuz");
    let Ok(whole) = fs::read(path) else {
        println!("skipped: no Linux kernel in target/guests (ci/guests makes it)");
        return;
    };
    for len in [0x1000, 0x10_0000, whole.len() / 2] {
        assert_contains(&refused(&whole[..len]), &["truncated or damaged"]);
    }
    assert_contains(
        &refused(&patch(whole, 0x236, &[0, 0])),
        &["no 64-bit entry point"],
    );
}

#[test]
fn a_protocol_that_is_not_offered_is_answered_with_those_that_are() {
    assert_contains(
        &refused_with(&["--protocol", "linux-bzimage"]),
        &["cannot be started by linux-bzimage", "offers direct"],
    );
    for (bytes, asked, offered) in [
        (bzimage(), "pvh", "offers linux-bzimage"),
        (vmlinux(), "direct", "offers linux-elf"),
        (
            pvh_kernel(&0x100_0000_u32.to_le_bytes()),
            "direct",
            "offers pvh, linux-elf",
        ),
    ] {
        let complaint = run(boot(&file(bytes)).args(["--protocol", asked])).complaint(2);
        assert_contains(&complaint, &["cannot be started by", asked, offered]);
    }
    let unknown = run(boot(&guest()).args(["--format", "multiboot3"])).usage_error();
    assert_contains(
        &unknown,
        &[
            "\"multiboot3\"",
            "direct, solo5-hvt, hermit, pvh, multiboot2, multiboot, linux-elf, linux-bzimage, elf32, flat",
        ],
    );
}

#[test]
fn a_command_line_that_is_too_long_is_refused_with_the_limit() {
    let text = "a".repeat(70_000);
    assert_contains(
        &refused_with(&["--cmdline", &text]),
        &["70000 bytes", "at most 65536"],
    );
    assert_contains(
        &refused_with(&["--", &text[..65_000], &text[..600]]),
        &["65601 bytes"],
    );
    for (bytes, protocol, len, limit) in [
        (bzimage(), "linux-bzimage", 2048, "at most 2047"),
        (vmlinux(), "linux-elf", 70_000, "at most "),
        (
            pvh_kernel(&0x100_0000_u32.to_le_bytes()),
            "pvh",
            70_000,
            "at most 65536",
        ),
    ] {
        let path = file(bytes);
        let options = ["--protocol", protocol, "--cmdline", &text[..len]];
        let complaint = run(boot(&path).args(options)).complaint(2);
        assert_contains(
            &complaint,
            &[&len.to_string(), path.to_str().unwrap(), limit],
        );
    }
}

#[test]
fn an_initial_ram_disk_that_does_not_fit_is_refused_with_both_sizes() {
    let large = file("");
    File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    for bytes in [image(&guests::exit(0)), bzimage(), vmlinux()] {
        let path = file(bytes);
        let complaint = run(boot(&path).arg("--initrd").arg(&large)).complaint(2);
        assert_contains(
            &complaint,
            &[
                "1099511627776 bytes",
                "does not fit",
                "more memory",
                "0x7ffffff",
            ],
        );
    }
}

#[test]
fn sizes_of_memory_that_cannot_be_are_refused_with_the_limit() {
    for (size, parts) in [
        ("0", &["0 B", "at least 1 MiB"][..]),
        ("1", &["1 B", "at least 1 MiB"]),
        ("3K", &["3.0 KiB", "at least 1 MiB"]),
        ("1048577", &["multiple of 4 KiB"]),
        ("1P", &["1.0 PiB", "at most 4 TiB"]),
        ("18446744073709551615", &["EiB", "at most 4 TiB"]),
    ] {
        assert_contains(&refused_with(&["--memory", size]), parts);
    }
    for size in ["12X", "-1M", "", "M", "1e3", "999999999999999999999"] {
        let error = run(boot(&guest()).arg(format!("--memory={size}"))).usage_error();
        assert_contains(&error, &[&format!("{size:?} is not a size"), "128M"]);
    }
}

#[test]
fn an_image_that_needs_more_memory_is_told_apart_from_a_bad_one() {
    let complaint = run(boot(&unikernel("hello")).args(["--memory", "1M"])).complaint(2);
    assert_contains(&complaint, &["no RAM", "0x0-0xfffff"]);
}

#[test]
fn numbers_of_cpus_that_cannot_be_are_refused_with_the_limit() {
    if skip_without_kvm() {
        return;
    }
    for cpus in ["0", "255", "100000", "4294967295"] {
        let complaint = refused_with(&["--cpus", cpus]);
        assert_contains(&complaint, &[&format!("{cpus} CPUs"), "from 1 to "]);
    }
    for cpus in ["-1", "x", "4294967296"] {
        run(boot(&guest()).arg(format!("--cpus={cpus}"))).usage_error();
    }
}

#[test]
fn times_that_cannot_be_are_refused() {
    for time in ["0", "-1", "nan", "inf", "1e300", "x", ""] {
        let error = run(boot(&guest()).arg(format!("--timeout={time}"))).usage_error();
        assert_contains(&error, &["--timeout", "number of seconds above 0"]);
    }
}

#[test]
fn words_that_mean_nothing_are_refused_with_those_that_do() {
    for (args, parts) in [
        (&["fly"][..], &["fly"][..]),
        (&["run", "--fly"], &["--fly"]),
        (&["run", "a", "b"], &["'b'"]),
        (&["run", "--on-reset=fly"], &["exit", "reboot"]),
        (&["run", "--memory-backing=fly"], &["anonymous", "memfd"]),
        (&["run", "--huge-pages=fly"], &["none", "transparent", "2M"]),
        (&["run", "--timeline=fly"], &["text", "json", "svg"]),
        (&["run", "--timeline-file=fly"], &["--timeline"]),
        (&["completions", "fly"], &["bash", "zsh", "fish"]),
        (&["inspect"], &["<IMAGE>"]),
    ] {
        assert_contains(&run(goldcrest().args(args)).usage_error(), parts);
    }
}

#[test]
fn a_serial_log_that_cannot_be_made_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/log");
    for (path, why) in [
        (missing.as_path(), "No such file"),
        (dir.path(), "Is a directory"),
    ] {
        let complaint = run(boot(&guest()).arg("--serial").arg(path)).complaint(2);
        let what = format!("cannot create the serial log {}: ", path.display());
        assert_contains(&complaint, &[&what, why]);
    }
}

#[test]
fn a_full_disk_behind_the_output_is_a_failure() {
    if skip_without_kvm() {
        return;
    }
    const SAID: [&str; 2] = ["cannot write the guest's output", "No space left on device"];
    let log = run(boot(&unikernel("hello")).args(["--serial", "/dev/full"])).complaint(1);
    assert_contains(&log, &SAID);
    for args in [&["run"][..], &[], &["run", "--timeline"]] {
        let complaint = on_full_disk(goldcrest().args(args)).complaint(1);
        assert_contains(&complaint, &SAID);
    }
}

#[test]
fn what_is_printed_to_a_full_disk_is_a_failure() {
    for args in [&["completions", "bash"][..], &["man"]] {
        let complaint = on_full_disk(goldcrest().args(args)).complaint(1);
        assert_contains(
            &complaint,
            &["cannot write to standard output", "No space left"],
        );
    }
}

fn on_full_disk(command: &mut Command) -> Ended {
    let full = File::options().write(true).open("/dev/full").unwrap();
    Running::start_with_stdout(command.stdout(full)).finish()
}

#[test]
fn a_reader_that_goes_away_ends_the_guest() {
    if skip_without_kvm() {
        return;
    }
    let chatty = guests::chatty();
    for bytes_read in [0, 10_000] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let running = Running::start_with_stdout(boot(&chatty).stdout(writer));
        reader.read_exact(&mut vec![0; bytes_read]).unwrap();
        drop(reader);
        let complaint = running.finish().expect(1).stderr;
        assert_contains(
            &complaint,
            &["cannot write the guest's output: Broken pipe"],
        );
    }
}

#[test]
fn closed_standard_files_do_no_harm() {
    if skip_without_kvm() {
        return;
    }
    let hello = boot(&unikernel("hello"));
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let ended = run(&mut within(&format!("exec \"$@\" {closed}"), &hello))
            .soon()
            .expect(0);
        assert_eq!(
            ended.stdout.contains("Hello"),
            !closed.contains(" >") && closed != ">&-"
        );
    }
    let missing = within("exec \"$@\" 2>&-", &boot("/missing"));
    run(&mut { missing }).expect(2);
}

#[test]
fn a_timeline_that_cannot_be_written_is_a_failure() {
    if skip_without_kvm() {
        return;
    }
    let options = ["--timeline", "--timeline-file", "/missing/timeline"];
    let ended = run(boot(&guest()).args(options));
    assert_contains(
        &ended.complaint(1),
        &["cannot write the timeline /missing/timeline: No such file"],
    );
}

/// What the tool says where `script` has changed what `/dev/kvm` is, in a mount namespace of its own.
fn with_other_kvm(script: &str) -> Option<String> {
    let mut can_unshare = Command::new("unshare");
    can_unshare.args(["-rm", "true"]).stderr(Stdio::null());
    if !can_unshare.status().is_ok_and(|status| status.success()) || !Path::new("/dev/kvm").exists()
    {
        println!("skipped: no mount namespace of our own, or no /dev/kvm to hide in it");
        return None;
    }
    let script = format!("exec unshare -rm sh -c 'set -e; {script}' sh \"$@\"");
    Some(run(&mut within(&script, &boot(&guest()))).complaint(1))
}

#[test]
fn a_machine_without_kvm_is_told_what_to_do() {
    if let Some(said) = with_other_kvm("mount -t tmpfs none /dev; exec \"$@\"") {
        assert_contains(
            &said,
            &["cannot open /dev/kvm", "load kvm_intel or kvm_amd"],
        );
    }
}

#[test]
fn a_person_without_the_right_to_kvm_is_told_how_to_get_it() {
    let script = "mount -t tmpfs none /mnt; : >/mnt/kvm; chmod 0 /mnt/kvm; mount --bind /mnt/kvm /dev/kvm; \
                  exec setpriv --bounding-set=-all \"$@\"";
    if let Some(said) = with_other_kvm(script) {
        assert_contains(&said, &["cannot open /dev/kvm", "usermod -aG kvm"]);
    }
}

#[test]
fn another_device_in_place_of_kvm_is_noticed() {
    if let Some(said) = with_other_kvm("mount --bind /dev/null /dev/kvm; exec \"$@\"") {
        assert_contains(&said, &["/dev/kvm speaks version -1", "12 is needed"]);
    }
}
