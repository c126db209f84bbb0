//! The files of the machine that tests run on: each is named for what it is, and none makes the loader panic.
//!
//! A sample of `/usr` is looked at, unless `GOLDCREST_ALL_FILES` is set: then all of it is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use goldcrest_boot::{Image, Inspection, inspect};

/// How many files of a folder are looked at.
const SAMPLE: usize = 10;

/// Regular files below a folder, without those behind symbolic links.
fn walk(folder: &Path, all: bool, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = 0;
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), all, found),
            Ok(kind) if kind.is_file() && (all || files < SAMPLE) => {
                files += 1;
                found.push(entry.path());
            }
            _ => {}
        }
    }
}

/// What is said of a file, if it can be read.
fn inspected(path: &Path) -> Option<Inspection> {
    // Files without bytes are no images.
    let image = Image::open(path).ok()?;
    Some(inspect(&image).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// What a file has to be called, by its name.
fn expected(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let has = |end: &str| name.ends_with(end);
    Some(match name {
        _ if has(".ko") => "a module of a Linux kernel",
        _ if has(".gz") || has(".tgz") => "gzip",
        _ if has(".xz") => "xz",
        _ if has(".zst") => "zstd",
        _ if has(".bz2") => "bzip2",
        _ if has(".zip") || has(".jar") || has(".whl") => "zip archive",
        _ if has(".png") => "PNG",
        _ if has(".deb") => "a Debian package",
        _ if has(".efi") || has(".efi.stub") => "EFI",
        _ if name.starts_with("vmlinuz-") => "bzImage",
        _ => return None,
    })
}

#[test]
fn every_file_of_the_machine_is_named_and_none_boots_that_is_no_kernel() {
    let all = std::env::var_os("GOLDCREST_ALL_FILES").is_some();
    let mut files = Vec::new();
    walk(Path::new("/usr"), all, &mut files);
    walk(Path::new("/boot"), all, &mut files);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for path in &files {
        let Some(inspection) = inspected(path) else {
            continue;
        };
        let text = inspection.to_string();
        assert!(
            !text.contains(|char: char| char.is_control() && char != '\n'),
            "{text:?}"
        );
        let what = inspection
            .what
            .split([',', '('])
            .next()
            .unwrap_or_default()
            .trim();
        *kinds.entry(what.to_owned()).or_default() += 1;
        let named = expected(path).is_none_or(|expected| inspection.what.contains(expected));
        if !named {
            wrong.push(format!("{}: {}", path.display(), inspection.what));
        }
        if let Some(offer) = inspection.offers.first() {
            println!("{}: {} ({})", path.display(), offer.protocol, offer.because);
        }
    }
    println!("{} files: {kinds:#?}", files.len());
    println!("named otherwise than by their name: {wrong:#?}");
    // Some files are called what they are not.
    assert!(wrong.len() * 100 <= files.len(), "{wrong:#?}");
}

#[test]
fn programs_libraries_and_archives_are_named_and_do_not_boot() {
    for (folder, end, expected) in [
        ("/usr/bin", "sh", "a dynamically linked program"),
        ("/usr/bin", "env", "a dynamically linked program"),
        ("/usr/lib/x86_64-linux-gnu", "libm.so.6", "a shared library"),
        ("/usr/lib/x86_64-linux-gnu", "libc.so.6", "a shared library"),
        ("/usr/lib/x86_64-linux-gnu", "crt1.o", "an object file"),
        ("/usr/lib/x86_64-linux-gnu", "libc.a", "an ar archive"),
        ("/usr/bin", "busybox", "a static program"),
    ] {
        let path = Path::new(folder).join(end);
        if !path.exists() {
            println!("skipped: there is no {}", path.display());
            continue;
        }
        let inspection = inspected(&path).unwrap();
        assert!(inspection.what.contains(expected), "{inspection}");
        assert!(inspection.offers.is_empty(), "{inspection}");
        let problem = inspection.problem.unwrap();
        assert!(
            problem.contains("not a kernel or unikernel: ") && problem.contains(expected),
            "{problem}"
        );
    }
}
