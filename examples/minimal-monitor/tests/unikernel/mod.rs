//! Unikernels of `examples/unikernels`, built and run by a monitor under test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, str};

use goldcrest_vcpu::kvm::Kvm;

/// What `monitor` prints, and the status that it ends with, when it runs the unikernel `name`. None, and a line that
/// says why, where there is no KVM.
pub(crate) fn run(monitor: &str, name: &str, cmdline: &str) -> Option<(String, Option<i32>)> {
    if let Err(error) = Kvm::open() {
        println!("skipped: {error}");
        return None;
    }
    let output = Command::new(monitor)
        .arg(build(name))
        .arg(cmdline)
        .output()
        .unwrap();
    let stderr = str::from_utf8(&output.stderr).unwrap();
    assert_eq!(stderr, "", "{monitor} complains");
    let stdout = String::from_utf8(output.stdout).unwrap();
    Some((stdout, output.status.code()))
}

/// Builds a unikernel; its image.
fn build(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unikernels");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../unikernels/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "--bin", name]);
    cargo.arg("--manifest-path").arg(manifest);
    cargo.arg("--target-dir").arg(&target);
    // What is meant for this build (flags, wrappers, coverage) is not meant for a program without an operating system.
    for (variable, _) in env::vars_os() {
        let variable = variable.to_string_lossy();
        let of_cargo = variable.starts_with("CARGO_") && variable != "CARGO_HOME";
        if of_cargo || variable.starts_with("RUSTC") || variable.contains("RUSTFLAGS") {
            cargo.env_remove(&*variable);
        }
    }
    assert!(cargo.status().unwrap().success(), "{name} does not build");
    target.join("release").join(name)
}
