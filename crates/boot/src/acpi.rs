//! ACPI tables (ACPI 6.5) of a hardware-reduced platform: no power management timer, no legacy interrupt, no PIT.
//!
//! The guest finds its processors, the IOAPIC, the serial port and virtio-mmio devices here, and by which ports it
//! sleeps for good (S5) and resets.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use goldcrest_abi::power;
use goldcrest_memory::layout;

use crate::pc::GENERATION_ID;
use crate::{Announce, Hardware, MmioDevice};

const OEM: [u8; 6] = *b"GLDCST";
const OEM_TABLE: [u8; 8] = *b"GLDCREST";
const OEM_REVISION: u32 = 1;

/// The name of the device with the generation identifier.
const GENERATION_COUNTER: &str = "VGEN";

/// Bits of `IAPC_BOOT_ARCH` (ACPI §5.2.9.3).
mod boot_arch {
    pub(super) const I8042: u16 = 1 << 1;
    pub(super) const NO_VGA: u16 = 1 << 2;
    pub(super) const NO_RTC: u16 = 1 << 5;
}

/// All tables, to lie from `base`, the root pointer (RSDP) first.
pub(crate) fn tables(base: u64, cpus: u32, hardware: &Hardware<'_>) -> Vec<u8> {
    let mut bytes = vec![0; Rsdp::len()];
    let mut add = |table: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let address = base + bytes.len() as u64;
        bytes.extend(table);
        address
    };
    let dsdt = add(dsdt(hardware).as_slice());
    let fadt = add(&fadt(dsdt, hardware));
    let madt = add(madt(cpus, hardware).as_slice());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = add(&to_bytes(&xsdt));
    let rsdt = add(rsdt([fadt, madt]).as_slice());
    let rsdp = with_rsdt(&to_bytes(&Rsdp::new(OEM, xsdt)), rsdt);
    bytes.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);
    bytes
}

/// Bytes of a root pointer of ACPI 2.0 and newer, and of ACPI 1.0 (§5.2.5.3).
pub(crate) const RSDP_SIZE: usize = 36;
pub(crate) const RSDP_1_SIZE: usize = 20;

/// Offsets in the root pointer.
mod rsdp {
    pub(super) const CHECKSUM: usize = 8;
    pub(super) const REVISION: usize = 15;
    pub(super) const RSDT: usize = 16;
    pub(super) const EXTENDED_CHECKSUM: usize = 32;
}

/// RSDT (§5.2.7): the tables, for kernels that know nothing but ACPI 1.0.
fn rsdt(tables: [u64; 2]) -> Sdt {
    table(*b"RSDT", 1, tables.map(low).as_flattened())
}

/// The root pointer with the address of the RSDT.
fn with_rsdt(pointer: &[u8], rsdt: u64) -> [u8; RSDP_SIZE] {
    let mut bytes = [0; RSDP_SIZE];
    bytes
        .iter_mut()
        .zip(pointer)
        .for_each(|(to, from)| *to = *from);
    let field = bytes.iter_mut().skip(rsdp::RSDT);
    field.zip(low(rsdt)).for_each(|(to, from)| *to = from);
    set_checksum(&mut bytes, RSDP_1_SIZE, rsdp::CHECKSUM);
    set_checksum(&mut bytes, RSDP_SIZE, rsdp::EXTENDED_CHECKSUM);
    bytes
}

/// The root pointer as ACPI 1.0 has it.
pub(crate) fn rsdp_1(pointer: &[u8; RSDP_SIZE]) -> [u8; RSDP_1_SIZE] {
    let mut bytes = [0; RSDP_1_SIZE];
    bytes
        .iter_mut()
        .zip(pointer)
        .for_each(|(to, from)| *to = *from);
    bytes[rsdp::REVISION] = 0;
    set_checksum(&mut bytes, RSDP_1_SIZE, rsdp::CHECKSUM);
    bytes
}

/// Sets a byte such that all of the first `len` sum to zero.
fn set_checksum(bytes: &mut [u8], len: usize, at: usize) {
    let total = |bytes: &[u8]| {
        bytes
            .iter()
            .take(len)
            .fold(0u8, |sum, byte| sum.wrapping_add(*byte))
    };
    let sum = total(bytes);
    if let Some(field) = bytes.get_mut(at) {
        *field = field.wrapping_sub(sum);
    }
}

fn to_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// FADT (§5.2.9): where to sleep and reset, what is not there.
fn fadt(dsdt: u64, hardware: &Hardware<'_>) -> Vec<u8> {
    let port = |port: u16| {
        let access = AccessSize::ByteAccess;
        GAS::new(AddressSpace::SystemIo, 8, 0, access, port.into())
    };
    let i8042 = if hardware.i8042 { boot_arch::I8042 } else { 0 };
    let no_rtc = if hardware.rtc { 0 } else { boot_arch::NO_RTC };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (boot_arch::NO_VGA | i8042 | no_rtc).into();
    fadt.reset_reg = port(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"GOLDCRST").into();
    to_bytes(&fadt.finalize())
}

/// MADT (§5.2.12): local APICs, with identifiers from 0, and the one IOAPIC.
///
/// Devices on the command line have nothing but a number for their interrupt. Linux takes it for an ISA interrupt, and
/// has none of those on this platform but what is overridden here (§5.2.12.5), which can be the first 16.
fn madt(cpus: u32, hardware: &Hardware<'_>) -> Sdt {
    const LOCAL_APIC: [u8; 2] = [0, 8];
    const IOAPIC: [u8; 2] = [1, 12];
    const LOCAL_X2APIC: [u8; 2] = [9, 16];
    const ENABLED: u32 = 1;
    let mut body = Vec::new();
    body.extend(low(layout::LOCAL_APIC));
    body.extend([0; 4]);
    for id in 0..cpus {
        // 255 is the broadcast address of an xAPIC.
        match u8::try_from(id) {
            Ok(id @ 0..=254) => {
                body.extend(LOCAL_APIC);
                body.extend([id, id]);
                body.extend(ENABLED.to_le_bytes());
            }
            _ => {
                body.extend(LOCAL_X2APIC);
                body.extend([0; 2]);
                body.extend([id, ENABLED, id].map(u32::to_le_bytes).as_flattened());
            }
        }
    }
    body.extend(IOAPIC);
    body.extend([0; 2]);
    body.extend(low(layout::IOAPIC));
    body.extend([0; 4]);
    if hardware.announce == Announce::CommandLine {
        for device in hardware.mmio.iter().filter(|device| device.interrupt < 16) {
            body.extend(interrupt_source_override(device));
        }
    }
    table(*b"APIC", 5, &body)
}

/// An ISA interrupt that is an input of the IOAPIC: active high, edge- or level-triggered (§5.2.12.5, table 5.26).
fn interrupt_source_override(device: &MmioDevice) -> [u8; 10] {
    const EDGE_HIGH: u8 = 0b0101;
    const LEVEL_HIGH: u8 = 0b1101;
    let [pin, pin_1, pin_2, pin_3] = device.interrupt.to_le_bytes();
    let flags = if device.edge { EDGE_HIGH } else { LEVEL_HIGH };
    [2, 10, 0, pin, pin, pin_1, pin_2, pin_3, flags, 0]
}

/// DSDT (§5.2.11.1): the devices.
fn dsdt(hardware: &Hardware<'_>) -> Sdt {
    let mut body = to_bytes(&Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&power::S5_TYPE, &aml::ZERO]),
    ));
    let mut devices = Vec::new();
    if hardware.serial {
        let ports = IO::new(0x3f8, 0x3f8, 1, 8);
        let interrupt = Interrupt::new(true, true, false, false, 4);
        devices.extend(device(
            "COM1",
            &EISAName::new("PNP0501"),
            0,
            &[&ports, &interrupt],
        ));
    }
    if hardware.rtc {
        let ports = IO::new(0x70, 0x70, 1, 2);
        devices.extend(device("RTC_", &EISAName::new("PNP0B00"), 0, &[&ports]));
    }
    let announced = match hardware.announce {
        Announce::Acpi | Announce::Both => hardware.mmio,
        Announce::CommandLine | Announce::DeviceTree => &[],
    };
    for (number, mmio) in announced.iter().enumerate() {
        let registers = Memory32Fixed::new(true, mmio.base, mmio.len);
        let interrupt = Interrupt::new(true, mmio.edge, false, false, mmio.interrupt);
        let name = format!("V{number:03X}");
        devices.extend(device(
            &name,
            &"LNRO0005",
            number,
            &[&registers, &interrupt],
        ));
    }
    if let Some(interrupt) = hardware.generation_interrupt {
        devices.extend(generation_counter());
        devices.extend(generic_events(interrupt));
    }
    body.extend(Scope::raw(Path::new("\\_SB_"), devices));
    table(*b"DSDT", 2, &body)
}

/// The device that has the address of the generation identifier ("Virtual Machine Generation ID", Microsoft 2012),
/// which drivers know by its compatible name.
fn generation_counter() -> Vec<u8> {
    let address = [GENERATION_ID & 0xffff_ffff, GENERATION_ID >> 32];
    let [low, high] = &address;
    to_bytes(&Device::new(
        Path::new(GENERATION_COUNTER),
        vec![
            &Name::new(Path::new("_HID"), &"GLDC0001"),
            &Name::new(Path::new("_CID"), &"VM_Gen_Counter"),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(Path::new("ADDR"), &Package::new(vec![low, high])),
        ],
    ))
}

/// The generic event device (§5.6.9): its interrupt says that the generation identifier is another one.
fn generic_events(interrupt: u32) -> Vec<u8> {
    const CHANGED: u8 = 0x80;
    let interrupt = Interrupt::new(true, true, false, false, interrupt);
    to_bytes(&Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&interrupt])),
            &Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![&Notify::new(&Path::new(GENERATION_COUNTER), &CHANGED)],
            ),
        ],
    ))
}

fn device(name: &str, hardware_id: &dyn Aml, unique_id: usize, resources: &[&dyn Aml]) -> Vec<u8> {
    to_bytes(&Device::new(
        Path::new(name),
        vec![
            &Name::new(Path::new("_HID"), hardware_id),
            &Name::new(Path::new("_UID"), &unique_id),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(resources.to_vec()),
            ),
        ],
    ))
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    const HEADER: u32 = 36;
    let mut table = Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table
}

/// The low half: the addresses are constants below 4 GiB.
fn low(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::MAX_MMIO_DEVICES;
    use crate::pc;

    const BASE: u64 = pc::ACPI.start;

    fn at(tables: &[u8], address: u64) -> &[u8] {
        let start = usize::try_from(address - BASE).unwrap();
        let len = u32::from_le_bytes(tables[start + 4..start + 8].try_into().unwrap());
        &tables[start..start + usize::try_from(len).unwrap()]
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    fn mmio() -> Vec<MmioDevice> {
        let device = |n: u32| MmioDevice {
            base: 0xd000_0000 + n * 0x1000,
            len: 0x1000,
            interrupt: 5 + n,
            edge: true,
        };
        (0..19).map(device).collect()
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_zero() {
        let mmio = mmio();
        let hardware = Hardware {
            rtc: true,
            i8042: true,
            mmio: &mmio,
            ..Hardware::default()
        };
        let tables = tables(BASE, 300, &hardware);
        assert_eq!(&tables[..8], b"RSD PTR ");
        assert!(sums_to_zero(&tables[..20]) && sums_to_zero(&tables[..36]));
        let xsdt = at(&tables, u64_at(&tables, 24));
        let fadt = at(&tables, u64_at(xsdt, 36));
        let madt = at(&tables, u64_at(xsdt, 44));
        let dsdt = at(&tables, u64_at(fadt, 140));
        let rsdt = u32::from_le_bytes(tables[16..20].try_into().unwrap());
        let rsdt = at(&tables, rsdt.into());
        for entry in 0..2 {
            let low = u32::from_le_bytes(rsdt[36 + 4 * entry..][..4].try_into().unwrap());
            assert_eq!(u64::from(low), u64_at(xsdt, 36 + 8 * entry));
        }
        let old = rsdp_1(&tables[..36].try_into().unwrap());
        assert!(sums_to_zero(&old));
        assert_eq!((old[15], &old[16..20]), (0, &tables[16..20]));
        for (table, signature) in [
            (xsdt, b"XSDT"),
            (rsdt, b"RSDT"),
            (fadt, b"FACP"),
            (madt, b"APIC"),
            (dsdt, b"DSDT"),
        ] {
            assert_eq!(&table[..4], signature);
            assert!(sums_to_zero(table), "{signature:?}");
        }
        assert_eq!(madt.len(), 44 + 255 * 8 + 45 * 16 + 12);
        assert_eq!(fadt[116..129], [1, 8, 0, 1, 2, 6, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(fadt[244..256], [1, 8, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fadt[256..268], [1, 8, 0, 1, 1, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fadt[109..111], [0x06, 0x00]);
    }

    #[test]
    fn the_most_processors_and_devices_fit_below_the_generation_identifier() {
        let device = mmio().remove(0);
        let hardware = Hardware {
            rtc: true,
            mmio: &[device; MAX_MMIO_DEVICES],
            generation_interrupt: Some(13),
            ..Hardware::default()
        };
        let len = tables(BASE, crate::MAX_CPUS, &hardware).len();
        assert!(BASE + len as u64 <= GENERATION_ID, "{len}");
    }

    #[test]
    fn devices_on_the_command_line_have_no_node_but_their_interrupts_are_overridden() {
        let mmio = mmio();
        let by_acpi = Hardware {
            mmio: &mmio,
            ..Hardware::default()
        };
        let on_command_line = Hardware {
            announce: Announce::CommandLine,
            ..by_acpi
        };
        let without = Hardware::default();
        assert_ne!(dsdt(&by_acpi).as_slice(), dsdt(&without).as_slice());
        assert_eq!(dsdt(&on_command_line).as_slice(), dsdt(&without).as_slice());
        assert_eq!(madt(1, &by_acpi).as_slice(), madt(1, &without).as_slice());
        // Of the inputs 5 to 23, those below 16 can be overridden.
        let (madt, plain) = (madt(1, &on_command_line), madt(1, &without).len());
        assert_eq!(madt.len(), plain + 11 * 10);
        let overrides: Vec<_> = madt.as_slice()[plain..].chunks(10).collect();
        assert_eq!(overrides[0], [2, 10, 0, 5, 5, 0, 0, 0, 5, 0]);
        assert_eq!(overrides[10], [2, 10, 0, 15, 15, 0, 0, 0, 5, 0]);
        assert!(sums_to_zero(madt.as_slice()));
    }

    /// Disassembles and compiles the tables where Intel's compiler is installed; it warns of what it finds wrong.
    #[test]
    fn the_compiler_takes_its_own_disassembly() {
        let run = |dir: &std::path::Path, arguments: &[&str]| {
            let mut command = std::process::Command::new("iasl");
            command.current_dir(dir).args(arguments).output()
        };
        let dir = tempfile::tempdir().unwrap();
        if run(dir.path(), &["-v"]).is_err() {
            println!("skipped: iasl is not installed");
            return;
        }
        let mmio = mmio();
        let hardware = Hardware {
            rtc: true,
            mmio: &mmio,
            generation_interrupt: Some(13),
            ..Hardware::default()
        };
        let on_command_line = Hardware {
            announce: Announce::CommandLine,
            ..hardware
        };
        for (name, table) in [
            ("dsdt", dsdt(&hardware).as_slice().to_vec()),
            ("fadt", fadt(BASE, &hardware)),
            ("madt", madt(300, &on_command_line).as_slice().to_vec()),
        ] {
            std::fs::write(dir.path().join(format!("{name}.aml")), table).unwrap();
            let disassembled = run(dir.path(), &["-d", &format!("{name}.aml")]).unwrap();
            assert!(disassembled.status.success(), "{name}: {disassembled:?}");
            let compiled = run(dir.path(), &[&format!("{name}.dsl")]).unwrap();
            let output = String::from_utf8_lossy(&compiled.stdout).into_owned()
                + &String::from_utf8_lossy(&compiled.stderr);
            assert!(compiled.status.success(), "{name}: {output}");
            let clean = name != "dsdt" || output.contains("0 Errors, 0 Warnings");
            assert!(clean, "{name}: {output}");
        }
    }
}
