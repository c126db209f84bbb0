//! Tells those who link this crate where its linker script is, and with which arguments an image is linked.

/// Arguments of the final link, in this order; none contains a space or a path.
///
/// The host target links position-independent programs by default: `-static -no-pie` undoes that. Objects compiled as
/// position-independent code are fine in an image at a fixed address. The standard library's crates are compiled for
/// unwinding and refer to its functions, which nothing calls where a panic ends the machine.
const LINK_ARGS: [&str; 10] = [
    "-nostartfiles",
    "-static",
    "-no-pie",
    "-Wl,-Tgoldcrest-guest.ld",
    "-Wl,-zmax-page-size=4096",
    "-Wl,-znorelro",
    "-Wl,--build-id=none",
    "-Wl,--no-eh-frame-hdr",
    "-Wl,--defsym=rust_eh_personality=0",
    "-Wl,--defsym=_Unwind_Resume=0",
];

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=goldcrest-guest.ld");
    println!("cargo:rustc-link-search={folder}");
    println!("cargo:link_args={}", LINK_ARGS.join(" "));
}
