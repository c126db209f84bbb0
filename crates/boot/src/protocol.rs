//! The protocols by which guests are started, and the table of the modules that know them.
//!
//! A protocol is a module with a function that looks at a [`Candidate`] (a [`Probe`]): it gives what can be loaded, or
//! says why not. To add one: the module, a variant of [`Protocol`] with its name, and a line in [`PROTOCOLS`].

use std::fmt;
use std::str::FromStr;

use crate::candidate::{Candidate, Probe};
use crate::multiboot::{version1, version2};
use crate::{Flat, direct, elf32, flat, hermit, linux, pvh, solo5};

/// How a guest is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Goldcrest's own: 64-bit mode, the image's ring, tables made by the host (crate `goldcrest-abi`).
    Direct,
    /// Solo5's `hvt`: 64-bit mode, ring 0, tables made by the host (`hvt_abi.h` of Solo5).
    Solo5Hvt,
    /// Hermit's own, by its monitor uhyve: 64-bit mode, ring 0, tables made by the host (crate `hermit-entry`).
    Hermit,
    /// Xen's PVH: 32-bit protected mode (`docs/misc/pvh.pandoc` of Xen).
    Pvh,
    /// Multiboot2: 32-bit protected mode (Multiboot2 Specification 2.0).
    Multiboot2,
    /// Multiboot, version 1: 32-bit protected mode (Multiboot Specification 0.6.96).
    Multiboot,
    /// An ELF vmlinux by Linux's 64-bit boot protocol (`Documentation/arch/x86/boot.rst`).
    LinuxElf,
    /// A bzImage by Linux's 64-bit boot protocol.
    LinuxBzImage,
    /// An ELF of 32 bits without a header for a protocol, in 32-bit protected mode.
    Elf32,
    /// Bytes that are put somewhere and started there.
    Flat(Flat),
}

/// The protocols in the order in which they are tried: an image that offers several is started by the first.
pub(crate) const PROTOCOLS: &[(&str, Probe)] = &[
    ("direct", direct::probe),
    ("solo5-hvt", solo5::probe),
    ("hermit", hermit::probe),
    ("pvh", pvh::probe),
    ("multiboot2", version2::probe),
    ("multiboot", version1::probe),
    ("linux-elf", linux::probe_elf),
    ("linux-bzimage", linux::probe_bzimage),
    ("elf32", elf32::probe),
    ("flat", flat::probe),
];

impl Protocol {
    /// The name by which a person asks for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Solo5Hvt => "solo5-hvt",
            Self::Hermit => "hermit",
            Self::Pvh => "pvh",
            Self::Multiboot2 => "multiboot2",
            Self::Multiboot => "multiboot",
            Self::LinuxElf => "linux-elf",
            Self::LinuxBzImage => "linux-bzimage",
            Self::Elf32 => "elf32",
            Self::Flat(_) => "flat",
        }
    }

    /// Whether guests are told of modules: files beside the image, each with arguments.
    pub const fn has_modules(self) -> bool {
        match self {
            Self::Pvh | Self::Multiboot2 | Self::Multiboot | Self::Elf32 | Self::Flat(_) => true,
            Self::Direct | Self::Solo5Hvt | Self::Hermit | Self::LinuxElf | Self::LinuxBzImage => {
                false
            }
        }
    }

    /// What looks at images for this protocol.
    pub(crate) fn probe(self) -> Probe {
        let mut entries = PROTOCOLS.iter();
        let entry = entries.find(|(name, _)| *name == self.name());
        entry.map_or(unknown, |(_, probe)| *probe)
    }
}

/// A test sees to it that no protocol comes here.
fn unknown<'c>(_: &'c Candidate<'_>) -> crate::candidate::Probed<'c> {
    Err("this loader does not know the protocol".into())
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat(options) => write!(f, "flat,{options}"),
            _ => f.write_str(self.name()),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// `NAME[,OPTION]...`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = match text.split_once(',') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        let protocol = match name {
            "direct" => Self::Direct,
            "solo5-hvt" => Self::Solo5Hvt,
            "hermit" => Self::Hermit,
            "pvh" => Self::Pvh,
            "multiboot2" => Self::Multiboot2,
            "multiboot" => Self::Multiboot,
            "linux-elf" => Self::LinuxElf,
            "linux-bzimage" => Self::LinuxBzImage,
            "elf32" => Self::Elf32,
            "flat" => return options.unwrap_or_default().parse().map(Self::Flat),
            _ => return Err(unknown_name(name)),
        };
        match options {
            None => Ok(protocol),
            Some(options) => Err(format!("{name} has no options, such as {options:?}")),
        }
    }
}

fn unknown_name(name: &str) -> String {
    let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    format!(
        "unknown boot protocol {name:?}: expected one of {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_that_of_a_protocol_that_has_a_probe() {
        for (name, probe) in PROTOCOLS {
            let protocol = match *name {
                "flat" => Protocol::Flat(Flat::at(0)),
                name => name.parse().unwrap(),
            };
            assert_eq!(protocol.name(), *name);
            assert!(std::ptr::fn_addr_eq(protocol.probe(), *probe));
        }
    }

    #[test]
    fn options_that_a_protocol_does_not_have_are_refused() {
        assert_eq!(
            "pvh,fast".parse::<Protocol>(),
            Err("pvh has no options, such as \"fast\"".into())
        );
        assert!("".parse::<Protocol>().is_err());
    }
}
