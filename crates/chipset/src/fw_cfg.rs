//! QEMU's `fw_cfg`, reduced to numbers that test kernels read (QEMU, `docs/specs/fw_cfg.rst`): selected by one port, read
//! byte by byte from the next.

use goldcrest_bus::{Device, Effect, Range};

/// The selector's port, 16 bits wide; the data port, 8 bits wide, is the next.
pub const PORT: u16 = 0x510;
/// How many ports.
pub const LEN: u16 = 2;
/// Its place on the port bus.
pub const RANGE: Range = Range::ports(PORT, LEN);

const DATA: u64 = 1;

/// Keys (QEMU, `include/standard-headers/linux/qemu_fw_cfg.h`).
mod key {
    pub(super) const SIGNATURE: u16 = 0x00;
    pub(super) const ID: u16 = 0x01;
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const NB_CPUS: u16 = 0x05;
    pub(super) const MAX_CPUS: u16 = 0x0f;
    pub(super) const FILE_DIR: u16 = 0x19;
}

/// What `ID` says: there is the traditional interface, and none by DMA.
const TRADITIONAL: u32 = 1 << 0;
/// The longest item.
const MAX_ITEM: usize = 8;

/// The device. It has the signature, the size of RAM, the numbers of CPUs, and an empty directory of files. Reads beyond
/// an item, and of keys that it does not have, give 0. There is no state to save that a guest would not select anew.
#[derive(Debug, Clone)]
pub struct FwCfg {
    /// Bytes of RAM.
    ram_size: u64,
    cpus: u16,
    selected: u16,
    /// The next byte of the item.
    offset: usize,
}

impl FwCfg {
    /// For a machine with so many bytes of RAM and CPUs.
    pub const fn new(ram_size: u64, cpus: u16) -> Self {
        Self {
            ram_size,
            cpus,
            selected: key::SIGNATURE,
            offset: 0,
        }
    }

    /// The item that is selected, with zeroes behind. Numbers are little-endian.
    fn item(&self) -> [u8; MAX_ITEM] {
        let number = match self.selected {
            key::SIGNATURE => u32::from_le_bytes(*b"QEMU").into(),
            key::ID => TRADITIONAL.into(),
            key::RAM_SIZE => self.ram_size,
            key::NB_CPUS | key::MAX_CPUS => self.cpus.into(),
            // A directory begins with the number of its files.
            key::FILE_DIR => 0,
            _ => 0u64,
        };
        number.to_le_bytes()
    }

    fn next(&mut self) -> u8 {
        let byte = self.item().get(self.offset).copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }
}

impl Device for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (DATA, [byte]) = (offset, data) {
            *byte = self.next();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (0, [low, high]) = (offset, data) {
            self.selected = u16::from_le_bytes([*low, *high]);
            self.offset = 0;
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        assert!(matches!(device.write(0, &key.to_le_bytes()), Effect::None));
        let mut byte = || {
            let mut data = [0xff];
            device.read(DATA, &mut data);
            data[0]
        };
        (0..len).map(|_| byte()).collect()
    }

    #[test]
    fn numbers_are_read_byte_by_byte_and_zeroes_behind() {
        let mut device = FwCfg::new(0x1_2345_6000, 3);
        assert_eq!(read(&mut device, 0, 5), b"QEMU\0");
        assert_eq!(read(&mut device, 1, 4), [1, 0, 0, 0]);
        assert_eq!(
            read(&mut device, 3, 9),
            [0, 0x60, 0x45, 0x23, 1, 0, 0, 0, 0]
        );
        assert_eq!(read(&mut device, 5, 2), [3, 0]);
        assert_eq!(read(&mut device, 0xf, 3), [3, 0, 0]);
        assert_eq!(read(&mut device, 0x19, 4), [0; 4]);
        assert_eq!(read(&mut device, 0x8001, 4), [0; 4]);
    }

    #[test]
    fn other_widths_select_and_read_nothing() {
        let mut device = FwCfg::new(64 << 20, 1);
        let _ = device.write(0, &5u16.to_le_bytes());
        for (offset, data) in [(0, &[3][..]), (0, &[3, 0, 0, 0]), (1, &[3, 0])] {
            assert!(matches!(device.write(offset, data), Effect::None));
        }
        for (offset, len) in [(0, 1), (0, 2), (1, 2)] {
            let mut data = vec![0xff; len];
            device.read(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0));
        }
        let mut data = [0];
        device.read(DATA, &mut data);
        assert_eq!(data, [1]);
    }
}
