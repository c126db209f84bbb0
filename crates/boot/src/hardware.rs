//! The devices of a machine, as far as a guest is told of them, and who tells it.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use goldcrest_memory::layout;

use crate::pc::GENERATION_ID;
use crate::{BootError, Solo5Device};

/// The most virtio-mmio devices that can be announced.
pub(crate) const MAX_MMIO_DEVICES: usize = 1024;

/// Devices that a guest is told of.
///
/// Direct entry announces virtio devices alone, and those by a device tree (crate `goldcrest-abi`): a unikernel finds
/// the others where a PC has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware<'a> {
    /// A 16550 at port 0x3f8, on interrupt 4.
    pub serial: bool,
    /// A real-time clock at port 0x70. Linux waits up to a second for one that is announced and does not answer.
    pub rtc: bool,
    /// A keyboard controller at port 0x60.
    pub i8042: bool,
    /// virtio devices.
    pub mmio: &'a [MmioDevice],
    /// How kernels are told of the virtio devices.
    pub announce: Announce,
    /// The input of the IOAPIC, edge-triggered, that says that the generation identifier is another one now; who is told
    /// by ACPI finds both (a generic event device, ACPI 6.5 §5.6.9, and Microsoft's "Virtual Machine Generation ID").
    pub generation_interrupt: Option<u32>,
    /// The devices of a Solo5 guest, each of which its manifest must name.
    pub solo5: &'a [Solo5Device],
}

impl Default for Hardware<'_> {
    /// A serial port.
    fn default() -> Self {
        Self {
            serial: true,
            rtc: false,
            i8042: false,
            mmio: &[],
            announce: Announce::default(),
            generation_interrupt: None,
            solo5: &[],
        }
    }
}

/// How a kernel that is not started by direct entry is told of virtio devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announce {
    /// By nodes of the ACPI namespace with the identifier `LNRO0005`.
    #[default]
    Acpi,
    /// By a parameter `virtio_mmio.device=SIZE@ADDRESS:INTERRUPT` each, for kernels without ACPI (Linux,
    /// `Documentation/admin-guide/kernel-parameters.txt`; needs `CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES`).
    ///
    /// It cannot say whether an interrupt is edge-triggered. A Linux that does have ACPI takes the inputs of the IOAPIC
    /// below 16 only.
    CommandLine,
    /// By a device tree of the whole machine. By PVH and Multiboot it is the last module, with the arguments
    /// `device-tree`; Linux finds it in its setup data (`SETUP_DTB`; needs `CONFIG_OF`).
    DeviceTree,
    /// By both: to a firmware by the parameter, which is easy to read, and by ACPI to the kernel that it starts.
    Both,
}

/// A virtio device with memory-mapped registers (virtio 1.3 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioDevice {
    /// Guest-physical address of its registers.
    pub base: u32,
    /// Bytes of registers.
    pub len: u32,
    /// Its input of the IOAPIC.
    pub interrupt: u32,
    /// The interrupt is edge-triggered, else level-triggered.
    pub edge: bool,
}

impl MmioDevice {
    /// Guest-physical addresses of the registers.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = u64::from(self.base);
        start..start + u64::from(self.len)
    }

    /// The device as a parameter of the Linux kernel.
    fn parameter(&self) -> String {
        let Self {
            base,
            len,
            interrupt,
            ..
        } = self;
        match len % 1024 {
            0 => format!("virtio_mmio.device={}K@{base:#x}:{interrupt}", len / 1024),
            _ => format!("virtio_mmio.device={len}@{base:#x}:{interrupt}"),
        }
    }
}

impl Hardware<'_> {
    /// Where devices can lie: in the hole below 4 GiB, up to the interrupt controllers.
    const ADDRESSES: Range<u64> = layout::HOLE_START..layout::IOAPIC;

    /// Guest-physical address of the generation identifier, where ACPI tells of one.
    pub(crate) fn generation_id(&self) -> Option<u64> {
        self.generation_interrupt.map(|_| GENERATION_ID)
    }

    pub(crate) fn check(&self) -> Result<(), BootError> {
        let count = self.mmio.len();
        if count > MAX_MMIO_DEVICES {
            return Err(BootError::TooManyDevices {
                count,
                limit: MAX_MMIO_DEVICES,
            });
        }
        let Range {
            start: lowest,
            end: limit,
        } = Self::ADDRESSES;
        let mut ranges = self.mmio.iter().map(MmioDevice::range);
        match ranges.find(|range| range.start < lowest || range.end > limit) {
            Some(Range { start, end }) => Err(BootError::DeviceAddress {
                start,
                last: end.saturating_sub(1),
                lowest,
                highest: limit - 1,
            }),
            None => Ok(()),
        }
    }

    /// The command line with the devices that it is to announce: behind the kernel's own parameters, but before a `--`,
    /// what follows which Linux leaves to init.
    pub(crate) fn cmdline<'c>(&self, cmdline: &'c str) -> Cow<'c, str> {
        let by_words = matches!(self.announce, Announce::CommandLine | Announce::Both);
        if !by_words || self.mmio.is_empty() {
            return cmdline.into();
        }
        let (kernels, inits) = cmdline.split_at(end_of_parameters(cmdline));
        let mut all = kernels.trim_end().to_owned();
        for device in self.mmio {
            let space = if all.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(all, "{space}{}", device.parameter());
        }
        if !inits.is_empty() {
            let _ = write!(all, " {inits}");
        }
        all.into()
    }
}

/// Where the word `--` begins that ends the kernel's parameters, unless quotes enclose it; else the length.
fn end_of_parameters(cmdline: &str) -> usize {
    let mut quoted = false;
    let mut offset = 0;
    for word in cmdline.split_inclusive(char::is_whitespace) {
        if !quoted && word.trim_end() == "--" {
            return offset;
        }
        quoted ^= word.matches('"').count() % 2 != 0;
        offset += word.len();
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: MmioDevice = MmioDevice {
        base: 0xd000_0000,
        len: 0x1000,
        interrupt: 5,
        edge: true,
    };

    fn cmdline<'a>(devices: &[MmioDevice], announce: Announce, cmdline: &'a str) -> Cow<'a, str> {
        let hardware = Hardware {
            mmio: devices,
            announce,
            ..Hardware::default()
        };
        hardware.cmdline(cmdline)
    }

    #[test]
    fn devices_are_announced_behind_the_kernels_parameters() {
        let devices = [
            DEVICE,
            MmioDevice {
                base: 0xd000_1000,
                len: 0x200,
                interrupt: 23,
                ..DEVICE
            },
        ];
        let expected = "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=512@0xd0001000:23";
        for (given, before, after) in [
            ("", "", ""),
            ("quiet", "quiet ", ""),
            ("a  b  -- sh -c x", "a  b ", " -- sh -c x"),
            ("--", "", " --"),
            ("a --b c--", "a --b c-- ", ""),
            ("a=\"x -- y\" b", "a=\"x -- y\" b ", ""),
            ("a=\"x -- y\" -- b", "a=\"x -- y\" ", " -- b"),
        ] {
            let told = cmdline(&devices, Announce::CommandLine, given);
            assert_eq!(told, format!("{before}{expected}{after}"), "{given:?}");
        }
    }

    #[test]
    fn nothing_is_announced_twice_or_without_devices() {
        assert_eq!(cmdline(&[DEVICE], Announce::Acpi, "a -- b"), "a -- b");
        assert_eq!(cmdline(&[], Announce::CommandLine, "a  -- b "), "a  -- b ");
        let both = cmdline(&[DEVICE], Announce::Both, "a");
        assert_eq!(both, "a virtio_mmio.device=4K@0xd0000000:5");
    }

    #[test]
    fn devices_lie_in_the_hole_below_the_interrupt_controllers() {
        let check = |base, len| {
            let device = MmioDevice {
                base,
                len,
                ..DEVICE
            };
            let hardware = Hardware {
                mmio: &[DEVICE, device],
                ..Hardware::default()
            };
            hardware.check().map_err(|error| error.to_string())
        };
        assert_eq!(check(0xc000_0000, 0x1000), Ok(()));
        assert_eq!(check(0xfebf_f000, 0x1000), Ok(()));
        for (base, len, last) in [
            (0xbfff_f000u32, 0x1000u32, 0xbfff_ffffu64),
            (0xfebf_f000, 0x1001, 0xfec0_0000),
            (0xfee0_0000, 0x1000, 0xfee0_0fff),
            (0xffff_f000, 0x2000, 0x1_0000_0fff),
        ] {
            let expected = format!(
                "a virtio-mmio device takes {base:#x}-{last:#x}: devices lie from 0xc0000000 to 0xfebfffff"
            );
            assert_eq!(check(base, len), Err(expected));
        }
    }
}
