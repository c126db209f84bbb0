//! What an image is, and how it can be started.

use std::fmt;

use goldcrest_abi::note::DirectEntry;

use crate::bad_image::BadImage;
use crate::elf::{self, Elf};
use crate::setup_header::{self, ENTRY_64, SetupHeader};
use crate::{BootError, Image, Protocol, Segment};

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
        let has_header = image.read_at(setup_header::MAGIC_AT, &mut magic).is_ok();
        if has_header && magic == setup_header::MAGIC {
            return Ok(Self::BzImage);
        }
        Err(image.bad(unknown(begins)))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF64 (7f 45 4c 46 at 0)",
            Self::BzImage => "bzImage (\"HdrS\" at 0x202)",
        })
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

/// A way to start an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// How.
    pub protocol: Protocol,
    /// The guest-physical address of the first instruction; of a bzImage, where it prefers to lie.
    pub entry: u64,
    /// What in the image says so.
    pub because: &'static str,
}

/// What [`inspect`] finds. Its `Display` is several lines for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The format.
    pub format: Format,
    /// Bytes of the image.
    pub size: u64,
    /// How the image can be started, the best first: that one is chosen unless another is asked for.
    pub offers: Vec<Offer>,
    /// The loadable segments of an ELF, by ascending guest-physical address.
    pub segments: Vec<Segment>,
    /// The direct-entry note of an ELF.
    pub direct: Option<DirectEntry>,
    /// The setup header of a bzImage.
    pub setup: Option<SetupHeader>,
}

/// Says what an image is and how it would be started, by its headers alone.
///
/// # Errors
///
/// As [`load`](crate::load()) does, as far as the reason lies in the headers.
pub fn inspect(image: &Image) -> Result<Inspection, BootError> {
    let format = Format::of(image)?;
    let mut inspection = Inspection {
        format,
        size: image.len(),
        offers: Vec::new(),
        segments: Vec::new(),
        direct: None,
        setup: None,
    };
    match format {
        Format::Elf => {
            let elf = Elf::parse(image)?;
            inspection.offers = elf.offers();
            inspection.direct = elf.notes.direct;
            inspection.segments = elf.segments;
        }
        Format::BzImage => {
            let setup = SetupHeader::parse(image)?;
            inspection.offers = vec![bzimage_offer(&setup)];
            inspection.setup = Some(setup);
        }
    }
    Ok(inspection)
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format: {}, {} bytes", self.format, self.size)?;
        for (index, offer) in self.offers.iter().enumerate() {
            let rank = if index == 0 { "chosen" } else { "offered" };
            let Offer {
                protocol,
                entry,
                because,
            } = offer;
            writeln!(f, "{rank}: {protocol}, entry {entry:#x} ({because})")?;
        }
        for segment in &self.segments {
            writeln!(f, "segment {}: {segment}", segment.index)?;
        }
        if let Some(note) = &self.direct {
            let DirectEntry {
                version,
                ring,
                flags,
                stack_size,
                ..
            } = note;
            write!(f, "direct entry: version {version}, ring {ring}, ")?;
            writeln!(f, "flags {flags:#x}, stack {stack_size} bytes")?;
        }
        if let Some(setup) = &self.setup {
            write!(f, "{setup}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SetupHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.version.to_be_bytes();
        let version = self.kernel_version.as_deref().unwrap_or("unknown");
        writeln!(f, "kernel version: {version}")?;
        writeln!(f, "boot protocol: {major}.{minor:02}")?;
        let place = if self.relocatable {
            "preferably at"
        } else {
            "at"
        };
        let Self {
            kernel_size,
            init_size,
            preferred_address,
            ..
        } = self;
        write!(f, "kernel: {kernel_size} bytes, needs {init_size} ")?;
        writeln!(f, "{place} {preferred_address:#x}")?;
        writeln!(f, "command line: at most {} bytes", self.cmdline_size)?;
        writeln!(
            f,
            "initial RAM disk: at most up to {:#x}",
            self.initrd_addr_max
        )
    }
}

/// An image whose protocol is chosen, with what that protocol needs of it.
pub(crate) enum Parsed {
    Direct(Elf, DirectEntry),
    Pvh(Elf, u64),
    LinuxElf(Elf),
    LinuxBzImage(SetupHeader),
}

impl Parsed {
    /// Reads the headers and chooses: the protocol asked for, else the best that is offered.
    pub(crate) fn parse(image: &Image, asked: Option<Protocol>) -> Result<Self, BootError> {
        match Format::of(image)? {
            Format::BzImage => {
                let header = SetupHeader::parse(image)?;
                choose(image, asked, &[bzimage_offer(&header)])?;
                Ok(Self::LinuxBzImage(header))
            }
            Format::Elf => {
                let elf = Elf::parse(image)?;
                let chosen = choose(image, asked, &elf.offers())?;
                Ok(match (chosen, elf.notes.direct, elf.notes.pvh) {
                    (Protocol::Direct, Some(note), _) => Self::Direct(elf, note),
                    (Protocol::Pvh, _, Some(entry)) => Self::Pvh(elf, entry),
                    _ => Self::LinuxElf(elf),
                })
            }
        }
    }
}

fn choose(image: &Image, asked: Option<Protocol>, offers: &[Offer]) -> Result<Protocol, BootError> {
    let mut protocols = offers.iter().map(|offer| offer.protocol);
    let chosen = match asked {
        None => protocols.next(),
        Some(asked) => protocols.find(|offered| *offered == asked),
    };
    chosen.ok_or_else(|| {
        let names = offers.iter().map(|offer| offer.protocol.name());
        BootError::NotOffered {
            image: image.name().to_owned(),
            asked: asked.unwrap_or(Protocol::LinuxElf),
            offered: names.collect::<Vec<_>>().join(", "),
        }
    })
}

impl Elf {
    /// The ways in, the best first. An image made for direct entry is no Linux, although it is an ELF.
    fn offers(&self) -> Vec<Offer> {
        let direct = self.notes.direct.map(|note| Offer {
            protocol: Protocol::Direct,
            entry: note.entry,
            because: "a Goldcrest note",
        });
        let pvh = self.notes.pvh.map(|entry| Offer {
            protocol: Protocol::Pvh,
            entry,
            because: "a Xen note, type 18 (PHYS32_ENTRY)",
        });
        let linux = direct.is_none().then_some(Offer {
            protocol: Protocol::LinuxElf,
            entry: self.entry,
            because: "an ELF executable: taken for a vmlinux",
        });
        [direct, pvh, linux].into_iter().flatten().collect()
    }
}

fn bzimage_offer(header: &SetupHeader) -> Offer {
    Offer {
        protocol: Protocol::LinuxBzImage,
        entry: header.preferred_address.saturating_add(ENTRY_64),
        because: "a setup header with a 64-bit entry",
    }
}
