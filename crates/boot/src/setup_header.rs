//! The setup header of a bzImage (Linux, `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header").

use crate::{BadImage, BootError, Image};

/// `HdrS`, at 0x202.
pub(crate) const MAGIC: [u8; 4] = *b"HdrS";
/// Where [`MAGIC`] is.
pub(crate) const MAGIC_AT: u64 = 0x202;

/// The first protocol version with a 64-bit entry point.
const MINIMUM_VERSION: u16 = 0x020c;
const BOOT_FLAG: u16 = 0xaa55;
const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;
const SECTOR: u64 = 512;
/// Sectors of real-mode code where the header says 0.
const DEFAULT_SETUP_SECTORS: u64 = 4;
/// The 64-bit entry point, from where the kernel is loaded.
pub(crate) const ENTRY_64: u64 = 0x200;
/// Where the header begins, in the image and in `boot_params` alike.
pub(crate) const START: usize = 0x1f1;
/// The header ends here at the latest, as far as `boot_params` has room for it.
const END: usize = 0x290;

/// What the header says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    /// The header's bytes from offset 0x1f1, as they go to the guest.
    pub(crate) bytes: Vec<u8>,
    /// Version of the boot protocol: 0x20f is 2.15.
    pub version: u16,
    /// Where in the image the protected-mode kernel begins.
    pub kernel_offset: u64,
    /// Bytes of the protected-mode kernel.
    pub kernel_size: u64,
    /// Where the kernel would like to lie (`pref_address`).
    pub preferred_address: u64,
    /// Memory that it needs from there before it finds its own (`init_size`).
    pub init_size: u64,
    /// What its address must be a multiple of (`kernel_alignment`).
    pub alignment: u64,
    /// It may lie elsewhere.
    pub relocatable: bool,
    /// The longest command line, without its terminating zero.
    pub cmdline_size: u64,
    /// The highest address that the RAM disk may take.
    pub initrd_addr_max: u64,
    /// The kernel's version, as `uname -rv` has it.
    pub kernel_version: Option<String>,
}

impl SetupHeader {
    pub(crate) fn parse(image: &Image) -> Result<Self, BootError> {
        let mut bytes = [0; END];
        let len = bytes.len().min(usize::try_from(image.len()).unwrap_or(0));
        if let Some(part) = bytes.get_mut(..len) {
            image.read_at(0, part)?;
        }
        let mut header = Self::of(&Fields(&bytes), image.len()).map_err(|e| image.bad(e))?;
        header.kernel_version = kernel_version(image, &Fields(&bytes), header.kernel_offset);
        Ok(header)
    }

    fn of(fields: &Fields<'_>, image_len: u64) -> Result<Self, BadImage> {
        check_magic(fields)?;
        let (kernel_offset, kernel_size) = kernel_extent(fields, image_len)?;
        let header = Self {
            bytes: fields.header()?,
            version: fields.u16(0x206),
            kernel_offset,
            kernel_size,
            preferred_address: fields.u64(0x258),
            init_size: u64::from(fields.u32(0x260)),
            alignment: u64::from(fields.u32(0x230)),
            relocatable: fields.u8(0x234) != 0,
            cmdline_size: u64::from(fields.u32(0x238)),
            initrd_addr_max: u64::from(fields.u32(0x22c)),
            kernel_version: None,
        };
        header.check_alignment()?;
        Ok(header)
    }

    fn check_alignment(&self) -> Result<(), BadImage> {
        if !self.alignment.is_power_of_two() {
            return Err(BadImage::KernelAlignment {
                found: self.alignment,
            });
        }
        if !self.preferred_address.is_multiple_of(self.alignment) {
            return Err(BadImage::PreferredAddress {
                address: self.preferred_address,
                alignment: self.alignment,
            });
        }
        Ok(())
    }
}

fn check_magic(fields: &Fields<'_>) -> Result<(), BadImage> {
    let (flag, version) = (fields.u16(0x1fe), fields.u16(0x206));
    if flag != BOOT_FLAG {
        return Err(BadImage::BootFlag { found: flag });
    }
    if version < MINIMUM_VERSION {
        let [major, minor] = version.to_be_bytes();
        return Err(BadImage::ProtocolVersion { major, minor });
    }
    if fields.u8(0x211) & LOADED_HIGH == 0 {
        return Err(BadImage::ZImage);
    }
    let flags = fields.u16(0x236);
    if flags & XLF_KERNEL_64 == 0 {
        return Err(BadImage::No64BitEntry { flags });
    }
    Ok(())
}

/// Offset and size of the protected-mode kernel. `syssize` counts in 16 bytes, so that the last unit may be partial.
fn kernel_extent(fields: &Fields<'_>, image_len: u64) -> Result<(u64, u64), BadImage> {
    let sectors = match u64::from(fields.u8(0x1f1)) {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let offset = (sectors + 1) * SECTOR;
    let left = image_len.saturating_sub(offset);
    if left <= ENTRY_64 {
        return Err(BadImage::Truncated {
            what: "the real-mode part with the kernel's entry",
            end: offset + ENTRY_64 + 1,
            len: image_len,
        });
    }
    let size = u64::from(fields.u32(0x1f4)) * 16;
    if size <= ENTRY_64 {
        return Err(BadImage::KernelSize { size });
    }
    if size > left.next_multiple_of(16) {
        return Err(BadImage::Truncated {
            what: "the kernel",
            end: offset + size,
            len: image_len,
        });
    }
    Ok((offset, size.min(left)))
}

/// The string that `kernel_version` points to, in the real-mode part.
fn kernel_version(image: &Image, fields: &Fields<'_>, limit: u64) -> Option<String> {
    let pointer = u64::from(fields.u16(0x20e));
    let start = pointer.checked_add(0x200).filter(|_| pointer != 0)?;
    let len = limit.checked_sub(start)?.min(256);
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    image.read_at(start, &mut bytes).ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let printable = !text.is_empty() && !text.contains(char::is_control);
    printable.then(|| text.to_owned())
}

/// Little-endian fields at the offsets of the specification. All lie inside: offsets are constants.
struct Fields<'a>(&'a [u8; END]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.0.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().unwrap_or([0; N])
    }

    fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// The header's own bytes: its length is in the operand of the jump at its end (boot.rst, "64-bit Boot Protocol").
    fn header(&self) -> Result<Vec<u8>, BadImage> {
        let end = 0x202 + usize::from(self.u8(0x201));
        match self.0.get(START..end) {
            // `init_size` is the last field that is used.
            Some(bytes) if end >= 0x264 => Ok(bytes.to_vec()),
            _ => Err(BadImage::HeaderEnd { end, limit: END }),
        }
    }
}
