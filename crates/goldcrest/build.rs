//! Builds the demo unikernel that the tool carries: `examples/unikernels`, binary `hello`.
#![allow(clippy::expect_used, clippy::panic, reason = "a build script reports by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let target = PathBuf::from(variable("OUT_DIR")).join("unikernels");
    let package = root.join("examples/unikernels");
    for source in [
        &package,
        &root.join("crates/guest"),
        &root.join("crates/abi"),
    ] {
        println!("cargo:rerun-if-changed={}", source.display());
    }

    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--quiet", "--bin", "hello"])
        .arg("--manifest-path")
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    // What is meant for the tool (flags, wrappers, coverage) is not meant for a program without an operating system.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let for_this_build = name.starts_with("CARGO_") && name != "CARGO_HOME";
        if for_this_build || name.starts_with("RUSTC") || name.contains("RUSTFLAGS") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "the demo unikernel does not build");

    let image = target.join("release/hello");
    fs::copy(&image, Path::new(&variable("OUT_DIR")).join("hello")).expect("the demo was built");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
