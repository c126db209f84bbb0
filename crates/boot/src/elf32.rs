//! ELFs of 32 bits without a header that says how they are started: in 32-bit protected mode, as [`crate::bare`] has it.

use crate::bare::Mode;
use crate::candidate::{Bootable, Candidate, Job, Probed};
use crate::elf::{Class, Elf};
use crate::load::Loader;
use crate::{BootError, Loaded, Protocol};

/// An ELF of 32 bits that is taken for a kernel.
struct Elf32<'c>(&'c Elf);

/// Nothing says that an ELF32 is a kernel. It is taken for one if it is for nothing else.
pub(crate) fn probe<'c>(candidate: &'c Candidate<'_>) -> Probed<'c> {
    let elf = candidate.elf()?;
    if elf.class != Class::Elf32 {
        return Err("an ELF of 64 bits".into());
    }
    candidate.check_unclaimed(elf, Protocol::Elf32)?;
    if let Err(problem) = elf.check_fixed() {
        return Err(problem.to_string().into());
    }
    Ok(Box::new(Elf32(elf)))
}

impl Bootable for Elf32<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::Elf32
    }

    fn entry(&self) -> u64 {
        self.0.physical_entry()
    }

    fn because(&self) -> String {
        "an ELF32 executable at fixed addresses: taken for a kernel".into()
    }

    fn passes(&self) -> Vec<String> {
        Mode::Protected.passes()
    }

    fn load(&self, job: &Job<'_>) -> Result<Loaded, BootError> {
        let elf = self.0;
        let entry = elf.physical_entry();
        elf.check_executable(job.image, "the entry point", entry)?;
        let mut loader = Loader::new(job.image, job.ram);
        loader.claim_pc();
        loader.claim_segments(elf)?;
        loader.place_segments(elf)?;
        loader.start_bare(job, Protocol::Elf32, entry, Mode::Protected)
    }
}
