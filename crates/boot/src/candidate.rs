//! An image at which the protocols look, each in turn, and what they say of it.

use std::cell::Cell;

use goldcrest_memory::GuestRam;

use crate::elf::Elf;
use crate::identify::{Format, Identity, identify};
use crate::protocol::PROTOCOLS;
use crate::{BadImage, BootConfig, BootError, Hardware, Image, Loaded, Protocol};

/// An image, and what several protocols need of it, read once.
pub(crate) struct Candidate<'a> {
    pub(crate) image: &'a Image,
    /// The protocol that a person insists on.
    pub(crate) asked: Option<Protocol>,
    /// What the first bytes say.
    pub(crate) identity: Identity,
    elf: Option<Result<Elf, BadImage>>,
    /// A protocol found the image to be made for it, although it cannot be started so.
    claimed: Cell<bool>,
}

/// What a protocol's module does with a candidate.
pub(crate) type Probe = for<'c, 'a> fn(&'c Candidate<'a>) -> Probed<'c>;

/// What can be loaded, or why not.
pub(crate) type Probed<'c> = Result<Box<dyn Bootable + 'c>, Refusal>;

/// An image that a protocol can start.
pub(crate) trait Bootable {
    /// How.
    fn protocol(&self) -> Protocol;

    /// The guest-physical address of the first instruction.
    fn entry(&self) -> u64;

    /// What in the image says so: values, and at which offset they are.
    fn because(&self) -> String;

    /// What the guest gets: lines on registers and structures.
    fn passes(&self) -> Vec<String>;

    /// Puts the image into memory.
    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError>;
}

/// What an image is loaded with.
pub(crate) struct Job<'a> {
    pub(crate) image: &'a Image,
    pub(crate) ram: &'a GuestRam,
    pub(crate) config: &'a BootConfig<'a>,
    pub(crate) hardware: &'a Hardware<'a>,
}

impl Job<'_> {
    /// Refuses what a guest of a protocol that has neither modules nor virtio would not find, rather than not to notice.
    pub(crate) fn refuse_useless(&self, protocol: Protocol) -> Result<(), BootError> {
        let useless = |what| BootError::Useless {
            image: self.image.name().to_owned(),
            protocol,
            what,
        };
        if self.config.initrd.is_some() {
            return Err(useless("initial RAM disk"));
        }
        if !self.hardware.mmio.is_empty() {
            return Err(useless("virtio devices"));
        }
        if self.config.cpus != 1 {
            return Err(useless("second CPU"));
        }
        Ok(())
    }
}

/// Why a protocol does not start an image.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The image is not made for it.
    NotMeant(String),
    /// The image is made for it, but wrongly, or for more than there is.
    Bad(BadImage),
    /// The image cannot be read.
    Unreadable(BootError),
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::NotMeant(reason.to_owned())
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::NotMeant(reason)
    }
}

impl From<BadImage> for Refusal {
    fn from(problem: BadImage) -> Self {
        Self::Bad(problem)
    }
}

impl From<BootError> for Refusal {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Image { problem, .. } => Self::Bad(problem),
            error => Self::Unreadable(error),
        }
    }
}

impl<'a> Candidate<'a> {
    /// Reads what an ELF is made of, if it is one.
    pub(crate) fn new(image: &'a Image, asked: Option<Protocol>) -> Result<Self, BootError> {
        let mut identity = identify(image)?;
        let elf = match identity.format {
            Format::Elf => match Elf::parse(image) {
                Ok(elf) => Some(Ok(elf)),
                Err(BootError::Image { problem, .. }) => Some(Err(problem)),
                Err(error) => return Err(error),
            },
            _ => None,
        };
        if let Some(Ok(Elf {
            program: Some(mark),
            ..
        })) = &elf
        {
            identity.is_marked_as_program(mark);
        }
        Ok(Self {
            image,
            asked,
            identity,
            elf,
            claimed: Cell::new(false),
        })
    }

    /// The image as an ELF.
    pub(crate) fn elf(&self) -> Result<&Elf, Refusal> {
        match &self.elf {
            None => Err("not an ELF".into()),
            Some(Ok(elf)) => Ok(elf),
            Some(Err(problem)) => Err(format!("the ELF is not usable: {problem}").into()),
        }
    }

    /// The image as an ELF, which it has to be: else `otherwise` is wrong with it.
    pub(crate) fn elf_for<E>(&self, otherwise: impl FnOnce() -> E) -> Result<&Elf, BadImage>
    where
        BadImage: From<E>,
    {
        match &self.elf {
            None => Err(otherwise().into()),
            Some(Ok(elf)) => Ok(elf),
            Some(Err(problem)) => Err(problem.clone()),
        }
    }

    /// The image as an ELF, if it is one without a fault.
    pub(crate) fn as_elf(&self) -> Option<&Elf> {
        self.elf.as_ref()?.as_ref().ok()
    }

    /// Fails if an ELF is for something else than to be taken for a kernel, unless a person insists on the protocol, who
    /// knows more than can be seen.
    pub(crate) fn check_unclaimed(&self, elf: &Elf, protocol: Protocol) -> Result<(), Refusal> {
        if self.asked == Some(protocol) {
            return Ok(());
        }
        if let Some(mark) = elf.program {
            return Err(format!("a program of an operating system: {mark}").into());
        }
        // Linux's kernels have a PVH entry, too.
        if self.claimed.get() && elf.notes.pvh.is_none() {
            return Err("made for another protocol".into());
        }
        Ok(())
    }

    /// What each protocol says, in the order of preference, until `enough`.
    pub(crate) fn probe<'c>(
        &'c self,
        enough: impl Fn(&Probed<'c>) -> bool,
    ) -> Result<Vec<(&'static str, Probed<'c>)>, BootError> {
        let mut probed = Vec::new();
        for (name, probe) in PROTOCOLS {
            let found = match probe(self) {
                Err(Refusal::Unreadable(error)) => return Err(error),
                found => found,
            };
            let claims = !matches!(found, Err(Refusal::NotMeant(_)));
            self.claimed.set(self.claimed.get() || claims);
            let last = enough(&found);
            probed.push((*name, found));
            if last {
                break;
            }
        }
        Ok(probed)
    }

    /// What is to be loaded: by the protocol asked for, else by the best that is offered.
    pub(crate) fn choose(&self) -> Result<Box<dyn Bootable + '_>, BootError> {
        if let Some(asked) = self.asked {
            return match asked.probe()(self) {
                Ok(bootable) => Ok(bootable),
                Err(refusal) => Err(self.not_offered(asked, refusal)),
            };
        }
        let mut probed = self.probe(Result::is_ok)?;
        match probed.pop() {
            Some((_, Ok(bootable))) => Ok(bootable),
            last => Err(self.problem(probed.into_iter().chain(last).map(|(_, probed)| probed))),
        }
    }

    /// Why nothing can start the image, by what all protocols said.
    pub(crate) fn problem<'c>(&self, probed: impl IntoIterator<Item = Probed<'c>>) -> BootError {
        let mut refusals = probed.into_iter().filter_map(Result::err);
        let bad = refusals.find_map(|refusal| match refusal {
            Refusal::Bad(problem) => Some(problem),
            _ => None,
        });
        let problem = match (bad, &self.elf) {
            (Some(problem), _) => problem,
            // What is wrong with an ELF that is no kernel anyway helps nobody.
            (None, Some(Err(problem))) if !self.identity.is_program => problem.clone(),
            _ => BadImage::NotBootable {
                what: self.identity.what.clone(),
            },
        };
        self.image.bad(problem)
    }

    fn not_offered(&self, asked: Protocol, refusal: Refusal) -> BootError {
        let reason = match refusal {
            Refusal::NotMeant(reason) => reason,
            Refusal::Bad(problem) => return self.image.bad(problem),
            Refusal::Unreadable(error) => return error,
        };
        // An ELF that cannot be read offers nothing for just that reason.
        if let Some(Err(problem)) = &self.elf {
            return self.image.bad(problem.clone());
        }
        let others = Candidate {
            image: self.image,
            asked: None,
            identity: self.identity.clone(),
            elf: self.elf.clone(),
            claimed: Cell::new(false),
        };
        let probed = match others.probe(|_| false) {
            Ok(probed) => probed,
            Err(error) => return error,
        };
        let offered = probed.iter().filter(|(_, probed)| probed.is_ok());
        let names: Vec<_> = offered.map(|(name, _)| *name).collect();
        BootError::NotOffered {
            image: self.image.name().to_owned(),
            asked,
            reason,
            offered: if names.is_empty() {
                format!("nothing: {}", self.identity.what)
            } else {
                names.join(", ")
            },
        }
    }
}
