//! Guests of every protocol that check from the inside what it promises: registers, segments, tables, modules, memory.
//!
//! They are written in C and assembly (`guests/`), built by the C compiler when a test needs one, and use nothing but
//! instructions that any KVM emulates in ring 0.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::*;
use tempfile::{TempDir, TempPath};

/// What a guest ends with if all is as promised: 0x10 at the debug-exit port.
const GOOD: i32 = 0x10 << 1 | 1;

/// How a guest is built.
struct Build {
    source: &'static str,
    /// What comes before code in C; else there is one source in assembly.
    entry: Option<&'static str>,
    /// The compiler's name of the machine, and the linker's.
    machine: [&'static str; 2],
    defines: Vec<String>,
    base: u64,
}

impl Build {
    /// A guest of 32 bits in C, at 1 MiB.
    fn c(source: &'static str) -> Self {
        Self {
            source,
            entry: Some("entry32.S"),
            machine: ["-m32", "elf_i386"],
            defines: Vec::new(),
            base: 0x10_0000,
        }
    }

    /// A guest of 64 bits in C, at 1 MiB, with pointers of 32 bits.
    fn c64(source: &'static str) -> Self {
        Self {
            entry: Some("entry64.S"),
            machine: ["-mx32", "elf32_x86_64"],
            ..Self::c(source)
        }
    }

    /// A guest in assembly alone.
    fn assembly(source: &'static str, base: u64) -> Self {
        Self {
            entry: None,
            defines: vec![format!("BASE={base:#x}")],
            base,
            ..Self::c(source)
        }
    }

    fn define(mut self, name: impl Into<String>) -> Self {
        self.defines.push(name.into());
        self
    }

    /// An ELF of 32 bits.
    fn elf32(&self, dir: &TempDir) -> PathBuf {
        let mut objects = vec![self.compile(dir, self.source)];
        if let Some(entry) = self.entry {
            objects.insert(0, self.compile(dir, entry));
        }
        let linked = dir.path().join("guest.elf");
        let mut ld = Command::new("ld");
        ld.args(["-m", self.machine[1], "-nostdlib"])
            .args(["--no-warn-rwx-segments", "-T"])
            .arg(guests().join("guest.ld"))
            .arg(format!("--defsym=BASE={:#x}", self.base))
            .arg("-o")
            .arg(&linked)
            .args(objects);
        done(&mut ld);
        linked
    }

    /// The same as an ELF of 64 bits.
    fn elf64(&self, dir: &TempDir) -> PathBuf {
        let from = self.elf32(dir);
        objcopy(dir, &from, &["-O", "elf64-x86-64"])
    }

    /// Its bytes alone, with zeroes that an ELF would not carry.
    fn flat(&self, dir: &TempDir) -> PathBuf {
        let from = self.elf32(dir);
        let whole = ["--set-section-flags", ".bss=alloc,load,contents"];
        objcopy(dir, &from, &[&whole[..], &["-O", "binary"]].concat())
    }

    fn compile(&self, dir: &TempDir, source: &str) -> PathBuf {
        let object = dir.path().join(source).with_extension("o");
        let mut cc = Command::new("cc");
        cc.args([self.machine[0], "-O1", "-ffreestanding"])
            .args(["-fno-pic", "-fno-pie", "-mno-red-zone"])
            .args([
                "-mgeneral-regs-only",
                "-fno-stack-protector",
                "-fcf-protection=none",
            ])
            .args(["-fno-asynchronous-unwind-tables", "-Wall", "-Werror"])
            .args(self.defines.iter().map(|define| format!("-D{define}")))
            .arg("-c")
            .arg(guests().join(source))
            .arg("-o")
            .arg(&object);
        done(&mut cc);
        object
    }
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests")
}

fn objcopy(dir: &TempDir, from: &Path, options: &[&str]) -> PathBuf {
    let to = dir.path().join("guest");
    done(Command::new("objcopy").args(options).arg(from).arg(&to));
    to
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}

/// The content of a module, as guests know it: so many bytes, from a seed on.
fn content(len: u32, seed: u32) -> TempPath {
    let bytes: Vec<u8> = (0..len)
        .map(|at| (seed + at * 7).to_le_bytes()[0])
        .collect();
    file(bytes)
}

/// The files that guests find as modules.
struct Modules {
    initrd: TempPath,
    modules: [(TempPath, &'static str); 2],
}

impl Modules {
    fn new() -> Self {
        Self {
            initrd: content(5000, 1),
            modules: [(content(4096, 9), ",4096 9 a,b"), (content(1, 77), ",1 77")],
        }
    }

    fn add_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.arg("--initrd").arg(&self.initrd);
        for (path, arguments) in &self.modules {
            let mut option = path.as_os_str().to_owned();
            option.push(arguments);
            command.arg("--module").arg(option);
        }
        command
    }
}

/// Runs a guest with a command line and modules; it must find all as promised.
#[track_caller]
fn finds_all_as_promised(image: &Path, options: &[&str]) {
    let modules = Modules::new();
    let mut command = boot(image);
    command.args(["--memory", "64M", "--timeout", "50", "--cmdline", "one"]);
    modules
        .add_to(&mut command)
        .args(options)
        .args(["--", "two"]);
    let ended = run(&mut command);
    assert_eq!(
        (ended.stdout.as_str(), ended.code()),
        ("as promised\n", GOOD),
        "{ended:?}"
    );
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn multiboot_elf32_and_elf64_kernels_find_all_as_promised() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    finds_all_as_promised(&Build::c("multiboot1.c").elf32(&dir), &[]);
    let build = Build::c("multiboot1.c").define("ELF64");
    finds_all_as_promised(&build.elf64(&dir), &["--format", "multiboot"]);
}

#[test]
fn a_multiboot_kernel_with_addresses_finds_all_as_promised() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    let build = Build::c("multiboot1.c").define("KLUDGE");
    // As an ELF, too, the address fields count.
    finds_all_as_promised(&build.flat(&dir), &[]);
}

#[test]
fn multiboot2_elf32_and_elf64_kernels_find_all_as_promised() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    finds_all_as_promised(&Build::c("multiboot2.c").elf32(&dir), &[]);
    let build = Build::c("multiboot2.c").define("ELF64");
    finds_all_as_promised(&build.elf64(&dir), &["--format", "multiboot2"]);
}

#[test]
fn a_multiboot2_kernel_with_an_address_tag_finds_all_as_promised() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    let build = Build::c("multiboot2.c").define("KLUDGE");
    finds_all_as_promised(&build.flat(&dir), &[]);
}

#[test]
fn a_relocatable_kernel_lies_where_its_header_wants_it() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    // Linked at 16 MiB, in 64 MiB of memory; it takes three pages.
    for (min, max, align, preference, expected) in [
        (0, u32::MAX, 0x1000, 0, 0x100_0000),
        (0x10_0000, u32::MAX, 0x1000, 1, 0x10_0000),
        (0x10_0001, u32::MAX, 0x20_0000, 1, 0x20_0000),
        (0x10_0000, u32::MAX, 0x20_0000, 2, 0x3e0_0000),
        (0x10_0000, 0x2ff_ffff, 0x10_0000, 2, 0x2f0_0000),
        (0x200_0000, u32::MAX, 0x1000, 0, 0x200_0000),
    ] {
        let build = Build::assembly("relocatable.S", 0x100_0000)
            .define(format!("MIN={min}"))
            .define(format!("MAX={max}"))
            .define(format!("ALIGN={align}"))
            .define(format!("PREFERENCE={preference}"))
            .define(format!("EXPECTED={expected}"));
        let mut command = boot(&build.elf32(&dir));
        let ended = run(command.args(["--memory", "64M", "--timeout", "50"]));
        assert_eq!(
            ended.code(),
            GOOD,
            "{min:#x} {max:#x} {align:#x} {preference}: {ended:?}"
        );
    }
}

#[test]
fn pvh_elf32_and_elf64_kernels_find_all_as_promised() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    finds_all_as_promised(&Build::c("pvh.c").elf32(&dir), &[]);
    finds_all_as_promised(&Build::c("pvh.c").elf64(&dir), &["--format", "pvh"]);
}

#[test]
fn a_kernel_that_starts_as_linux_does_finds_all_as_promised_and_its_disk_by_the_command_line() {
    if skip_without_kvm() {
        return;
    }
    let (dir, disk, initrd) = (dir(), disk(), content(5000, 1));
    let mut command = boot(&Build::c64("linux.c").elf64(&dir));
    command
        .args([
            "--memory",
            "64M",
            "--timeout",
            "50",
            "--announce",
            "cmdline",
        ])
        .args(["--no-rng", "--cmdline", "one", "--disk"])
        .arg(&*disk)
        .arg("--initrd")
        .arg(&*initrd)
        .args(["--", "two"]);
    let ended = run(&mut command);
    assert_eq!(
        (ended.stdout.as_str(), ended.code()),
        ("as promised\n", GOOD),
        "{ended:?}"
    );
}

/// A disk, of which guests are told by a device tree or on the command line.
fn disk() -> TempPath {
    file([0; 4096])
}

#[test]
fn flat_binaries_and_elf32s_without_a_header_find_all_in_the_device_tree() {
    if skip_without_kvm() {
        return;
    }
    let (dir, disk) = (dir(), disk());
    let disk = ["--cpus", "2", "--disk", disk.to_str().unwrap(), "--no-rng"];
    let flat = Build::c("bare.c").flat(&dir);
    let format = ["--format", "flat,addr=0x100000"];
    finds_all_as_promised(&flat, &[&disk[..], &format].concat());
    finds_all_as_promised(&Build::c("bare.c").elf32(&dir), &disk);
}

#[test]
fn flat_binaries_start_in_the_mode_and_at_the_address_that_is_asked_for() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    let ends_well = |image: &Path, format: &str| {
        let ended =
            run(boot(image).args(["--memory", "64M", "--timeout", "50", "--format", format]));
        assert_eq!(ended.code(), GOOD, "{format}: {ended:?}");
    };
    for base in [0x7c00, 0x1_0000, 0x2_1230] {
        let image = Build::assembly("flat16.S", base).flat(&dir);
        ends_well(&image, &format!("flat,addr={base},mode=16"));
    }
    for base in [0x20_0000, 0x300_0000] {
        let image = Build::assembly("flat64.S", base).flat(&dir);
        ends_well(&image, &format!("flat,mode=64,addr={base:#x}"));
        // With something before the first instruction.
        let padded = file([vec![0xf4; 4096], fs::read(&image).unwrap()].concat());
        let start = base - 4096;
        ends_well(
            &padded,
            &format!("flat,addr={start:#x},entry={base:#x},mode=64"),
        );
    }
}

#[test]
fn a_test_kernel_finds_the_devices_of_a_test_machine_and_not_those_of_another() {
    if skip_without_kvm() {
        return;
    }
    let dir = dir();
    let image = Build::c("testdev.c").elf32(&dir);
    let run_with = |options: [&str; 4]| {
        let mut command = boot(&image);
        command.args(["--memory", "64M", "--timeout", "50", "--cpus", "2"]);
        run(command.args(options))
    };
    let ended = run_with(["--machine", "test", "--cmdline", "one two"]);
    assert_eq!(
        (ended.stdout.as_str(), ended.code()),
        ("as promised\n", GOOD),
        "{ended:?}"
    );
    let ended = run_with(["--machine", "standard", "--cmdline", "kernel one two"]);
    assert_contains(
        &ended.expect(3).stdout,
        &["not as promised: testdev.c:", "fw_cfg(0, 4)"],
    );
}

#[test]
fn modules_for_a_protocol_that_has_none_are_refused() {
    let module = content(1, 1);
    let image = guests::guest(&[&guests::exit(0)]);
    let complaint = run(boot(&image).arg("--module").arg(&*module)).complaint(2);
    let expected = "started by direct, which has no modules: give it one file by --initrd, or choose another protocol";
    assert_contains(&complaint, &[expected]);
    let missing = run(boot(&image).args(["--module", "/nonexistent/module,x"])).complaint(2);
    assert_contains(&missing, &["cannot open /nonexistent/module"]);
}

/// Writes the device tree that a guest would be given to a file: loads it as the tool does.
fn tree(path: &Path) {
    use goldcrest_boot::{
        BootConfig, Flat, Hardware, Image, MmioDevice, Module, Protocol, load_with,
    };
    let ram = goldcrest_memory::GuestRam::new(&goldcrest_memory::MemoryConfig {
        size: 5 << 30,
        ..goldcrest_memory::MemoryConfig::default()
    });
    let ram = ram.unwrap();
    let image = Image::from_bytes("flat", vec![0xf4; 100]).unwrap();
    let initrd = Image::from_bytes("initrd", vec![1; 5000]).unwrap();
    let modules = [Module {
        image: Image::from_bytes("module", vec![2; 5000]).unwrap(),
        arguments: "second \"module\"".into(),
    }];
    let config = BootConfig {
        cmdline: "one two",
        initrd: Some(&initrd),
        modules: &modules,
        cpus: 12,
        protocol: Some(Protocol::Flat(Flat::at(0x10_0000))),
        ..BootConfig::default()
    };
    let mmio = [5, 6].map(|interrupt| MmioDevice {
        base: 0xd000_0000 + 0x1000 * interrupt,
        len: 0x1000,
        interrupt,
        edge: true,
    });
    let hardware = Hardware {
        mmio: &mmio,
        ..Hardware::default()
    };
    let loaded = load_with(&image, &ram, &config, &hardware).unwrap();
    let at = loaded.boot_info.unwrap();
    let mut header = [0; 8];
    ram.view().read(at, &mut header).unwrap();
    let len = u32::from_be_bytes(header[4..].try_into().unwrap());
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    ram.view().read(at, &mut bytes).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_device_tree_compiler_finds_nothing_wrong_with_the_device_tree() {
    let dir = dir();
    let path = dir.path().join("tree.dtb");
    tree(&path);
    let mut dtc = Command::new("dtc");
    dtc.args(["-I", "dtb", "-O", "dts"].map(OsStr::new))
        .arg(&path);
    let Ok(output) = dtc.output() else {
        println!("skipped: dtc is not installed");
        return;
    };
    let (source, warnings) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{warnings}");
    assert_eq!(warnings, "", "{source}");
    assert_contains(
        &source,
        &[
            "bootargs = \"one two\"",
            "stdout-path = \"/isa/serial@i3f8\"",
            "cpu@b {",
            "reg = <0x00 0x00 0x00 0xc0000000 0x01 0x00 0x00 0x80000000>",
            "virtio@d0005000 {",
            "compatible = \"multiboot,module\"",
        ],
    );
}
