//! What an image is, and how it can be started.

use crate::bad_image::BadImage;
use crate::elf::{self, Elf};
use crate::{BootError, Image, Protocol};

/// A format, found by the image's bytes and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// ELF.
    Elf,
    /// Linux's compressed kernel with a setup header.
    BzImage,
}

impl Format {
    /// Looks at the first bytes.
    pub(crate) fn of(image: &Image) -> Result<Self, BootError> {
        let begins = image.beginning(4);
        if begins == elf::MAGIC {
            return Ok(Self::Elf);
        }
        let mut magic = [0; 4];
        if image.read_at(0x202, &mut magic).is_ok() && magic == *b"HdrS" {
            return Ok(Self::BzImage);
        }
        Err(image.bad(unknown(begins)))
    }
}

fn unknown(begins: &[u8]) -> BadImage {
    let hint = match begins {
        [0x1f, 0x8b, ..] => " (gzip: decompress it first)",
        [0x28, 0xb5, 0x2f, 0xfd] => " (zstd: decompress it first)",
        [0xfd, b'7', b'z', b'X'] => " (xz: decompress it first)",
        [b'#', b'!', ..] => " (a script)",
        [b'M', b'Z', ..] => " (a PE executable)",
        [b'0', b'7', b'0', b'7'] => " (a cpio archive: is it the initial RAM disk?)",
        _ => "",
    };
    let bytes: Vec<_> = begins.iter().map(|byte| format!("{byte:02x}")).collect();
    BadImage::UnknownFormat {
        begins: bytes.join(" "),
        hint,
    }
}

impl Elf {
    /// The protocols that the image offers, the best first.
    pub(crate) fn offers(&self) -> Vec<Protocol> {
        let noted = [
            self.notes.direct.is_some().then_some(Protocol::Direct),
            self.notes.pvh.is_some().then_some(Protocol::Pvh),
            self.notes.direct.is_none().then_some(Protocol::LinuxElf),
        ];
        noted.into_iter().flatten().collect()
    }

    /// The protocol asked for, or the best.
    pub(crate) fn choose(
        &self,
        image: &Image,
        asked: Option<Protocol>,
    ) -> Result<Protocol, BootError> {
        let offers = self.offers();
        let Some(asked) = asked else {
            return Ok(offers.first().copied().unwrap_or(Protocol::LinuxElf));
        };
        if offers.contains(&asked) {
            return Ok(asked);
        }
        let names: Vec<_> = offers.iter().map(|offer| offer.name()).collect();
        Err(BootError::NotOffered {
            image: image.name().to_owned(),
            asked,
            offered: names.join(", "),
        })
    }
}
