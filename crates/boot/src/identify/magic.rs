//! Files that are no ELF and no bzImage, by their magic numbers.

use super::{Hex, printable};
use crate::{BootError, Image};

/// A magic number: what the file is, where its bytes are, and which they are.
type Magic = (&'static str, u64, &'static [u8]);

/// Of several that match, the first one counts. What is more special therefore comes first.
const MAGICS: &[Magic] = &[
    ("gzip: decompress it first", 0, &[0x1f, 0x8b]),
    ("zstd: decompress it first", 0, &[0x28, 0xb5, 0x2f, 0xfd]),
    ("xz: decompress it first", 0, b"\xfd7zXZ"),
    ("bzip2: decompress it first", 0, b"BZh"),
    ("lz4: decompress it first", 0, &[0x04, 0x22, 0x4d, 0x18]),
    ("lz4: decompress it first", 0, &[0x02, 0x21, 0x4c, 0x18]),
    ("lzop: decompress it first", 0, b"\x89LZO"),
    (CPIO, 0, b"070701"),
    (CPIO, 0, b"070702"),
    (CPIO, 0, b"070707"),
    (CPIO, 0, &[0xc7, 0x71]),
    ("a tar archive", 257, b"ustar"),
    ("a Debian package", 8, b"debian-binary"),
    ("an ar archive, such as a static library", 0, b"!<arch>\n"),
    ("a thin ar archive", 0, b"!<thin>\n"),
    ("a zip archive", 0, b"PK\x03\x04"),
    ("an empty zip archive", 0, b"PK\x05\x06"),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("an RPM package", 0, &[0xed, 0xab, 0xee, 0xdb]),
    ("a Linux kernel for arm64", 0x38, b"ARM\x64"),
    ("a Linux kernel for RISC-V", 0x38, b"RSC\x05"),
    ("a U-Boot image", 0, &[0x27, 0x05, 0x19, 0x56]),
    ("a device tree", 0, &[0xd0, 0x0d, 0xfe, 0xed]),
    (DISK_QCOW2, 0, b"QFI\xfb"),
    (DISK_VMDK, 0, b"KDMV"),
    ("a disk with a GPT: it is given by --disk", 512, b"EFI PART"),
    ("a CD image", 0x8001, b"CD001"),
    ("a squashfs file system: it is given by --disk", 0, b"hsqs"),
    (
        "an EROFS file system: it is given by --disk",
        1024,
        &[0xe2, 0xe1, 0xf5, 0xe0],
    ),
    (
        "a btrfs file system: it is given by --disk",
        0x1_0040,
        b"_BHRfS_M",
    ),
    ("an XFS file system: it is given by --disk", 0, b"XFSB"),
    ("an SQLite database", 0, b"SQLite format 3\0"),
    ("a PNG picture", 0, b"\x89PNG\r\n\x1a\n"),
    ("a JPEG picture", 0, &[0xff, 0xd8, 0xff]),
    ("a GIF picture", 0, b"GIF8"),
    ("a PDF document", 0, b"%PDF-"),
    ("WebAssembly", 0, b"\0asm"),
    ("LLVM bitcode", 0, b"BC\xc0\xde"),
    ("a message catalogue", 0, &[0xde, 0x12, 0x04, 0x95]),
    ("a Java class", 0, &[0xca, 0xfe, 0xba, 0xbe]),
    ("a Mach-O executable", 0, &[0xcf, 0xfa, 0xed, 0xfe]),
    (
        "a boot sector, for `--format flat,addr=0x7c00,mode=16`, or a disk with an MBR, for --disk",
        510,
        &[0x55, 0xaa],
    ),
    (
        "an ext2, ext3 or ext4 file system: it is given by --disk",
        0x438,
        &[0x53, 0xef],
    ),
];

const CPIO: &str = "a cpio archive: is it the initial RAM disk?";
const DISK_QCOW2: &str = "a disk image in qcow2: convert it to raw, for --disk";
const DISK_VMDK: &str = "a disk image in VMDK: convert it to raw, for --disk";

/// How many bytes of unknown files are shown.
const SHOWN: usize = 4;
/// How much of a file is looked at to see whether it is text.
const SAMPLE: usize = 1024;

/// What the file is, with the bytes that say so.
pub(super) fn describe(image: &Image) -> Result<String, BootError> {
    let begins = image.beginning(SHOWN);
    if begins.starts_with(b"#!") {
        return Ok(format!("a script{} (23 21 at 0)", interpreter(image)));
    }
    if begins.starts_with(b"MZ") {
        return portable_executable(image);
    }
    for (what, at, bytes) in MAGICS {
        if has(image, *at, bytes)? {
            let at = if *at == 0 {
                "0".into()
            } else {
                format!("{at:#x}")
            };
            return Ok(format!("{what} ({} at {at})", Hex(bytes)));
        }
    }
    let kind = if is_text(image.beginning(SAMPLE)) {
        "text"
    } else {
        "of no known kind"
    };
    Ok(format!("{kind}, begins with {}", Hex(begins)))
}

/// Whether an image has these bytes there.
fn has(image: &Image, at: u64, bytes: &[u8]) -> Result<bool, BootError> {
    let mut found = [0; 16];
    let Some(found) = found.get_mut(..bytes.len()) else {
        return Ok(false);
    };
    if at.saturating_add(bytes.len() as u64) > image.len() {
        return Ok(false);
    }
    image.read_at(at, found)?;
    Ok(*found == *bytes)
}

/// What a script asks for, if it can be shown.
fn interpreter(image: &Image) -> String {
    let line = image.beginning(128).split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| line.get(2..)).unwrap_or_default();
    match printable(line.trim_ascii(), 64) {
        line if line.is_empty() => line,
        line => format!(" for {line}"),
    }
}

/// Offset of the offset of the PE header, and offsets in that (Microsoft, "PE Format").
const PE_OFFSET_AT: u64 = 0x3c;
const PE_MACHINE: u64 = 4;
const PE_SECTION_COUNT: u64 = 6;
const PE_OPTIONAL_SIZE: u64 = 20;
const PE_OPTIONAL: u64 = 24;
/// In the optional header, of 32- and of 64-bit images.
const PE_SUBSYSTEM: u64 = 68;
const PE_SECTION_SIZE: u64 = 40;
/// More sections than that are not looked at.
const PE_MAX_SECTIONS: u16 = 96;

fn portable_executable(image: &Image) -> Result<String, BootError> {
    let pe = u64::from(read_u16(image, PE_OFFSET_AT)?)
        | u64::from(read_u16(image, PE_OFFSET_AT + 2)?) << 16;
    if !has(image, pe, b"PE\0\0")? {
        return Ok("a DOS program (4d 5a at 0)".into());
    }
    let machine = match read_u16(image, pe + PE_MACHINE)? {
        0x8664 => " for x86-64".into(),
        0x014c => " for i386".into(),
        0xaa64 => " for arm64".into(),
        0x0ebc => " in EFI byte code".into(),
        other => format!(" for machine {other:#x}"),
    };
    let what = match read_u16(image, pe + PE_OPTIONAL + PE_SUBSYSTEM)? {
        10 if has_linux_section(image, pe)? => {
            "a unified kernel image, which a firmware starts from a disk,"
        }
        10 => "an EFI application",
        11 | 12 => "an EFI driver",
        13 => "an EFI ROM",
        2 | 3 => "a Windows program",
        _ => "a PE executable",
    };
    Ok(format!(
        "{what}{machine} (4d 5a at 0, 50 45 00 00 at {pe:#x})"
    ))
}

/// Whether there is a section `.linux`, by which a unified kernel image is known.
fn has_linux_section(image: &Image, pe: u64) -> Result<bool, BootError> {
    let sections = pe + PE_OPTIONAL + u64::from(read_u16(image, pe + PE_OPTIONAL_SIZE)?);
    let count = read_u16(image, pe + PE_SECTION_COUNT)?.min(PE_MAX_SECTIONS);
    for index in 0..u64::from(count) {
        if has(image, sections + index * PE_SECTION_SIZE, b".linux\0\0")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A field, 0 where the image ends before it.
fn read_u16(image: &Image, at: u64) -> Result<u16, BootError> {
    let mut bytes = [0; 2];
    if at.saturating_add(2) <= image.len() {
        image.read_at(at, &mut bytes)?;
    }
    Ok(u16::from_le_bytes(bytes))
}

/// Whether this is the beginning of a text in UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_binary =
        |char: char| char.is_control() && !matches!(char, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    !valid.is_empty() && !valid.contains(is_binary)
}
