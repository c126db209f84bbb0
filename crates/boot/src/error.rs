//! What can go wrong between an image and a guest ready to start.

use std::io;
use std::path::{Path, PathBuf};

use goldcrest_memory::MemoryError;

use crate::{BadImage, Protocol, Solo5Kind};

/// An image that cannot be opened, or cannot be booted as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The file cannot be opened.
    #[error("cannot open {}", one_line(path))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device: nothing that can be mapped.
    #[error("{}: not a regular file but a {found}", one_line(path))]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The file has no bytes.
    #[error("{image}: empty")]
    Empty {
        /// The image.
        image: String,
    },
    /// Reading failed.
    #[error("{image}: cannot read {len} bytes at {offset:#x}")]
    Read {
        /// The image.
        image: String,
        /// Where in the file.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image's content is not what its format demands, or more than this loader takes.
    #[error("{image}: {problem}")]
    Image {
        /// The image.
        image: String,
        /// What is wrong with it.
        problem: BadImage,
    },
    /// A protocol was asked for that the image does not offer.
    #[error("{image}: cannot be started by {asked}: {reason}; it offers {offered}")]
    NotOffered {
        /// The image.
        image: String,
        /// What was asked for.
        asked: Protocol,
        /// Why not.
        reason: String,
        /// What the image offers, in words.
        offered: String,
    },
    /// Modules for a guest that is told of none.
    #[error(
        "{image}: started by {protocol}, which has no modules: give it one file by --initrd, or choose another protocol"
    )]
    Modules {
        /// The image.
        image: String,
        /// How it is started.
        protocol: Protocol,
    },
    /// Something that a guest of this protocol does not look for.
    #[error("{image}: a guest of {protocol} finds no {what}")]
    Useless {
        /// The image.
        image: String,
        /// How it is started.
        protocol: Protocol,
        /// What it would not find.
        what: &'static str,
    },
    /// More or less memory than the protocol allows.
    #[error("{image}: guest memory of {size} bytes: {least} to {most} are possible")]
    MemorySize {
        /// The image.
        image: String,
        /// Bytes asked for.
        size: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A device that a Solo5 guest must have is missing.
    #[error("{image}: its manifest declares {kind} {name:?}, which is not attached ({} {name}=...)", kind.option())]
    Solo5NotAttached {
        /// The image.
        image: String,
        /// The device's name.
        name: String,
        /// What it is.
        kind: Solo5Kind,
    },
    /// A device that a Solo5 guest does not know.
    #[error("{image}: {kind} {name:?} is attached, but its manifest declares {declared}")]
    Solo5NotDeclared {
        /// The image.
        image: String,
        /// The device's name.
        name: String,
        /// What it is.
        kind: Solo5Kind,
        /// What there is, in words.
        declared: String,
    },
    /// A device that a Solo5 guest has of another kind.
    #[error("{image}: {name:?} is a {declared} by its manifest, but is attached as a {attached}")]
    Solo5Kind {
        /// The image.
        image: String,
        /// The device's name.
        name: String,
        /// What the manifest says.
        declared: Solo5Kind,
        /// What it was to be.
        attached: Solo5Kind,
    },
    /// Two devices of a Solo5 guest with the same name.
    #[error("{kind} {name:?} is attached twice")]
    Solo5AttachedTwice {
        /// The name.
        name: String,
        /// What they are.
        kind: Solo5Kind,
    },
    /// More words on the command line than the guest takes.
    #[error("the command line has {count} words; {image} takes at most {limit}")]
    CommandLineWords {
        /// The image.
        image: String,
        /// Words given.
        count: usize,
        /// Words that are taken.
        limit: usize,
    },
    /// A module's arguments have a zero byte, at which a guest would end them.
    #[error("the arguments of module {module} have a zero byte at {offset}")]
    ModuleArguments {
        /// The module.
        module: String,
        /// Where.
        offset: usize,
    },
    /// A part of the image lies where the guest has no RAM.
    #[error(
        "{image}: {what} takes {start:#x}-{last:#x}, where the guest has no RAM ({ram}): give the guest more memory or \
         link the image lower"
    )]
    OutsideRam {
        /// The image.
        image: String,
        /// Which part.
        what: String,
        /// The first guest-physical address.
        start: u64,
        /// The last guest-physical address.
        last: u64,
        /// The guest's RAM, in words.
        ram: String,
    },
    /// Two things claim the same addresses.
    #[error("{image}: {what} takes {start:#x}-{last:#x}, which overlaps {other}")]
    Overlap {
        /// The image.
        image: String,
        /// Which part.
        what: String,
        /// The first guest-physical address.
        start: u64,
        /// The last guest-physical address.
        last: u64,
        /// What is there already.
        other: String,
    },
    /// No gap in the guest's RAM is large enough.
    #[error("{what} of {len} bytes does not fit below {limit:#x}: {advice} ({ram} now)")]
    NoRoom {
        /// What was to be placed.
        what: &'static str,
        /// Its size, in bytes.
        len: u64,
        /// The guest-physical address below which it has to lie.
        limit: u64,
        /// What to do about it, in words.
        advice: &'static str,
        /// The guest's RAM, in words.
        ram: String,
    },
    /// The command line is longer than the guest takes.
    #[error("the command line has {len} bytes; {image} takes at most {limit}")]
    CommandLineTooLong {
        /// The image.
        image: String,
        /// Bytes given.
        len: usize,
        /// Bytes that are taken.
        limit: u64,
    },
    /// The command line has a zero byte, at which a guest would end it.
    #[error("the command line has a zero byte at {offset}")]
    CommandLineZero {
        /// Where.
        offset: usize,
    },
    /// More processors than the protocol's tables describe.
    #[error("{cpus} processors: between 1 and {limit} can be described")]
    Cpus {
        /// Processors asked for.
        cpus: u32,
        /// The most.
        limit: u32,
    },
    /// More devices than can be named.
    #[error("{count} virtio-mmio devices: at most {limit} can be announced")]
    TooManyDevices {
        /// Devices given.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// A device's registers lie where RAM or an interrupt controller may be, or beyond 4 GiB.
    #[error(
        "a virtio-mmio device takes {start:#x}-{last:#x}: devices lie from {lowest:#x} to {highest:#x}"
    )]
    DeviceAddress {
        /// The first guest-physical address.
        start: u64,
        /// The last guest-physical address.
        last: u64,
        /// The first address that a device can have.
        lowest: u64,
        /// The last address that a device can have.
        highest: u64,
    },
    /// The device tree cannot be written.
    #[error("cannot describe the machine in a device tree")]
    DeviceTree {
        /// Why.
        #[source]
        source: vm_fdt::Error,
    },
    /// Guest RAM refused what was put there.
    #[error("cannot put {what} into guest memory")]
    Memory {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: MemoryError,
    },
}

impl BootError {
    pub(crate) fn memory(what: &'static str) -> impl FnOnce(MemoryError) -> Self {
        move |source| Self::Memory { what, source }
    }
}

/// A path as one line of text: what a terminal would obey or break the line at is escaped.
pub(crate) fn one_line(path: &Path) -> String {
    let mut line = String::new();
    for char in path.display().to_string().chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}
