//! The Multiboot header (Multiboot 0.6.96, §3.1).

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::BadMultiboot;
use super::kernel::Addresses;
use crate::{BootError, Image};

const MAGIC: u32 = 0x1bad_b002;
/// The header lies in so many bytes, at a multiple of [`ALIGN`].
const SEARCHED: usize = 8192;
const ALIGN: usize = 4;

/// Modules are to be page-aligned. They always are.
const PAGE_ALIGN: u32 = 1 << 0;
/// Memory is to be told. It always is.
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
/// The address fields are valid.
const ADDRESSES: u32 = 1 << 16;
/// Of these flags, a loader must know all that are set.
const REQUIREMENTS: u32 = 0xffff;

/// The header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Its offset in the image.
    pub(super) at: u64,
    pub(super) flags: u32,
    /// The address fields and the entry address, if they are to be used.
    pub(super) addresses: Option<(Addresses, u32)>,
}

impl Header {
    /// Looks for a header. An image without one gives the reason.
    pub(super) fn find(image: &Image) -> Result<Result<Self, String>, BootError> {
        let mut bytes = vec![0; SEARCHED.min(usize::try_from(image.len()).unwrap_or(SEARCHED))];
        image.read_at(0, &mut bytes)?;
        let mut magic_at = None;
        for at in (0..bytes.len()).step_by(ALIGN) {
            let fields = bytes.get(at..).unwrap_or_default();
            let Ok((fields, rest)) = <[U32; 3]>::read_from_prefix(fields) else {
                break;
            };
            let [magic, flags, checksum] = fields.map(U32::get);
            if magic != MAGIC {
                continue;
            }
            magic_at.get_or_insert(at);
            if magic.wrapping_add(flags).wrapping_add(checksum) == 0
                && let Some(addresses) = addresses(flags, rest)
            {
                return Ok(Ok(Self {
                    at: at as u64,
                    flags,
                    addresses,
                }));
            }
        }
        Ok(Err(match magic_at {
            None => "no header magic 1badb002 in the first 8 KiB".into(),
            Some(at) => {
                format!("the header magic 1badb002 at {at:#x} has no valid checksum behind it")
            }
        }))
    }

    /// Fails if the kernel requires what there is not.
    pub(super) fn check(&self) -> Result<(), BadMultiboot> {
        let Self { at, flags, .. } = *self;
        if flags & VIDEO_MODE != 0 {
            return Err(BadMultiboot::VideoMode { at, flags });
        }
        match flags & REQUIREMENTS & !(PAGE_ALIGN | MEMORY_INFO) {
            0 => Ok(()),
            unknown => Err(BadMultiboot::Flags { at, flags, unknown }),
        }
    }
}

/// The address fields, if the flags say that there are any; None if the header ends before them.
#[allow(
    clippy::option_option,
    reason = "the outer one says that the header is whole"
)]
fn addresses(flags: u32, rest: &[u8]) -> Option<Option<(Addresses, u32)>> {
    if flags & ADDRESSES == 0 {
        return Some(None);
    }
    let (fields, _) = <[U32; 5]>::read_from_prefix(rest).ok()?;
    let [header, load, load_end, bss_end, entry] = fields.map(U32::get);
    let addresses = Addresses {
        header,
        load,
        load_end,
        bss_end,
    };
    Some(Some((addresses, entry)))
}
