//! Booting what is on a disk: by the guest firmware, which finds a kernel there.

use std::io;

use goldcrest_boot::{Announce, Image, Protocol};
use goldcrest_monitor::{MachineConfig, MonitorError};
use goldcrest_vcpu::kvm::Kvm;

use crate::args::RunOptions;
use crate::doctor::probe;
use crate::failure::Failure;

/// The firmware, built from `firmware/`.
static FIRMWARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/firmware"));

/// Whether a disk is to be booted: there is one, or a firmware is named, and there is no image to start.
pub(crate) fn is_wanted(options: &RunOptions) -> bool {
    let named = options.firmware.is_some() || options.firmware_entry.is_some();
    options.image.is_none() && (named || !options.disk.is_empty())
}

/// The firmware's image.
pub(crate) fn firmware(options: &RunOptions) -> Result<Image, Failure> {
    Ok(match &options.firmware {
        Some(path) => Image::open(path)?,
        None => Image::from_bytes("firmware", FIRMWARE)?,
    })
}

/// Has the firmware started as it expects: by PVH, told of the disks in words, and with ACPI tables that tell the kernel.
pub(crate) fn prepare(options: &RunOptions, config: &mut MachineConfig) -> Result<(), Failure> {
    let refuse = |what: &str, advice: &str| Err(Failure::usage(what, io::Error::other(advice)));
    if options.initrd.is_some() {
        return refuse(
            "--initrd without a kernel",
            "what is on a disk has its own; name the kernel to start, too",
        );
    }
    if !options.module.is_empty() {
        return refuse(
            "--module without a kernel",
            "a kernel from a disk has no modules",
        );
    }
    if options.format.is_some_and(|asked| asked != Protocol::Pvh) {
        return refuse("the firmware is started by PVH", "leave --format out");
    }
    config.protocol = Some(Protocol::Pvh);
    config.announce = Announce::Both;
    if let Some(id) = &options.firmware_entry {
        config.cmdline = format!("firmware.entry={id} {}", config.cmdline);
    }
    Ok(())
}

/// Says no where a kernel would be emulated, instruction by instruction, up to the first that the emulator lacks.
pub(crate) fn check_ring_0() -> Result<(), Failure> {
    let kvm = Kvm::open().map_err(MonitorError::from)?;
    if probe::emulates_ring_0(&kvm).map_err(MonitorError::from)? {
        return Err(Failure::failed(
            "booting from a disk needs guest ring 0",
            io::Error::other(
                "this machine's KVM emulates it (see `goldcrest doctor`); one with VMX or SVM does not",
            ),
        ));
    }
    Ok(())
}
