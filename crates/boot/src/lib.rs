//! From an image to a guest ready to start.

mod acpi;
mod areas;
mod bad_image;
mod boot_info;
mod boot_params;
mod descriptors;
mod direct;
mod elf;
mod error;
mod image;
mod inspect;
mod linux;
mod load;
mod mapping;
mod memory_map;
mod note;
mod paging;
mod pc;
mod pvh;
mod setup_header;

pub use acpi::{Hardware, MmioDevice};
pub use areas::{Area, AreaKind};
pub use bad_image::BadImage;
pub use direct::DEFAULT_STACK_SIZE;
pub use elf::{MAX_PROGRAM_HEADERS, Segment};
pub use error::BootError;
pub use image::Image;
pub use inspect::{Format, Inspection, Offer, inspect};
pub use load::{BootConfig, Copied, Loaded, MAX_CMDLINE, MAX_CPUS, Protocol, load, load_with};
pub use setup_header::SetupHeader;
