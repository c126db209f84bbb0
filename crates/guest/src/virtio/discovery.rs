//! Which devices there are: by the device tree of direct entry, or by the command line.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

use super::registers::read;
use super::spec::{MAGIC, VERSION, register};
use crate::abi::boot_info::MemoryRegion;
use crate::boot;

/// How a parameter of the command line begins that announces a device.
const PARAMETER: &str = "virtio_mmio.device=";

/// Bytes of registers and configuration that a device has at least.
const MIN_LEN: u32 = 0x200;
/// Where devices' registers are: not in RAM, and below the interrupt controllers.
const LOWEST: u32 = 0xc000_0000;
const LIMIT: u32 = 0xfec0_0000;

/// A virtio device with memory-mapped registers that the host has announced, and that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    base: u32,
    interrupt: u32,
    edge: bool,
    id: u32,
}

impl Device {
    /// Guest-physical address of its registers.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// Its input of the IOAPIC.
    pub fn interrupt(&self) -> u32 {
        self.interrupt
    }

    /// Its interrupt is edge-triggered, else level-triggered.
    pub fn is_edge_triggered(&self) -> bool {
        self.edge
    }

    /// Its kind, one of [`id`](super::id).
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// The machine's virtio devices, in the order in which the host announces them.
///
/// After direct entry that is by a device tree ([`abi`](crate::abi)), else by the words `virtio_mmio.device=` of the
/// command line, which QEMU's `microvm` and Firecracker append by themselves.
pub fn devices() -> impl Iterator<Item = Device> {
    // The page tables of direct entry do not map what the command line names.
    let command_line = if boot::is_all_mapped() {
        boot::command_line()
    } else {
        ""
    };
    from_tree(boot::device_tree())
        .chain(from_command_line(command_line))
        .filter(|announced| announced.is_apart(boot::regions()))
        .filter_map(Announced::probe)
}

/// Whether a word of the command line announces a device, and so is not for the program.
pub fn is_announcement(word: &str) -> bool {
    word.starts_with(PARAMETER)
}

/// A device as it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    base: u64,
    len: u64,
    interrupt: u32,
    edge: bool,
}

impl Announced {
    /// Whether nothing but device registers can be there.
    fn is_apart(&self, regions: &[MemoryRegion]) -> bool {
        let Some(end) = self.base.checked_add(self.len) else {
            return false;
        };
        let overlaps = |region: &MemoryRegion| {
            region.start < end && self.base < region.start.saturating_add(region.len)
        };
        self.base >= LOWEST.into()
            && end <= LIMIT.into()
            && self.len >= MIN_LEN.into()
            && self.base.is_multiple_of(4)
            && !regions.iter().any(overlaps)
    }

    /// Looks whether a device answers (§4.2.2.2).
    fn probe(self) -> Option<Device> {
        let base = u32::try_from(self.base).ok()?;
        let found = [register::MAGIC_VALUE, register::VERSION].map(|at| read(base, at));
        let id = (found == [MAGIC, VERSION]).then(|| read(base, register::DEVICE_ID))?;
        (id != 0).then_some(Device {
            base,
            interrupt: self.interrupt,
            edge: self.edge,
            id,
        })
    }
}

/// The devices of a flattened device tree: children of the root.
fn from_tree(tree: &[u8]) -> impl Iterator<Item = Announced> {
    let tree = Fdt::new(tree).ok();
    let nodes = tree.into_iter().flat_map(|tree| tree.root().children());
    nodes
        .filter(|node| node.is_compatible("virtio,mmio"))
        .filter_map(from_node)
}

fn from_node(node: FdtNode<'_>) -> Option<Announced> {
    let reg = node.reg().ok()??.next()?;
    let interrupts = node.property("interrupts")?;
    let [interrupt, trigger] = *interrupts.value().as_chunks::<4>().0 else {
        return None;
    };
    Some(Announced {
        base: reg.address().ok()?,
        len: reg.size().ok()?,
        interrupt: u32::from_be_bytes(interrupt),
        // A rising edge is 0, a high level 2.
        edge: u32::from_be_bytes(trigger) == 0,
    })
}

/// The devices of a command line, `virtio_mmio.device=[SIZE@]ADDRESS:INTERRUPT[:ID]` each (Linux,
/// `Documentation/admin-guide/kernel-parameters.txt`). As there, interrupts are taken for edge-triggered.
fn from_command_line(command_line: &str) -> impl Iterator<Item = Announced> {
    let words = command_line.split_ascii_whitespace();
    words.filter_map(|word| from_parameter(word.strip_prefix(PARAMETER)?))
}

fn from_parameter(value: &str) -> Option<Announced> {
    let (len, rest) = match value.split_once('@') {
        Some((len, rest)) => (size(len)?, rest),
        None => (MIN_LEN.into(), value),
    };
    let mut parts = rest.split(':');
    Some(Announced {
        base: number(parts.next()?)?,
        len,
        interrupt: parts.next()?.parse().ok()?,
        edge: true,
    })
}

/// A number of bytes, with K, M or G or without.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 10),
        b'M' => (text.get(..text.len() - 1)?, 20),
        b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::abi::boot_info::region;

    fn device(base: u64, len: u64, interrupt: u32) -> Announced {
        Announced {
            base,
            len,
            interrupt,
            edge: true,
        }
    }

    #[test]
    fn devices_are_found_on_the_command_lines_of_other_monitors() {
        let found: Vec<_> = from_command_line(
            "console=ttyS0 virtio_mmio.device=512@0xfeb00e00:12 write virtio_mmio.device=4K@0xd0000000:5 \
             virtio_mmio.device=0x1000@3489660928:23:7 virtio_mmio.device=0xd0001000:6",
        )
        .collect();
        let expected = [
            device(0xfeb0_0e00, 512, 12),
            device(0xd000_0000, 4096, 5),
            device(0xd000_0000, 4096, 23),
            device(0xd000_1000, 512, 6),
        ];
        assert_eq!(found, expected);
        assert!(found.iter().all(|device| device.is_apart(&[])));
    }

    /// A tree with nodes of this compatibility, and these values of `reg` and `interrupts`.
    fn tree(nodes: &[(&str, &[u64], &[u32])]) -> Result<Vec<u8>, vm_fdt::Error> {
        let mut tree = vm_fdt::FdtWriter::new()?;
        let root = tree.begin_node("")?;
        tree.property_u32("#address-cells", 2)?;
        tree.property_u32("#size-cells", 2)?;
        for (number, (compatible, reg, interrupts)) in nodes.iter().enumerate() {
            let node = tree.begin_node(&std::format!("node@{number}"))?;
            tree.property_string("compatible", compatible)?;
            tree.property_array_u64("reg", reg)?;
            tree.property_array_u32("interrupts", interrupts)?;
            tree.end_node(node)?;
        }
        tree.end_node(root)?;
        tree.finish()
    }

    #[test]
    fn devices_are_found_in_a_device_tree() {
        let nodes: [(&str, &[u64], &[u32]); 5] = [
            ("intel,ce4100-ioapic", &[0xfec0_0000, 0x1000], &[]),
            ("virtio,mmio", &[0xd000_0000, 0x1000], &[5, 0]),
            ("virtio,mmio", &[0xd000_1000, 0x200], &[23, 2]),
            ("virtio,mmio", &[], &[6, 0]),
            ("virtio,mmio", &[0xd000_2000, 0x1000], &[7]),
        ];
        let tree = tree(&nodes).expect("it is a tree");
        let level = Announced {
            edge: false,
            ..device(0xd000_1000, 0x200, 23)
        };
        let found: Vec<_> = from_tree(&tree).collect();
        assert_eq!(found, [device(0xd000_0000, 0x1000, 5), level]);
        assert_eq!(from_tree(&[]).count(), 0);
        assert_eq!(from_tree(tree.get(..40).unwrap_or_default()).count(), 0);
    }

    #[test]
    fn parameters_that_make_no_sense_are_passed_over() {
        for word in [
            "",
            "4K@",
            "4K@0xd0000000",
            "@0xd0000000:5",
            "K@1:5",
            "é@1:5",
            "4é@1:5",
            "1@x:5",
            "99999999999G@1:2",
        ] {
            assert_eq!(from_parameter(word), None, "{word}");
        }
        assert!(is_announcement("virtio_mmio.device=4K@0xd0000000:5"));
        assert!(!is_announcement("write"));
    }

    #[test]
    fn what_can_be_memory_is_not_taken_for_a_device() {
        let ram = MemoryRegion {
            start: 0xd000_0000,
            len: 0x1000,
            kind: region::USABLE,
            reserved: 0,
        };
        assert!(device(0xd000_1000, 0x1000, 5).is_apart(&[ram]));
        for (base, len) in [
            (0xd000_0e00, 0x1000),
            (0xcfff_f000, 0x1001),
            (0x10_0000, 0x1000),
            (0xd000_2002, 0x1000),
            (0xd000_2000, 0x1ff),
            (0xfebf_ff00, 0x200),
            (0xfee0_0000, 0x1000),
            (u64::MAX - 3, 0x1000),
        ] {
            assert!(!device(base, len, 5).is_apart(&[ram]), "{base:#x}");
        }
    }
}
