//! What an ELF is, whatever it is made for. Nothing of it need be right.

use super::{EXECUTABLE, Format, Identity, printable};
use crate::{BootError, Image};

const ET_REL: u16 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const ET_CORE: u16 = 4;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_SONAME: u64 = 14;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;

/// How many program headers and dynamic tags, and how much of other things, is looked at.
const MAX_PROGRAM_HEADERS: u16 = 128;
const MAX_TAGS: u64 = 1024;
const MAX_NAMES: u64 = 64 * 1024;
const MAX_INTERPRETER: u64 = 256;

/// The section by which a module of the Linux kernel is known.
const KERNEL_MODULE: &[u8] = b".gnu.linkonce.this_module\0";

/// Says what an ELF is.
pub(super) fn identify(image: &Image) -> Result<Identity, BootError> {
    let file = File::of(image);
    let (kind, is_program) = file.kind()?;
    let class = match file.class {
        1 => "ELF32",
        2 => "ELF64",
        _ => "ELF",
    };
    let kind_at_16 = format!("7f 45 4c 46 at 0, type {} at 0x10", file.kind);
    Ok(Identity {
        format: Format::Elf,
        what: format!("{class} for {}, {kind} ({kind_at_16})", file.machine()),
        is_program,
    })
}

/// The few fields that are looked at.
struct File<'a> {
    image: &'a Image,
    class: u8,
    big_endian: bool,
    kind: u16,
}

impl<'a> File<'a> {
    fn of(image: &'a Image) -> Self {
        let mut ident = [0; 6];
        let _ = image.read_at(0, &mut ident);
        let [_, _, _, _, class, data] = ident;
        let file = Self {
            image,
            class,
            big_endian: data == 2,
            kind: 0,
        };
        let kind = file.field(16, 2).and_then(|kind| u16::try_from(kind).ok());
        Self {
            kind: kind.unwrap_or(0),
            ..file
        }
    }

    /// A number of so many bytes, if the image has it.
    fn field(&self, at: u64, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        self.image.read_at(at, bytes.get_mut(..len)?).ok()?;
        Some(if self.big_endian {
            u64::from_be_bytes(bytes) >> (64 - 8 * len)
        } else {
            u64::from_le_bytes(bytes)
        })
    }

    /// A field that lies elsewhere in an ELF32, where addresses have 4 bytes.
    fn address(&self, at_32: u64, at_64: u64) -> Option<u64> {
        match self.class {
            1 => self.field(at_32, 4),
            _ => self.field(at_64, 8),
        }
    }

    fn short(&self, at_32: u64, at_64: u64) -> Option<u64> {
        self.field(if self.class == 1 { at_32 } else { at_64 }, 2)
    }

    fn machine(&self) -> String {
        match self.field(18, 2) {
            Some(3) => "i386".into(),
            Some(62) => "x86-64".into(),
            Some(8) => "MIPS".into(),
            Some(20) => "PowerPC".into(),
            Some(21) => "PowerPC64".into(),
            Some(22) => "S/390".into(),
            Some(40) => "ARM".into(),
            Some(183) => "arm64".into(),
            Some(243) => "RISC-V".into(),
            Some(247) => "BPF".into(),
            Some(258) => "LoongArch".into(),
            other => format!("machine {}", other.unwrap_or(0)),
        }
    }

    /// What it is, and whether that is something other than a kernel.
    fn kind(&self) -> Result<(String, bool), BootError> {
        Ok(match self.kind {
            ET_REL if self.is_kernel_module() => ("a module of a Linux kernel".into(), true),
            ET_REL => ("an object file: link it first".into(), true),
            ET_CORE => ("a core dump".into(), true),
            ET_EXEC => match self.interpreter() {
                Some(by) => (format!("a dynamically linked program, by {by}"), true),
                None => (EXECUTABLE.into(), false),
            },
            ET_DYN => {
                let (is_library, is_program) = self.dynamic();
                match self.interpreter() {
                    _ if is_library => ("a shared library".into(), true),
                    Some(by) => (format!("a dynamically linked program (PIE), by {by}"), true),
                    None if is_program => ("a static program (PIE)".into(), true),
                    None => ("a shared or position-independent object".into(), true),
                }
            }
            _ => ("of an unknown type".into(), false),
        })
    }

    /// Offset and size in the file of the first segment of a kind.
    fn segment(&self, kind: u32) -> Option<(u64, u64)> {
        let table = self.address(28, 32)?;
        let size = self.short(42, 54)?;
        let count = self.short(44, 56)?.min(MAX_PROGRAM_HEADERS.into());
        let headers = (0..count).map_while(|index| table.checked_add(index * size));
        for header in headers {
            if self.field(header, 4)? == u64::from(kind) {
                let offset = self.address(header.checked_add(4)?, header.checked_add(8)?)?;
                let size = self.address(header.checked_add(16)?, header.checked_add(32)?)?;
                return Some((offset, size));
            }
        }
        None
    }

    fn interpreter(&self) -> Option<String> {
        let (offset, size) = self.segment(PT_INTERP)?;
        let mut name = vec![0; usize::try_from(size.min(MAX_INTERPRETER)).ok()?];
        // A program is dynamic even if its linker's name is missing.
        let _ = self.image.read_at(offset, &mut name);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(printable(name, 64))
    }

    /// Whether the dynamic section says that this is a shared library, and whether a program.
    fn dynamic(&self) -> (bool, bool) {
        let (mut has_name, mut is_program) = (false, false);
        let Some((offset, size)) = self.segment(PT_DYNAMIC) else {
            return (false, false);
        };
        let word = if self.class == 1 { 4 } else { 8 };
        for index in 0..(size / (2 * word)).min(MAX_TAGS) {
            let at = offset.saturating_add(index * 2 * word);
            let width = usize::try_from(word).unwrap_or(8);
            let (Some(tag), Some(value)) = (
                self.field(at, width),
                self.field(at.saturating_add(word), width),
            ) else {
                break;
            };
            match tag {
                DT_NULL => break,
                DT_SONAME => has_name = true,
                DT_FLAGS_1 => is_program = value & DF_1_PIE != 0,
                _ => {}
            }
        }
        (has_name && !is_program, is_program)
    }

    /// Whether the section names have that of a kernel module.
    fn is_kernel_module(&self) -> bool {
        self.section_names().is_some_and(|names| {
            names
                .windows(KERNEL_MODULE.len())
                .any(|name| name == KERNEL_MODULE)
        })
    }

    fn section_names(&self) -> Option<Vec<u8>> {
        let table = self.address(32, 40)?;
        let (size, index) = (self.short(46, 58)?, self.short(50, 62)?);
        let header = table.checked_add(size * index)?;
        let offset = self.address(header.checked_add(16)?, header.checked_add(24)?)?;
        let len = self.address(header.checked_add(20)?, header.checked_add(32)?)?;
        let mut names = vec![0; usize::try_from(len.min(MAX_NAMES)).ok()?];
        self.image.read_at(offset, &mut names).ok()?;
        Some(names)
    }
}
