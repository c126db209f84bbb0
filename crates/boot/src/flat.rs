//! Flat binaries: bytes that are put at an address and started there. Nothing in them says so: a person does.

use std::fmt;
use std::str::FromStr;

use goldcrest_memory::layout;

use crate::areas::AreaKind;
use crate::bare::Mode;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::load::Loader;
use crate::{BadImage, BootError, Loaded, Protocol};

/// The end of what real mode can address.
const REAL_MODE_END: u64 = 0x10_0000;

/// How a flat binary is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Flat {
    /// The guest-physical address of its first byte.
    pub address: u64,
    /// The guest-physical address of the first instruction; by default the same.
    pub entry: Option<u64>,
    /// The mode in which it starts.
    pub mode: Mode,
}

impl Flat {
    /// A flat binary that begins with its first instruction, in 32-bit protected mode.
    pub const fn at(address: u64) -> Self {
        Self {
            address,
            entry: None,
            mode: Mode::Protected,
        }
    }

    fn first_instruction(&self) -> u64 {
        self.entry.unwrap_or(self.address)
    }
}

impl fmt::Display for Flat {
    /// The options as a person writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addr={:#x}", self.address)?;
        if let Some(entry) = self.entry {
            write!(f, ",entry={entry:#x}")?;
        }
        write!(f, ",mode={}", self.mode)
    }
}

const FORM: &str = "write flat,addr=ADDRESS[,entry=ADDRESS][,mode=16|32|64]";

impl FromStr for Flat {
    type Err = String;

    /// `addr=ADDRESS[,entry=ADDRESS][,mode=16|32|64]`; addresses are decimal, or hexadecimal behind `0x`.
    fn from_str(options: &str) -> Result<Self, String> {
        let (mut address, mut entry, mut mode) = (None, None, None);
        for option in options.split(',') {
            let twice = match option.split_once('=') {
                Some(("addr", value)) => address.replace(number(value)?).is_some(),
                Some(("entry", value)) => entry.replace(number(value)?).is_some(),
                Some(("mode", value)) => mode.replace(mode_of(value)?).is_some(),
                _ => return Err(format!("unknown option {option:?}; {FORM}")),
            };
            if twice {
                return Err(format!("option {option:?} is given twice; {FORM}"));
            }
        }
        Ok(Self {
            address: address.ok_or_else(|| format!("no address (addr=); {FORM}"))?,
            entry,
            mode: mode.unwrap_or(Mode::Protected),
        })
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        _ => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not an address; {FORM}"))
}

fn mode_of(text: &str) -> Result<Mode, String> {
    match text {
        "16" => Ok(Mode::Real),
        "32" => Ok(Mode::Protected),
        "64" => Ok(Mode::Long),
        _ => Err(format!("mode {text:?} is none of 16, 32, 64; {FORM}")),
    }
}

/// Takes any image, if a person says where it goes.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    const WHAT: &str = "the entry point of the flat binary";
    let Some(Protocol::Flat(flat)) = candidate.asked else {
        return Err("only if it is asked for (--format flat,addr=ADDRESS)".into());
    };
    let entry = flat.first_instruction();
    let len = candidate.image.len();
    if entry
        .checked_sub(flat.address)
        .is_none_or(|offset| offset >= len)
    {
        return Err(BadImage::FlatEntry {
            entry,
            start: flat.address,
            len,
        }
        .into());
    }
    let what = WHAT;
    match flat.mode {
        Mode::Real if entry >= REAL_MODE_END => Err(BadImage::EntryOver1MiB { what, entry }.into()),
        Mode::Protected if entry >= layout::HOLE_END => {
            Err(BadImage::EntryOver4GiB { what, entry }.into())
        }
        _ => Ok(Box::new(flat)),
    }
}

impl Bootable for Flat {
    fn protocol(&self) -> Protocol {
        Protocol::Flat(*self)
    }

    fn entry(&self) -> u64 {
        self.first_instruction()
    }

    fn because(&self) -> String {
        format!("asked for: its first byte goes to {:#x}", self.address)
    }

    fn passes(&self) -> Vec<String> {
        self.mode.passes()
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        let mut loader = Loader::new(job.image, job.ram);
        let (at, len) = (self.address, job.image.len());
        let end = at.saturating_add(len);
        let (name, what) = (job.image.name(), "the flat binary");
        loader.claim_firmware();
        loader.areas.claim(AreaKind::Image, at..end, name, &what)?;
        loader.claim_page_0_if_free();
        loader.copied += job.image.place(job.ram, what, 0, at, len)?;
        loader.start_bare(job, self.protocol(), self.entry(), self.mode)
    }
}
