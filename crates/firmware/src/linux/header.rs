//! The setup header of a bzImage.

use alloc::vec::Vec;

use super::KernelError;
use crate::fields::{bytes_at, u8_at, u16_at, u32_at, u64_at};
use crate::pe::Part;

/// Where the 64-bit entry point is, from where the kernel is loaded.
pub const ENTRY_64: u64 = 0x200;

/// Where the header begins, and ends at the latest, in the image and in `boot_params` alike.
pub(super) const START: usize = 0x1f1;
const END: usize = 0x290;
/// `init_size`, the last field that is needed, ends here.
const LEAST_END: usize = 0x264;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const MINIMUM_VERSION: u16 = 0x020c;
const XLF_KERNEL_64: u16 = 1;
const SECTOR: u64 = 512;
const MAX_ALIGNMENT: u32 = 1 << 30;
const MAX_INIT_SIZE: u32 = 2 << 30;
const MAX_ADDRESS: u64 = 1 << 30;

/// What the header says, checked.
#[derive(Debug, Clone)]
pub struct Header {
    /// The header's own bytes, as they go to the kernel.
    pub(super) bytes: Vec<u8>,
    /// Where in the image the part begins that is loaded.
    pub kernel_offset: u64,
    /// Bytes of that part.
    pub kernel_size: u64,
    /// Bytes that it needs from where it is loaded.
    pub memory_size: u64,
    /// What its address has to be a multiple of: of the alignment that it asks for, and so that it is not below the address
    /// that it prefers, where it would move itself to.
    pub alignment: u64,
    /// The highest address that the RAM disk may take.
    pub initrd_max: u64,
    cmdline_max: u32,
}

impl Header {
    /// Reads the header of a kernel.
    ///
    /// # Errors
    ///
    /// [`KernelError`], if it is no bzImage, or none that can be started by its 64-bit entry point where it is loaded.
    pub fn read(kernel: &Part) -> Result<Self, KernelError> {
        let mut bytes = [0; END];
        if kernel.size() <= crate::fields::on_disk(END) {
            return Err(KernelError::Short(kernel.size()));
        }
        kernel.read(0, &mut bytes)?;
        let magic = u32_at(&bytes, 0x202);
        if magic != MAGIC {
            return Err(KernelError::Magic(magic));
        }
        let version = u16_at(&bytes, 0x206);
        if version < MINIMUM_VERSION {
            return Err(KernelError::Version(version));
        }
        let flags = u16_at(&bytes, 0x236);
        if flags & XLF_KERNEL_64 == 0 {
            return Err(KernelError::No64BitEntry(flags));
        }
        if u8_at(&bytes, 0x234) == 0 {
            return Err(KernelError::NotRelocatable);
        }
        Self::of(&bytes, kernel.size())
    }

    fn of(bytes: &[u8; END], size: u64) -> Result<Self, KernelError> {
        let sectors = match u8_at(bytes, 0x1f1) {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let kernel_offset = (sectors + 1) * SECTOR;
        let kernel_size = size.saturating_sub(kernel_offset);
        if kernel_size <= ENTRY_64 {
            return Err(KernelError::Short(size));
        }
        let init_size = u32_at(bytes, 0x260);
        if init_size > MAX_INIT_SIZE || u64::from(init_size) < kernel_size {
            return Err(KernelError::InitSize(init_size));
        }
        // The operand of the jump in front says how long the header is.
        let end = 0x202 + usize::from(u8_at(bytes, 0x201));
        let header = bytes.get(START..end).filter(|_| end >= LEAST_END);
        let header = header.ok_or(KernelError::HeaderEnd(end))?;
        Ok(Self {
            bytes: header.to_vec(),
            kernel_offset,
            kernel_size,
            memory_size: init_size.into(),
            alignment: alignment(bytes)?,
            initrd_max: u32_at(bytes, 0x22c).into(),
            cmdline_max: u32_at(bytes, 0x238),
        })
    }

    /// The command line with its terminating zero.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it.
    pub fn command_line(&self, text: &str) -> Result<Vec<u8>, KernelError> {
        let len = text.len();
        if u32::try_from(len).map_or(true, |len| len > self.cmdline_max) {
            return Err(KernelError::CommandLine {
                len,
                limit: self.cmdline_max,
            });
        }
        if text.contains('\0') {
            return Err(KernelError::CommandLineZero);
        }
        Ok([text.as_bytes(), &[0]].concat())
    }

    /// The version that the kernel says it has, as `uname -rv`.
    pub fn version(&self, kernel: &Part) -> Option<alloc::string::String> {
        let pointer = u64::from(u16_at(&self.bytes, 0x20e - START));
        let at = pointer.checked_add(0x200).filter(|_| pointer != 0)?;
        let mut bytes = [0; 128];
        kernel.read(at, &mut bytes).ok()?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = core::str::from_utf8(bytes.get(..end)?).ok()?;
        text.split(' ').next().map(Into::into)
    }
}

fn alignment(bytes: &[u8; END]) -> Result<u64, KernelError> {
    let alignment = u32::from_le_bytes(bytes_at(bytes, 0x230));
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(KernelError::Alignment(alignment));
    }
    let preferred = u64_at(bytes, 0x258);
    if preferred > MAX_ADDRESS {
        return Err(KernelError::Address(preferred));
    }
    Ok(u64::from(alignment).max(preferred.next_power_of_two()))
}
