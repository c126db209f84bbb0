//! The flattened device tree of direct entry (Devicetree Specification 0.4): virtio devices and how they interrupt.

use goldcrest_memory::{PAGE_SIZE, layout};
use vm_fdt::FdtWriter;

use crate::{BootError, Hardware, MmioDevice};

/// The only interrupt controller's.
const IOAPIC_PHANDLE: u32 = 1;

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
    let root = tree.begin_node("")?;
    tree.property_string("model", "Goldcrest")?;
    tree.property_string("compatible", "goldcrest,machine")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("interrupt-parent", IOAPIC_PHANDLE)?;
    write_ioapic(&mut tree)?;
    for device in hardware.mmio {
        write_device(&mut tree, device)?;
    }
    tree.end_node(root)?;
    tree.finish()
}

/// As Linux's `Documentation/devicetree/bindings/interrupt-controller/intel,ce4100-ioapic.yaml` has it.
fn write_ioapic(tree: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = tree.begin_node(&format!("interrupt-controller@{:x}", layout::IOAPIC))?;
    tree.property_string("compatible", "intel,ce4100-ioapic")?;
    tree.property_null("interrupt-controller")?;
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
