//! Builds what the tool carries: the demo unikernel (`examples/unikernels`, binary `hello`) and the guest firmware
//! (`firmware/`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a build script reports by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    link_statically();
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for source in ["crates/guest", "crates/abi", "crates/firmware"] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    build(&root.join("examples/unikernels"), "hello");
    build(&root.join("firmware"), "firmware");
}

/// Builds a program without an operating system. All go to one folder, as they have dependencies in common.
fn build(package: &Path, program: &str) {
    let target = PathBuf::from(variable("OUT_DIR")).join("unikernels");
    println!("cargo:rerun-if-changed={}", package.display());

    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--quiet", "--bin", program])
        .arg("--manifest-path")
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    // What is meant for the tool (flags, wrappers, coverage) is not meant for a program without an operating system.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        // Where crates come from, and whether the network may be used, holds for all that is built.
        let kept = [
            "CARGO_HOME",
            "CARGO_NET_",
            "CARGO_HTTP_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
        ];
        let for_this_build =
            name.starts_with("CARGO_") && !kept.iter().any(|kept| name.starts_with(kept));
        if for_this_build || name.starts_with("RUSTC") || name.contains("RUSTFLAGS") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "{} does not build", package.display());

    let image = target.join("release").join(program);
    fs::copy(&image, Path::new(&variable("OUT_DIR")).join(program)).expect("it was built");
}

/// Links the tool against the C library's archives: a static program starts 0.2 ms sooner, and runs in any root.
///
/// `-C target-feature=+crt-static` would do it too, but not for a package with procedural macros that is built for the
/// host. So the linker finds, where rustc has it look for shared libraries, scripts that name the archives.
fn link_statically() {
    let archives = ["libc.a", "libm.a", "libgcc_eh.a", "libgcc.a"].map(find_archive);
    if variable("TARGET") != "x86_64-unknown-linux-gnu" || archives.contains(&None) {
        return;
    }
    let [libc, libm, libgcc_eh, libgcc] = archives.map(Option::unwrap_or_default);
    let dir = PathBuf::from(variable("OUT_DIR")).join("static");
    fs::create_dir_all(&dir).expect("OUT_DIR can be written");
    for (library, script) in [
        ("libc.so", format!("GROUP({libc} {libgcc_eh} {libgcc})")),
        ("libm.so", format!("INPUT({libm})")),
        ("libgcc_s.so", format!("GROUP({libgcc_eh} {libgcc} {libc})")),
    ] {
        fs::write(dir.join(library), script).expect("OUT_DIR can be written");
    }
    // For the program alone: a search path would reach tests of other crates too.
    println!("cargo:rustc-link-arg-bins=-L{}", dir.display());
    println!("cargo:rustc-link-arg-bins=-static-pie");
    if variable("PROFILE") == "release" {
        leave_out_tables(&dir);
    }
}

/// Leaves out what a tenth of the program would be: tables by which nobody unwinds, since a panic aborts, and addresses
/// that a start need not have in a table each.
fn leave_out_tables(dir: &Path) {
    let script = dir.join("no-unwinding.ld");
    let discard =
        "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table*) } } INSERT AFTER .text;";
    fs::write(&script, discard).expect("OUT_DIR can be written");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}

/// Where the C compiler has this archive, if it has it.
fn find_archive(name: &str) -> Option<String> {
    let output = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
