//! Type 2 entries: unified kernel images (UAPI.5, *Unified Kernel Image*).

use alloc::borrow::ToOwned;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Entry, LinuxProgram, OsRelease, Program, Source, split_counter};
use crate::file::{File, FsError};
use crate::file_system::FileSystem;
use crate::pe::{Image, MACHINE_X86_64, Part};

/// Bytes of `.cmdline`, `.osrel` and `.uname` at most.
const MAX_TEXT: usize = 64 * 1024;

/// The entry of a unified kernel image that is called `name` in the directory `folder`.
///
/// # Errors
///
/// If it is none, or not for this processor, or damaged.
pub fn unified(
    file_system: &Rc<FileSystem>,
    place: &str,
    folder: &str,
    name: &str,
) -> Result<Entry, FsError> {
    let (stem, counter) = split_counter(name, ".efi").unwrap_or((name, None));
    let path = alloc::format!("{folder}/{name}");
    let image = image(&file_system.find(&path)?)?;
    let release = OsRelease::parse(&text(&image, ".osrel")?);
    let value = |keys: &[&str]| release.first_of(keys).map(str::to_owned);
    let kernel = Some(text(&image, ".uname")?).filter(|version| !version.is_empty());
    Ok(Entry {
        id: alloc::format!("{stem}.efi"),
        title: value(&["PRETTY_NAME", "IMAGE_ID", "NAME", "ID"]),
        version: value(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]).or(kernel),
        sort_key: value(&["IMAGE_ID", "ID"]),
        machine_id: None,
        counter,
        place: place.to_owned(),
        source: Source::Unified {
            file_system: file_system.clone(),
            path,
            options: String::new(),
        },
    })
}

/// What a unified kernel image starts, with words appended to its command line.
///
/// # Errors
///
/// As for [`unified`].
pub fn program(file: &File, options: &str) -> Result<Program, FsError> {
    let image = image(file)?;
    let Some(kernel) = image.section(".linux") else {
        return Ok(Program::EfiApplication(Part::whole(file.clone())));
    };
    // Microcode comes first, as the kernel looks for it there.
    let initrds: Vec<_> = [".ucode", ".initrd"]
        .iter()
        .filter_map(|name| image.section(name))
        .filter(|part| part.size() != 0)
        .collect();
    let mut cmdline = text(&image, ".cmdline")?;
    if !options.is_empty() {
        cmdline.push(' ');
        cmdline.push_str(options);
    }
    Ok(Program::Linux(LinuxProgram {
        kernel,
        initrds,
        cmdline,
    }))
}

fn image(file: &File) -> Result<Image, FsError> {
    let image = Image::parse(file)?.ok_or(FsError::Corrupt {
        what: "it is no EFI program",
        value: file.size(),
    })?;
    if image.machine != MACHINE_X86_64 {
        return Err(FsError::Unsupported {
            what: "an EFI program for another processor",
            value: image.machine.into(),
        });
    }
    Ok(image)
}

/// A section that is text, without what ends or fills it; empty if there is none.
fn text(image: &Image, name: &str) -> Result<String, FsError> {
    let Some(part) = image.section(name) else {
        return Ok(String::new());
    };
    let bytes = part.read_all(MAX_TEXT)?;
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    Ok(text.trim().to_owned())
}
