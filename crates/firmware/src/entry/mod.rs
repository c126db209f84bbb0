//! Boot loader entries: what can be started, and how it presents itself.

mod counter;
mod glob;
mod loader_conf;
mod order;
mod os_release;
mod plain;
mod type1;
mod type2;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

pub use counter::{Counter, split_counter};
pub use glob::matches;
pub use loader_conf::{LoaderConf, Timeout};
pub use order::compare;
pub use os_release::OsRelease;
pub use plain::plain;
pub use type1::{Fields, parse};
pub use type2::{program as unified_program, unified};

use crate::file::FsError;
use crate::file_system::FileSystem;
use crate::pe::Part;

/// Something that can be started.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its identity: the name of its file, without a boot counter.
    pub id: String,
    /// For people.
    pub title: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it is sorted by first.
    pub sort_key: Option<String>,
    /// Of which installation it is.
    pub machine_id: Option<String>,
    /// How often it was tried, and may be.
    pub counter: Option<Counter>,
    /// Which partition it is on: `vda1`.
    pub place: String,
    /// What it starts.
    pub source: Source,
}

/// What an entry starts, by paths on its file system.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// A Linux kernel.
    Linux {
        /// Where everything is.
        file_system: Rc<FileSystem>,
        /// The kernel.
        linux: String,
        /// Initial RAM disks, one behind the other.
        initrds: Vec<String>,
        /// The kernel's command line.
        options: String,
    },
    /// A unified kernel image.
    Unified {
        /// Where it is.
        file_system: Rc<FileSystem>,
        /// Its path.
        path: String,
        /// Appended to its command line.
        options: String,
    },
}

/// A program, found: what is left to do is to load it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Program {
    /// A Linux kernel.
    Linux(LinuxProgram),
    /// An EFI application. It takes boot services, which this firmware does not have yet.
    EfiApplication(Part),
}

/// A Linux kernel, and what it is given.
#[derive(Debug, Clone)]
pub struct LinuxProgram {
    /// The kernel, a bzImage.
    pub kernel: Part,
    /// Initial RAM disks, one behind the other.
    pub initrds: Vec<Part>,
    /// The command line.
    pub cmdline: String,
}

impl Entry {
    /// Whether it has been tried as often as it may be.
    pub fn is_bad(&self) -> bool {
        self.counter.is_some_and(|counter| counter.left == 0)
    }

    /// What a person sees: the title, or what there is instead.
    pub fn name(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.id)
    }

    /// Finds what it starts.
    ///
    /// # Errors
    ///
    /// If a file is missing, or contradicts its file system.
    pub fn program(&self) -> Result<Program, FsError> {
        match &self.source {
            Source::Linux {
                file_system,
                linux,
                initrds,
                options,
            } => {
                let initrds = initrds
                    .iter()
                    .map(|path| file_system.find(path).map(Part::whole));
                Ok(Program::Linux(LinuxProgram {
                    kernel: Part::whole(file_system.find(linux)?),
                    initrds: initrds.collect::<Result<_, _>>()?,
                    cmdline: options.clone(),
                }))
            }
            Source::Unified {
                file_system,
                path,
                options,
            } => type2::program(&file_system.find(path)?, options),
        }
    }
}
