//! The application manifest: which devices a Solo5 guest has, by name (Solo5, `include/mft_abi.h`, version 1).

use std::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Solo5Device, Solo5Properties};
use crate::{BadImage, BootError, Image};

/// `MFT_VERSION`.
const VERSION: u32 = 1;
/// `MFT_MAX_ENTRIES`: a set of devices is a number of 64 bits.
const MAX_ENTRIES: u32 = 64;
/// `MFT_NAME_MAX`: the characters of a name, which a zero ends.
const NAME_MAX: usize = 67;

/// Bytes before the manifest in its note, which align it (`MFT1_NOTE_ALIGN`).
const PADDING: usize = 4;

/// `enum mft_type`.
const BLOCK_BASIC: u32 = 1;
const NET_BASIC: u32 = 2;
const RESERVED_FIRST: u32 = 1 << 30;

/// The head of `struct mft`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    version: U32,
    entries: U32,
}

/// `struct mft_entry`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    name: [u8; NAME_MAX + 1],
    kind: U32,
    /// `struct mft_block_basic` or `struct mft_net_basic`.
    properties: [u8; 16],
    /// The host's own.
    backing: U64,
    attached: u8,
    padding: [u8; 7],
}

const _: () = assert!(size_of::<Head>() == 8 && size_of::<Entry>() == 104);

/// What kind of device a manifest declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Solo5Kind {
    /// A block device (`MFT_DEV_BLOCK_BASIC`).
    Block,
    /// A network card (`MFT_DEV_NET_BASIC`).
    Net,
}

impl Solo5Kind {
    /// The tool's option that attaches one.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Block => "--solo5-block",
            Self::Net => "--solo5-net",
        }
    }
}

impl fmt::Display for Solo5Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block device",
            Self::Net => "network card",
        })
    }
}

/// A device that a manifest declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Its name: letters and digits.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Solo5Kind,
}

/// The devices of a manifest. A guest knows them by their handles, which count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    devices: Vec<Declared>,
}

impl Manifest {
    /// Reads the content of the note `MFT1`.
    pub(crate) fn parse(desc: &[u8]) -> Result<Self, BadImage> {
        let bytes = desc.get(PADDING..).unwrap_or_default();
        let Ok((head, bytes)) = Head::ref_from_prefix(bytes) else {
            return Err(BadImage::NoteSize {
                note: "Solo5 manifest",
                size: desc.len(),
                expected: "at least 116",
            });
        };
        let (version, count) = (head.version.get(), head.entries.get());
        if version != VERSION {
            return Err(BadImage::ManifestVersion {
                found: version,
                expected: VERSION,
            });
        }
        if count > MAX_ENTRIES {
            return Err(BadImage::ManifestEntries {
                found: count,
                limit: MAX_ENTRIES,
            });
        }
        let entries = <[Entry]>::ref_from_bytes(bytes).ok();
        let entries = entries.filter(|entries| u32::try_from(entries.len()) == Ok(count));
        let Some(entries) = entries else {
            return Err(BadImage::ManifestSize {
                entries: count,
                size: bytes.len(),
                each: size_of::<Entry>(),
            });
        };
        let Some((first, others)) = entries.split_first() else {
            return Err(BadImage::ManifestFirst);
        };
        if first.kind.get() != RESERVED_FIRST || first.name != [0; NAME_MAX + 1] {
            return Err(BadImage::ManifestFirst);
        }
        let mut devices: Vec<Declared> = Vec::new();
        for (entry, number) in others.iter().zip(1..) {
            let device = entry.declared(number)?;
            if devices.contains(&device) {
                let Declared { name, kind } = device;
                return Err(BadImage::ManifestTwice { name, kind });
            }
            devices.push(device);
        }
        Ok(Self { devices })
    }

    /// The devices, of which the first has handle 1.
    pub(crate) fn devices(&self) -> &[Declared] {
        &self.devices
    }

    /// For each handle the index of the device in `attached`; none for handle 0, which is reserved.
    ///
    /// Every device that is declared must be attached, and every one attached be declared.
    pub(crate) fn handles(
        &self,
        image: &Image,
        attached: &[Solo5Device],
    ) -> Result<Vec<Option<usize>>, BootError> {
        let image = || image.name().to_owned();
        for (index, device) in attached.iter().enumerate() {
            let (name, kind) = (&device.name, device.kind());
            let is = |other: &Solo5Device| other.name == *name && other.kind() == kind;
            if attached.iter().take(index).any(is) {
                let name = name.clone();
                return Err(BootError::Solo5AttachedTwice { name, kind });
            }
            let mut named = self.devices.iter().filter(|device| device.name == *name);
            if named.clone().any(|device| device.kind == kind) {
                continue;
            }
            return Err(match named.next() {
                Some(declared) => BootError::Solo5Kind {
                    image: image(),
                    name: name.clone(),
                    declared: declared.kind,
                    attached: kind,
                },
                None => BootError::Solo5NotDeclared {
                    image: image(),
                    name: name.clone(),
                    kind,
                    declared: self.describe(),
                },
            });
        }
        let mut handles = vec![None];
        for declared in &self.devices {
            let is = |device: &Solo5Device| {
                device.name == declared.name && device.kind() == declared.kind
            };
            let Some(index) = attached.iter().position(is) else {
                return Err(BootError::Solo5NotAttached {
                    image: image(),
                    name: declared.name.clone(),
                    kind: declared.kind,
                });
            };
            handles.push(Some(index));
        }
        Ok(handles)
    }

    /// The manifest as the guest is given it: with what is attached. `handles` are those for `attached`.
    pub(crate) fn bytes(&self, handles: &[Option<usize>], attached: &[Solo5Device]) -> Vec<u8> {
        let head = Head {
            version: VERSION.into(),
            entries: u32::try_from(handles.len()).unwrap_or(MAX_ENTRIES).into(),
        };
        let devices = handles.iter().map(|index| attached.get((*index)?));
        let entries: Vec<_> = devices.map(Entry::new).collect();
        [head.as_bytes(), entries.as_bytes()].concat()
    }

    /// The devices in words, for messages.
    fn describe(&self) -> String {
        if self.devices.is_empty() {
            return "no device".into();
        }
        let device = |device: &Declared| format!("{} {:?}", device.kind, device.name);
        let devices: Vec<_> = self.devices.iter().map(device).collect();
        devices.join(", ")
    }
}

impl Entry {
    /// What the guest is told of a device; the reserved entry if there is none.
    fn new(device: Option<&Solo5Device>) -> Self {
        let mut entry = Self {
            name: [0; NAME_MAX + 1],
            kind: RESERVED_FIRST.into(),
            properties: [0; 16],
            backing: U64::ZERO,
            attached: 0,
            padding: [0; 7],
        };
        let Some(device) = device else {
            return entry;
        };
        for (to, byte) in entry.name.iter_mut().zip(device.name.bytes()) {
            *to = byte;
        }
        entry.attached = 1;
        let (kind, first, second) = match device.properties {
            Solo5Properties::Block {
                capacity,
                block_size,
            } => (BLOCK_BASIC, capacity, U16::new(block_size)),
            Solo5Properties::Net { mac, mtu } => {
                let [a, b, c, d, e, f] = mac;
                let [low, high] = mtu.to_le_bytes();
                let words = u64::from_le_bytes([a, b, c, d, e, f, low, high]);
                (NET_BASIC, words, U16::ZERO)
            }
        };
        entry.kind = kind.into();
        let properties = [first.as_bytes(), second.as_bytes()].concat();
        for (to, byte) in entry.properties.iter_mut().zip(properties) {
            *to = byte;
        }
        entry
    }

    fn declared(&self, number: usize) -> Result<Declared, BadImage> {
        let (name, rest) = match self.name.iter().position(|byte| *byte == 0) {
            Some(end) => self.name.split_at(end),
            None => (&self.name[..], &[][..]),
        };
        let valid = !name.is_empty() && name.iter().all(u8::is_ascii_alphanumeric);
        let name = String::from_utf8_lossy(name).into_owned();
        if !valid || rest.is_empty() {
            return Err(BadImage::ManifestName {
                entry: number,
                name: name.escape_debug().collect(),
                limit: NAME_MAX,
            });
        }
        let kind = match self.kind.get() {
            BLOCK_BASIC => Solo5Kind::Block,
            NET_BASIC => Solo5Kind::Net,
            found => {
                return Err(BadImage::ManifestType {
                    entry: number,
                    name,
                    found,
                });
            }
        };
        if self.attached != 0 {
            return Err(BadImage::ManifestAttached {
                entry: number,
                name,
            });
        }
        Ok(Declared { name, kind })
    }
}
