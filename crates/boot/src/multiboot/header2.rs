//! The Multiboot2 header (Multiboot2 2.0, §3.1.1 and §3.1.2): where it is. Its tags are [`super::tags`]' matter.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::BadMultiboot;
use crate::candidate::Refusal;
use crate::{BadImage, BootError, Image};

const MAGIC: u32 = 0xe852_50d6;
/// The header lies in so many bytes, at a multiple of [`ALIGN`].
const SEARCHED: usize = 32768;
const ALIGN: usize = 8;
/// Bytes of the fields before the tags.
const FIXED: usize = 16;
const ARCHITECTURE_I386: u32 = 0;

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Its offset in the image.
    pub(super) at: u64,
    /// Its tags, with the last one.
    pub(super) tags: Vec<u8>,
}

impl Header {
    /// Looks for a header.
    pub(super) fn find(image: &Image) -> Result<Self, Refusal> {
        let bytes = beginning(image)?;
        let mut magic_at = None;
        for at in (0..bytes.len()).step_by(ALIGN) {
            let fields = bytes.get(at..).unwrap_or_default();
            let Ok((fields, _)) = <[U32; 4]>::read_from_prefix(fields) else {
                break;
            };
            let [magic, architecture, len, checksum] = fields.map(U32::get);
            if magic != MAGIC {
                continue;
            }
            magic_at.get_or_insert(at);
            let sum = magic.wrapping_add(architecture).wrapping_add(len);
            if sum.wrapping_add(checksum) == 0 {
                let header = Self::of(&bytes, at, architecture, len);
                return header.map_err(|problem| BadImage::from(problem).into());
            }
        }
        Err(match magic_at {
            None => "no header magic e85250d6 in the first 32 KiB".into(),
            Some(at) => {
                format!("the header magic e85250d6 at {at:#x} has no valid checksum behind it")
                    .into()
            }
        })
    }

    fn of(bytes: &[u8], at: usize, architecture: u32, len: u32) -> Result<Self, BadMultiboot> {
        let offset = at as u64;
        if architecture != ARCHITECTURE_I386 {
            return Err(BadMultiboot::Architecture {
                at: offset,
                found: architecture,
            });
        }
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| at.checked_add(len));
        let tags = end.and_then(|end| bytes.get(at + FIXED..end));
        let tags = tags.ok_or(BadMultiboot::HeaderLength {
            at: offset,
            len,
            limit: (bytes.len() - at) as u64,
        })?;
        Ok(Self {
            at: offset,
            tags: tags.to_vec(),
        })
    }
}

fn beginning(image: &Image) -> Result<Vec<u8>, BootError> {
    let len = usize::try_from(image.len()).unwrap_or(SEARCHED);
    let mut bytes = vec![0; SEARCHED.min(len)];
    image.read_at(0, &mut bytes)?;
    Ok(bytes)
}
