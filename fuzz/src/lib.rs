//! Goldcrest's fuzz targets: everything that a guest, an image or a snapshot can say to the monitor.
//!
//! A target is a module here with a function `run` that takes any bytes and asserts what must hold. It is called by
//! libFuzzer (`fuzz_targets/`, built by cargo-fuzz), and by `cargo test`, which replays the seed corpora. A run depends
//! on its bytes alone, and leaves nothing behind.
//!
//! ```
//! // The guest of the serial port reads its eight registers, by an access of eight bytes.
//! goldcrest_fuzz::serial::run(&[0xff, 0, 7, 0]);
//! ```
//!
//! # A new target
//!
//! A module, a line in [`TARGETS`], a file in `fuzz_targets/`, a `[[bin]]` in `Cargo.toml`, and a seed or two in
//! `corpus/NAME/`. `cargo test` says what is missing; `docs/fuzzing.md` has the steps.

pub mod access;
pub mod saved;

pub mod api;
pub mod archive;
pub mod boot_disk;
pub mod bus;
pub mod bzimage;
pub mod cmdline;
pub mod debug_exit;
mod disk_image;
pub mod doorbell;
#[path = "../../crates/virtio/tests/echo/mod.rs"]
mod echo;
pub mod elf;
pub mod elf_layout;
pub mod envelope;
pub mod ext4;
pub mod fat;
pub mod flat;
mod guest;
pub mod hermit;
pub mod hermit_hypercalls;
pub mod i8042;
pub mod identify;
#[path = "../../crates/boot/tests/images/mod.rs"]
mod images;
pub mod ioapic;
mod libfuzzer;
pub mod loader_entries;
pub mod machine_state;
pub mod mmds;
pub mod mmio;
pub mod multiboot;
pub mod multiboot2;
pub mod page_server;
pub mod parse;
pub mod partitions;
pub mod pe;
pub mod pic;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod solo5;
pub mod solo5_hypercalls;
pub mod state;
pub mod test_device;
pub mod usernet;
pub mod virtio_balloon;
pub mod virtio_blk;
pub mod virtio_console;
pub mod virtio_net;
pub mod virtio_rng;
pub mod virtio_vsock;
pub mod working_set;

#[doc(hidden)]
pub use libfuzzer::*;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the module, the file in `fuzz_targets/`, the program and the corpus.
    pub name: &'static str,
    /// Runs it once. It panics if something does not hold.
    pub run: fn(&[u8]),
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run }
    }
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target::new("api", api::run),
    Target::new("archive", archive::run),
    Target::new("boot_disk", boot_disk::run),
    Target::new("bus", bus::run),
    Target::new("bzimage", bzimage::run),
    Target::new("cmdline", cmdline::run),
    Target::new("debug_exit", debug_exit::run),
    Target::new("doorbell", doorbell::run),
    Target::new("elf", elf::run),
    Target::new("elf_layout", elf_layout::run),
    Target::new("envelope", envelope::run),
    Target::new("ext4", ext4::run),
    Target::new("fat", fat::run),
    Target::new("hermit", hermit::run),
    Target::new("hermit_hypercalls", hermit_hypercalls::run),
    Target::new("flat", flat::run),
    Target::new("i8042", i8042::run),
    Target::new("identify", identify::run),
    Target::new("ioapic", ioapic::run),
    Target::new("loader_entries", loader_entries::run),
    Target::new("machine_state", machine_state::run),
    Target::new("mmds", mmds::run),
    Target::new("mmio", mmio::run),
    Target::new("multiboot", multiboot::run),
    Target::new("multiboot2", multiboot2::run),
    Target::new("page_server", page_server::run),
    Target::new("parse", parse::run),
    Target::new("partitions", partitions::run),
    Target::new("pe", pe::run),
    Target::new("pic", pic::run),
    Target::new("power", power::run),
    Target::new("rtc", rtc::run),
    Target::new("serial", serial::run),
    Target::new("solo5", solo5::run),
    Target::new("solo5_hypercalls", solo5_hypercalls::run),
    Target::new("state", state::run),
    Target::new("test_device", test_device::run),
    Target::new("usernet", usernet::run),
    Target::new("virtio_balloon", virtio_balloon::run),
    Target::new("virtio_blk", virtio_blk::run),
    Target::new("virtio_console", virtio_console::run),
    Target::new("virtio_net", virtio_net::run),
    Target::new("virtio_rng", virtio_rng::run),
    Target::new("virtio_vsock", virtio_vsock::run),
    Target::new("working_set", working_set::run),
];
