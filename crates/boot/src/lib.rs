//! From an image to a guest ready to start.

mod areas;
mod bad_image;
mod boot_info;
mod descriptors;
mod direct;
mod elf;
mod error;
mod image;
mod inspect;
mod load;
mod mapping;
mod memory_map;
mod note;
mod paging;

pub use areas::{Area, AreaKind};
pub use bad_image::BadImage;
pub use boot_info::MAX_DIRECT_CMDLINE;
pub use direct::DEFAULT_STACK_SIZE;
pub use elf::{MAX_PROGRAM_HEADERS, Segment};
pub use error::BootError;
pub use image::Image;
pub use inspect::Format;
pub use load::{BootConfig, Copied, Loaded, MAX_CPUS, Protocol, load};
