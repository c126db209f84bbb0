//! What an image is, how it can be started, and why not in other ways.

use std::fmt;

use goldcrest_abi::note::DirectEntry;

use crate::candidate::{Candidate, Probed, Refusal};
use crate::{BootError, Format, Image, Protocol, Segment, SetupHeader};

/// A way to start an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// How.
    pub protocol: Protocol,
    /// The guest-physical address of the first instruction; of an image that can lie elsewhere, where it prefers to.
    pub entry: u64,
    /// What in the image says so: values, and at which offset they are.
    pub because: String,
    /// What the guest gets: lines on registers and structures.
    pub passes: Vec<String>,
}

/// A protocol that does not start an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotOffered {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Why not.
    pub reason: String,
}

/// What [`inspect`] finds. Its `Display` is several lines for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The format.
    pub format: Format,
    /// What the file is, and by which bytes, in words.
    pub what: String,
    /// Bytes of the image.
    pub size: u64,
    /// How the image can be started, the best first: that one is chosen unless another is asked for.
    pub offers: Vec<Offer>,
    /// The protocols that do not start it.
    pub not_offered: Vec<NotOffered>,
    /// Why nothing starts it, if so: what [`load`](crate::load()) fails with.
    pub problem: Option<String>,
    /// The loadable segments of an ELF, by ascending guest-physical address.
    pub segments: Vec<Segment>,
    /// The direct-entry note of an ELF.
    pub direct: Option<DirectEntry>,
    /// The setup header of a bzImage.
    pub setup: Option<SetupHeader>,
}

/// Says what an image is, how it would be started and why not in other ways, by its headers alone.
///
/// # Errors
///
/// If the image cannot be read. That nothing can start it is not an error: [`Inspection::problem`] then says why.
pub fn inspect(image: &Image) -> Result<Inspection, BootError> {
    inspect_as(image, None)
}

/// The protocol by which [`load`](crate::load()) starts an image. It is found sooner than all that [`inspect`] tells.
///
/// # Errors
///
/// As for [`load`](crate::load()), as far as the reason lies in the headers.
pub fn protocol_of(image: &Image, asked: Option<Protocol>) -> Result<Protocol, BootError> {
    let candidate = Candidate::new(image, asked)?;
    let bootable = candidate.choose()?;
    Ok(bootable.protocol())
}

/// As [`inspect`], if a person insists on a protocol.
///
/// # Errors
///
/// As for [`inspect`].
pub fn inspect_as(image: &Image, asked: Option<Protocol>) -> Result<Inspection, BootError> {
    let candidate = Candidate::new(image, asked)?;
    let chosen = asked.map(|_| candidate.choose().map(|bootable| bootable.protocol()));
    let probed = candidate.probe(|_| false)?;
    let mut offers = Vec::new();
    let mut not_offered = Vec::new();
    let mut refusals: Vec<Probed<'_>> = Vec::new();
    for (protocol, found) in probed {
        match found {
            Ok(bootable) => offers.push(Offer {
                protocol: bootable.protocol(),
                entry: bootable.entry(),
                because: bootable.because(),
                passes: bootable.passes(),
            }),
            Err(refusal) => {
                let reason = refusal.to_string();
                not_offered.push(NotOffered { protocol, reason });
                refusals.push(Err(refusal));
            }
        }
    }
    let problem = match chosen {
        Some(Err(error)) => {
            offers.clear();
            Some(error.to_string())
        }
        Some(Ok(chosen)) => {
            offers.sort_by_key(|offer| offer.protocol != chosen);
            None
        }
        None if offers.is_empty() => Some(candidate.problem(refusals).to_string()),
        None => None,
    };
    let elf = candidate.as_elf();
    Ok(Inspection {
        format: candidate.identity.format,
        what: candidate.identity.what.clone(),
        size: image.len(),
        problem,
        offers,
        not_offered,
        segments: elf.map(|elf| elf.segments.clone()).unwrap_or_default(),
        direct: elf.and_then(|elf| Some(elf.notes.direct?.value)),
        setup: match candidate.identity.format {
            Format::BzImage => SetupHeader::parse(image).ok(),
            _ => None,
        },
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format: {}, {} bytes", self.what, self.size)?;
        for (index, offer) in self.offers.iter().enumerate() {
            let rank = if index == 0 { "chosen" } else { "offered" };
            write!(f, "{rank}: {offer}")?;
        }
        for NotOffered { protocol, reason } in &self.not_offered {
            writeln!(f, "not {protocol}: {reason}")?;
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

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            entry,
            because,
            passes,
        } = self;
        writeln!(f, "{protocol}, entry {entry:#x} ({because})")?;
        for line in passes {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMeant(reason) => f.write_str(reason),
            Self::Bad(problem) => write!(f, "{problem}"),
            Self::Unreadable(error) => write!(f, "{error}"),
        }
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
