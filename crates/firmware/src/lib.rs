//! What Goldcrest's guest firmware reads and chooses.
//!
//! A firmware finds, on a machine's disks, what to start. This crate is all of it that is parsing and choosing, apart from
//! any machine: it needs something to read blocks from ([`BlockRead`]), and gives a [`Program`](entry::Program), whose parts
//! are read straight to where they are to be. The firmware itself is in `firmware/`, in Goldcrest's repository.
//!
//! | | |
//! |---|---|
//! | [`partition`] | GPT (UEFI 2.10 §5.3) and MBR (§5.2) |
//! | [`FileSystem`] | FAT12, FAT16, FAT32 with long names; ext2, ext3, ext4 with what is in their journal; read-only |
//! | [`entry`] | Boot Loader Specification (UAPI.1) types 1 and 2; kernels as Debian leaves them in its root |
//! | [`Survey`] | all of these on all disks, sorted; and why something is not among them |
//! | [`Menu`] | keys and time in, text out |
//! | [`linux`] | the setup header of a bzImage, and `boot_params` |
//!
//! ```
//! use goldcrest_firmware::{MemoryDisk, Survey};
//!
//! // A disk of zeros.
//! let disk = MemoryDisk::new(vec![0; 1 << 20]).into_disk("vda");
//! let survey = Survey::of(&[disk]);
//! assert_eq!(
//!     survey.choose(None),
//!     Err("nothing to boot: disk vda: it has neither partitions nor FAT or ext4".into())
//! );
//! ```
//!
//! # EFI
//!
//! An EFI application is found and named ([`Program::EfiApplication`](entry::Program::EfiApplication)), and not started:
//! that takes boot services. What would give them takes the place of the refusal in `firmware/src/main.rs`; nothing here
//! depends on how a program is started.
//!
//! # A hostile disk
//!
//! A disk may say anything, and change between two reads. Nothing that it says makes this crate panic, loop without end or
//! allocate in proportion to a number on it beyond fixed limits: 1024 entries of a GPT, 60 logical partitions, 64 KiB of a
//! text, a path of 512 bytes, a directory of 8 MiB, 2^18 pieces of a file, 2^16 blocks of a file's metadata, 40 symbolic links, 256 entries.
//! What is refused is refused with the value, on one line. There is no unsafe code.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod disk;
pub mod entry;
mod ext;
mod fat;
mod fields;
mod file;
mod file_system;
pub mod linux;
mod memory;
mod menu;
pub mod partition;
pub mod pe;
mod survey;
mod words;

pub use disk::{BlockRead, DeviceError, Disk, ReadError, SECTOR, Volume};
pub use ext::Ext;
pub use fat::Fat;
pub use file::{DirEntry, File, FsError, Printable};
pub use file_system::{FileSystem, foreign};
pub use memory::MemoryDisk;
pub use menu::Menu;
pub use survey::Survey;
pub use words::Words;
