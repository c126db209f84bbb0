//! Modules: files that a guest finds in its memory, each with arguments.

use goldcrest_memory::{PAGE_SIZE, layout};

use crate::areas::{AreaKind, Areas};
use crate::candidate::Job;
use crate::load::Loader;
use crate::{Announce, BootConfig, BootError, Image, device_tree};

/// The first address of modules: below is what a PC has from its firmware.
const LOWEST: u64 = 0x10_0000;

/// A file for the guest, as Multiboot and PVH have it.
#[derive(Debug)]
pub struct Module {
    /// Its content.
    pub image: Image,
    /// What the guest is told with it: arguments, or a name.
    pub arguments: String,
}

/// A module in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed<'a> {
    /// Guest-physical address, page-aligned.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) arguments: &'a str,
}

impl Placed<'_> {
    /// The first address behind it.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

impl<'a> Loader<'a> {
    /// Puts the RAM disk, as the first one, and all modules as low as they fit, but above 1 MiB: kernels that have
    /// just been started map little more than themselves.
    pub(crate) fn place_modules_low(
        &mut self,
        config: &BootConfig<'a>,
    ) -> Result<Vec<Placed<'a>>, BootError> {
        self.place_modules(config, |areas, what, len| {
            areas.lowest_in(AreaKind::Module, what, len, LOWEST..layout::HOLE_END)
        })
    }

    /// Puts the RAM disk, as the first one, and all modules as high as they fit below 4 GiB.
    pub(crate) fn place_modules_high(
        &mut self,
        config: &BootConfig<'a>,
    ) -> Result<Vec<Placed<'a>>, BootError> {
        self.place_modules(config, |areas, what, len| {
            areas.highest(AreaKind::Module, what, len, layout::HOLE_END)
        })
    }

    fn place_modules(
        &mut self,
        config: &BootConfig<'a>,
        find: impl Fn(&mut Areas, &'static str, u64) -> Result<u64, BootError>,
    ) -> Result<Vec<Placed<'a>>, BootError> {
        let initrd = config.initrd.map(|image| (image, ""));
        let modules = config.modules.iter();
        let modules = modules.map(|module| (&module.image, module.arguments.as_str()));
        let mut placed = Vec::new();
        for (image, arguments) in initrd.into_iter().chain(modules) {
            if let Some(offset) = arguments.bytes().position(|byte| byte == 0) {
                let module = image.name().to_owned();
                return Err(BootError::ModuleArguments { module, offset });
            }
            let (what, len) = ("a module", image.len());
            let start = find(&mut self.areas, what, len)?;
            self.copied += image.place(self.ram, what, 0, start, len)?;
            placed.push(Placed {
                start,
                len,
                arguments,
            });
        }
        Ok(placed)
    }
}

/// By which a guest knows the module with the device tree.
const DEVICE_TREE: &str = "device-tree";

impl<'a> Loader<'a> {
    /// Adds a device tree of the whole machine to the modules, as their last, if virtio devices are announced so.
    pub(crate) fn add_device_tree(
        &mut self,
        job: &Job<'_>,
        cmdline: &[u8],
        modules: &mut Vec<Placed<'a>>,
    ) -> Result<(), BootError> {
        if let Some((start, len)) = self.place_device_tree(job, cmdline, modules)? {
            modules.push(Placed {
                start,
                len,
                arguments: DEVICE_TREE,
            });
        }
        Ok(())
    }

    /// Puts a device tree of the whole machine into memory, if virtio devices are announced so; its address and length.
    pub(crate) fn place_device_tree(
        &mut self,
        job: &Job<'_>,
        cmdline: &[u8],
        modules: &[Placed<'_>],
    ) -> Result<Option<(u64, u64)>, BootError> {
        if job.hardware.announce != Announce::DeviceTree {
            return Ok(None);
        }
        let tree = self.device_tree(job, cmdline, modules)?;
        let (what, len) = ("the device tree", tree.len() as u64);
        let range = LOWEST..layout::HOLE_END;
        let start = self.areas.lowest_in(AreaKind::Module, what, len, range)?;
        self.write(what, start, &tree)?;
        Ok(Some((start, len)))
    }

    /// The device tree of the whole machine, for a guest that finds these modules. `cmdline` ends with a zero.
    pub(crate) fn device_tree(
        &self,
        job: &Job<'_>,
        cmdline: &[u8],
        modules: &[Placed<'_>],
    ) -> Result<Vec<u8>, BootError> {
        let reserved = self.areas.used().iter().filter(|area| {
            let kinds = [AreaKind::Firmware, AreaKind::Acpi, AreaKind::Module];
            kinds.contains(&area.kind)
        });
        let reserved: Vec<_> = reserved.map(|area| area.range.clone()).collect();
        let machine = device_tree::Machine {
            memory: self.areas.ram(),
            reserved: &reserved,
            cpus: job.config.cpus,
            cmdline: cmdline.split_last().map_or(&[], |(_, text)| text),
            modules,
            hardware: job.hardware,
        };
        machine.write()
    }
}

const _: () = assert!(LOWEST.is_multiple_of(PAGE_SIZE));
