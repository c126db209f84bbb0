//! A kernel as Debian and others leave it in a root file system, without any loader entry.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use uapi_version::strverscmp;

use super::{Entry, OsRelease, Source};
use crate::file_system::FileSystem;

/// Where kernels are looked for.
const FOLDERS: [&str; 2] = ["/", "/boot"];
/// Names without a version: kernel, and the RAM disks that may belong to it.
const KERNEL: &str = "vmlinuz";
const INITRDS: [&str; 3] = ["initrd.img", "initramfs.img", "initrd"];
/// Bytes of a text file at most.
const MAX_TEXT: usize = 64 * 1024;

/// The kernel of a file system, on the partition `place`; `None` if it has none.
///
/// That is `/vmlinuz` or `/boot/vmlinuz` with `initrd.img` beside, else the newest `vmlinuz-VERSION` of `/boot` or `/` with
/// `initrd.img-VERSION`, `initramfs-VERSION.img` or `initrd-VERSION` beside. `root` is what `root=` says; the options are
/// those of `/etc/kernel/cmdline`, else `rw console=ttyS0`.
pub fn plain(file_system: &Rc<FileSystem>, place: &str, root: Option<&str>) -> Option<Entry> {
    let found = FOLDERS
        .iter()
        .find_map(|folder| unversioned(file_system, folder));
    let found = found.or_else(|| {
        let mut folders = FOLDERS.iter().rev();
        folders.find_map(|folder| newest(file_system, folder))
    });
    let (linux, initrd, version) = found?;
    let release = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| text(file_system, path))
        .map(|text| OsRelease::parse(&text))
        .unwrap_or_default();
    let value = |keys: &[&str]| release.first_of(keys).map(str::to_owned);
    Some(Entry {
        id: linux.trim_start_matches('/').to_owned(),
        title: value(&["PRETTY_NAME", "NAME", "ID"]),
        version: version.or_else(|| value(&["VERSION_ID"])),
        sort_key: None,
        machine_id: None,
        counter: None,
        place: place.to_owned(),
        source: Source::Linux {
            options: options(text(file_system, "/etc/kernel/cmdline"), root),
            file_system: file_system.clone(),
            linux,
            initrds: initrd.into_iter().collect(),
        },
    })
}

/// Kernel, initial RAM disk, and version.
type Kernel = (String, Option<String>, Option<String>);

fn unversioned(file_system: &FileSystem, folder: &str) -> Option<Kernel> {
    let linux = join(folder, KERNEL);
    file_system.find(&linux).ok()?;
    let initrd = INITRDS
        .iter()
        .map(|name| join(folder, name))
        .find(|path| file_system.find(path).is_ok());
    Some((linux, initrd, None))
}

fn newest(file_system: &FileSystem, folder: &str) -> Option<Kernel> {
    let names = file_system.list(folder).ok()?;
    let versions = names.iter().filter(|entry| !entry.is_dir);
    let mut versions: Vec<_> = versions
        .filter_map(|entry| entry.name.strip_prefix("vmlinuz-"))
        .filter(|version| !version.is_empty())
        .collect();
    versions.sort_by(|a, b| strverscmp(b, a));
    versions.into_iter().find_map(|version| {
        let linux = join(folder, &format!("{KERNEL}-{version}"));
        file_system.find(&linux).ok()?;
        let initrd = [
            format!("initrd.img-{version}"),
            format!("initramfs-{version}.img"),
            format!("initrd-{version}"),
        ];
        let initrd = initrd
            .iter()
            .map(|name| join(folder, name))
            .find(|path| file_system.find(path).is_ok());
        Some((linux, initrd, Some(version.to_owned())))
    })
}

fn options(configured: Option<String>, root: Option<&str>) -> String {
    let configured = configured.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let options = configured.filter(|words| !words.is_empty());
    let options = options.unwrap_or_else(|| "rw console=ttyS0".to_owned());
    match root {
        Some(root) if !options.split(' ').any(|word| word.starts_with("root=")) => {
            format!("root={root} {options}")
        }
        _ => options,
    }
}

fn text(file_system: &FileSystem, path: &str) -> Option<String> {
    let bytes = file_system.find(path).ok()?.read_all(MAX_TEXT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}
