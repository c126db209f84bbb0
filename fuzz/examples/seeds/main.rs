//! Writes the seeds that no fuzzer would find soon: images and snapshots that are well-formed.
//!
//! `cargo run --example seeds -- FOLDER` writes them to `FOLDER/TARGET/`. `ci/fuzz` starts from them and `corpus/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use disks::disk_seeds;
use foreign::foreign_seeds;
use guests::{cmdline_seeds, file_seeds, flat_seeds, image_seeds, multiboot_seeds};
use saved::{machine_seeds, page_server_seeds, snapshot_seeds, virtio_seeds, working_set_seeds};
use texts::{api_seeds, text_seeds};

mod disks;
mod foreign;
mod guests;
#[path = "../../../crates/boot/tests/images/mod.rs"]
mod images;
mod saved;
#[path = "../../../crates/firmware/tests/support/mod.rs"]
mod support;
mod texts;

/// Targets, and inputs to them.
type Seeds = Vec<(&'static str, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("name the folder to write to")?;
    let mut count = 0;
    for (target, seed) in [
        image_seeds(),
        foreign_seeds(),
        multiboot_seeds(),
        flat_seeds(),
        file_seeds(),
        cmdline_seeds(),
        snapshot_seeds()?,
        machine_seeds()?,
        virtio_seeds()?,
        working_set_seeds()?,
        page_server_seeds(),
        text_seeds(),
        api_seeds(),
        disk_seeds(),
    ]
    .concat()
    {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{count:02}")), seed)?;
        count += 1;
    }
    println!("{count} seeds");
    Ok(())
}
