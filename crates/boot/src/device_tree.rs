//! Flattened device trees (Devicetree Specification 0.4).
//!
//! That of direct entry has the virtio devices and how they interrupt, as the rest is in its boot information. Guests that
//! are told nothing otherwise get one with the whole machine.

use std::ops::Range;

use goldcrest_memory::{PAGE_SIZE, layout};
use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::module::Placed;
use crate::{BootError, Hardware, MmioDevice};

/// The only interrupt controller's.
const IOAPIC_PHANDLE: u32 = 1;

const SERIAL_PATH: &str = "/isa/serial@i3f8";

/// Second cell of an interrupt of the IOAPIC (Linux, `intel,ce4100-ioapic.yaml`).
const EDGE_RISING: u32 = 0;
const LEVEL_HIGH: u32 = 2;

/// The tree, or nothing where there are no devices to tell of.
pub(crate) fn device_tree(hardware: &Hardware<'_>) -> Result<Vec<u8>, BootError> {
    if hardware.mmio.is_empty() {
        return Ok(Vec::new());
    }
    write(hardware).map_err(|source| BootError::DeviceTree { source })
}

fn write(hardware: &Hardware<'_>) -> Result<Vec<u8>, vm_fdt::Error> {
    let mut tree = FdtWriter::new()?;
    let root = begin_root(&mut tree)?;
    write_ioapic(&mut tree)?;
    for device in hardware.mmio {
        write_device(&mut tree, device)?;
    }
    tree.end_node(root)?;
    tree.finish()
}

fn begin_root(tree: &mut FdtWriter) -> Result<vm_fdt::FdtWriterNode, vm_fdt::Error> {
    let root = tree.begin_node("")?;
    tree.property_string("model", "Goldcrest")?;
    tree.property_string("compatible", "goldcrest,machine")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("interrupt-parent", IOAPIC_PHANDLE)?;
    Ok(root)
}

/// Everything that a guest has to know of its machine.
pub(crate) struct Machine<'a> {
    pub(crate) memory: &'a [Range<u64>],
    /// Of that, what is not to be used: by ascending address, apart.
    pub(crate) reserved: &'a [Range<u64>],
    pub(crate) cpus: u32,
    /// Without a zero byte.
    pub(crate) cmdline: &'a [u8],
    pub(crate) modules: &'a [Placed<'a>],
    pub(crate) hardware: &'a Hardware<'a>,
}

impl Machine<'_> {
    /// The tree.
    pub(crate) fn write(&self) -> Result<Vec<u8>, BootError> {
        let tree = self.tree();
        tree.map_err(|source| BootError::DeviceTree { source })
    }

    fn tree(&self) -> Result<Vec<u8>, vm_fdt::Error> {
        let reserved = self.reserved.iter();
        let reserved =
            reserved.map(|range| FdtReserveEntry::new(range.start, range.end - range.start));
        let reserved: Vec<_> = reserved.collect::<Result<_, _>>()?;
        let mut tree = FdtWriter::new_with_mem_reserv(&reserved)?;
        let root = begin_root(&mut tree)?;
        self.write_chosen(&mut tree)?;
        self.write_cpus(&mut tree)?;
        self.write_memory(&mut tree)?;
        write_ioapic(&mut tree)?;
        if self.hardware.serial {
            write_serial(&mut tree)?;
        }
        for device in self.hardware.mmio {
            write_device(&mut tree, device)?;
        }
        tree.end_node(root)?;
        tree.finish()
    }

    /// §3.6, Linux's names for the RAM disk, and modules as Xen's `docs/misc/arm/device-tree/booting.txt` has them.
    fn write_chosen(&self, tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let node = tree.begin_node("chosen")?;
        tree.property("bootargs", &[self.cmdline, &[0]].concat())?;
        if self.hardware.serial {
            tree.property_string("stdout-path", SERIAL_PATH)?;
        }
        if let Some(first) = self.modules.first() {
            tree.property_u64("linux,initrd-start", first.start)?;
            tree.property_u64("linux,initrd-end", first.end())?;
            tree.property_u32("#address-cells", 2)?;
            tree.property_u32("#size-cells", 2)?;
        }
        for module in self.modules {
            let node = tree.begin_node(&format!("module@{:x}", module.start))?;
            tree.property_string("compatible", "multiboot,module")?;
            tree.property_array_u64("reg", &[module.start, module.len])?;
            tree.property_string("bootargs", module.arguments)?;
            tree.end_node(node)?;
        }
        tree.end_node(node)
    }

    /// §3.8; `reg` is the local APIC's identifier, as Linux has it on x86.
    fn write_cpus(&self, tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let node = tree.begin_node("cpus")?;
        tree.property_u32("#address-cells", 1)?;
        tree.property_u32("#size-cells", 0)?;
        for id in 0..self.cpus {
            let node = tree.begin_node(&format!("cpu@{id:x}"))?;
            tree.property_string("device_type", "cpu")?;
            tree.property_string("compatible", "cpu,x86")?;
            tree.property_u32("reg", id)?;
            tree.end_node(node)?;
        }
        tree.end_node(node)
    }

    /// §3.4.
    fn write_memory(&self, tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let start = self.memory.first().map_or(0, |range| range.start);
        let node = tree.begin_node(&format!("memory@{start:x}"))?;
        tree.property_string("device_type", "memory")?;
        let cells = self.memory.iter();
        let cells: Vec<_> = cells
            .flat_map(|range| [range.start, range.end - range.start])
            .collect();
        tree.property_array_u64("reg", &cells)?;
        tree.end_node(node)
    }
}

/// The first serial port, at ports of the ISA bus: the first cell of an address there is 1 for a port. No part of that
/// bus appears in memory, so there are no `ranges` (§2.3.8).
fn write_serial(tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let isa = tree.begin_node("isa")?;
    tree.property_string("compatible", "isa")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 1)?;
    let node = tree.begin_node("serial@i3f8")?;
    tree.property_string("compatible", "ns16550a")?;
    tree.property_array_u32("reg", &[1, 0x3f8, 8])?;
    tree.property_u32("clock-frequency", 1_843_200)?;
    tree.property_array_u32("interrupts", &[4, EDGE_RISING])?;
    tree.end_node(node)?;
    tree.end_node(isa)
}

/// As Linux's `Documentation/devicetree/bindings/interrupt-controller/intel,ce4100-ioapic.yaml` has it.
fn write_ioapic(tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node(&format!("interrupt-controller@{:x}", layout::IOAPIC))?;
    tree.property_string("compatible", "intel,ce4100-ioapic")?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#address-cells", 0)?;
    tree.property_u32("#interrupt-cells", 2)?;
    tree.property_array_u64("reg", &[layout::IOAPIC, PAGE_SIZE])?;
    tree.property_phandle(IOAPIC_PHANDLE)?;
    tree.end_node(node)
}

/// As virtio 1.3 §4.2.1 has it.
fn write_device(tree: &mut FdtWriter, device: &MmioDevice) -> Result<(), vm_fdt::Error> {
    let trigger = if device.edge { EDGE_RISING } else { LEVEL_HIGH };
    let node = tree.begin_node(&format!("virtio@{:x}", device.base))?;
    tree.property_string("compatible", "virtio,mmio")?;
    tree.property_array_u64("reg", &[device.base.into(), device.len.into()])?;
    tree.property_array_u32("interrupts", &[device.interrupt, trigger])?;
    tree.end_node(node)
}
