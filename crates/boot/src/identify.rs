//! What a file is, by its bytes: kernels, and whatever else a machine has that is none.

mod elf;
mod magic;

use std::fmt;

use crate::elf::MAGIC;
use crate::{BootError, Image, setup_header};

/// A format, found by the image's bytes and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// ELF.
    Elf,
    /// Linux's compressed kernel with a setup header.
    BzImage,
    /// None that says how it is loaded.
    Other,
}

/// What a file is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) format: Format,
    /// What it is, and by which bytes, in words.
    pub(crate) what: String,
    /// It is an ELF that is a part of an operating system's programs: no kernel, unless something in it says so.
    pub(crate) is_program: bool,
}

impl Identity {
    /// Something in an ELF says that it is a program.
    pub(crate) fn is_marked_as_program(&mut self, mark: &str) {
        if !self.is_program {
            self.is_program = true;
            self.what = self.what.replacen(EXECUTABLE, "a static program", 1);
            self.what = format!("{}: {mark}", self.what);
        }
    }
}

/// What an ELF is called that may be a kernel.
const EXECUTABLE: &str = "an executable";

/// Says what an image is.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn identify(image: &Image) -> Result<Identity, BootError> {
    let begins = image.beginning(MAGIC.len());
    if begins == MAGIC {
        return elf::identify(image);
    }
    let mut setup = [0; 4];
    let has_setup = image.read_at(setup_header::MAGIC_AT, &mut setup).is_ok();
    if has_setup && setup == setup_header::MAGIC {
        return Ok(Identity {
            format: Format::BzImage,
            what: "bzImage (\"HdrS\" at 0x202)".into(),
            is_program: false,
        });
    }
    Ok(Identity {
        format: Format::Other,
        what: magic::describe(image)?,
        is_program: false,
    })
}

/// Bytes as people write them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Text as a part of one line: what a terminal would obey or break the line at is escaped, and no more than `limit`
/// characters are kept.
fn printable(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let chars = text.chars().take(limit);
    chars.fold(String::new(), |mut line, char| {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
        line
    })
}

#[cfg(test)]
mod tests;
