//! From an image to a guest ready to start.
//!
//! An [`Image`] is a kernel or a unikernel: a file, or bytes in the program. [`load`](load()) finds out what it is,
//! puts it into guest memory, mapped from the file rather than read, and gives the registers from which the first
//! processor starts. [`inspect`](inspect()) says what would happen, by the headers alone. Nothing here calls a
//! hypervisor: what comes out is plain data.
//!
//! | [`Protocol`] | image | the guest starts in | it is told by |
//! |---|---|---|---|
//! | [`Direct`](Protocol::Direct) | ELF64 with a Goldcrest note | 64-bit mode, ring 3 or 0, on the host's tables | `BootInfo` in `rdi` |
//! | [`Solo5Hvt`](Protocol::Solo5Hvt) | ELF64 with Solo5's notes | 64-bit mode, ring 0, on the host's tables | `hvt_boot_info` in `rdi` |
//! | [`Hermit`](Protocol::Hermit) | ELF64 with Hermit's note | 64-bit mode, ring 0, on the host's tables | `RawBootInfo` in `rdi` |
//! | [`Pvh`](Protocol::Pvh) | ELF with Xen's note 18 | 32-bit protected mode | `hvm_start_info` in `ebx` |
//! | [`Multiboot2`](Protocol::Multiboot2) | ELF, or flat with addresses in its header | 32-bit protected mode | boot information in `ebx` |
//! | [`Multiboot`](Protocol::Multiboot) | the same | 32-bit protected mode | Multiboot information in `ebx` |
//! | [`LinuxElf`](Protocol::LinuxElf) | ELF64 vmlinux | 64-bit mode, ring 0 | `boot_params` in `rsi` |
//! | [`LinuxBzImage`](Protocol::LinuxBzImage) | bzImage | 64-bit mode, ring 0 | `boot_params` in `rsi` |
//! | [`Elf32`](Protocol::Elf32) | other ELF32 | 32-bit protected mode | a device tree in `ebx` |
//! | [`Flat`](Protocol::Flat) | any, if asked for | the mode asked for | a device tree in `ebx` |
//!
//! An image that offers several is started by the first of this list, unless [`BootConfig::protocol`] says otherwise.
//! All but direct entry, Solo5's and Hermit's come with ACPI tables, which announce [`Hardware`]; virtio devices can be
//! announced on the command line instead ([`Announce`]). Solo5's and Hermit's guests have none, but make [`Hypercalls`],
//! which who runs them has to serve (crates `goldcrest-solo5` and `goldcrest-hermit`). Direct entry announces virtio devices, where there are any, by a device tree.
//!
//! The formats are those of the System V ABI (ELF), of `goldcrest-abi` (direct entry), of Solo5's `hvt_abi.h`, of the
//! crates `hermit-entry` and `uhyve-interface`, of Xen's `docs/misc/pvh.pandoc`,
//! of the Multiboot Specification 0.6.96 and the Multiboot2 Specification 2.0, of Linux's `Documentation/arch/x86/boot.rst`, of ACPI 6.5 and of the Devicetree Specification 0.4.
//!
//! ```
//! use goldcrest_boot::{BootConfig, Image, Protocol, load};
//! use goldcrest_memory::{GuestRam, MemoryConfig};
//!
//! # // An ELF of one page: `jmp .` at 1 MiB.
//! # let mut kernel = vec![0u8; 4098];
//! # kernel[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
//! # kernel[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
//! # kernel[32] = 64;
//! # kernel[54..58].copy_from_slice(&[56, 0, 1, 0]);
//! # for (at, value) in [(0u8, 1u64 | 5 << 32), (8, 4096), (16, 0x10_0000), (24, 0x10_0000), (32, 2), (40, 2)] {
//! #     let at = 64 + usize::from(at);
//! #     kernel[at..at + 8].copy_from_slice(&value.to_le_bytes());
//! # }
//! # kernel[4096..].copy_from_slice(&[0xeb, 0xfe]);
//! # let file = tempfile::NamedTempFile::new()?;
//! # std::fs::write(file.path(), kernel)?;
//! # let path = file.path();
//! let image = Image::open(path)?;
//! let ram = GuestRam::new(&MemoryConfig::default())?;
//! let config = BootConfig {
//!     cmdline: "console=ttyS0",
//!     ..BootConfig::default()
//! };
//! let guest = load(&image, &ram, &config)?;
//! assert_eq!(guest.protocol, Protocol::LinuxElf);
//! assert_eq!(guest.registers.rip, 0x10_0000);
//! assert_eq!(Some(guest.registers.rsi), guest.boot_info);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What lies where
//!
//! What the image does not claim is placed first-fit from the bottom of memory: the stack of direct entry with its guard
//! page, then one contiguous block with all that the host writes, so that few pages are touched. The RAM disk, and PVH's
//! modules, lie as high as the protocol allows; modules of other protocols low, above 1 MiB. For all but direct entry the
//! memory of a PC's firmware (0x9fc00–0xfffff) stays free, with the ACPI tables at 0xe0000. [`Loaded::areas`] has the
//! result. Memory is taken to be fresh: zeroes are not written.
//!
//! # A hostile image
//!
//! Everything an image says is checked against the image's length, the guest's memory and fixed limits before it is
//! believed: at most [`MAX_PROGRAM_HEADERS`] program headers and 64 KiB of notes a segment are read of an ELF, and what says
//! whether it is a program or a library; 656 bytes and one string of a bzImage; of a Multiboot kernel the first 32 KiB, and
//! at most 1024 section headers. An image can claim all of its guest's memory, start anywhere in itself and be nonsense; it
//! cannot make the host panic, hang, allocate in proportion to a number that it names, or touch memory outside of the
//! guest's. What is refused is refused by a [`BootError`] that carries the value and the limit.

mod acpi;
mod areas;
mod bad_image;
mod bare;
mod boot_info;
mod boot_params;
mod candidate;
mod descriptors;
mod device_tree;
mod direct;
mod elf;
mod elf32;
mod error;
mod flat;
mod hardware;
mod hermit;
mod identify;
mod image;
mod inspect;
mod linux;
mod load;
mod mapping;
mod memory_map;
mod module;
mod multiboot;
mod note;
mod paging;
mod pc;
mod processor;
mod protocol;
mod pvh;
mod setup_header;
mod solo5;

pub use areas::{Area, AreaKind};
pub use bad_image::BadImage;
pub use bare::Mode;
pub use direct::DEFAULT_STACK_SIZE;
pub use elf::{MAX_PROGRAM_HEADERS, Segment};
pub use error::BootError;
pub use flat::Flat;
pub use hardware::{Announce, Hardware, MmioDevice};
pub use identify::Format;
pub use image::Image;
pub use inspect::{Inspection, NotOffered, Offer, inspect, inspect_as, protocol_of};
pub use load::{BootConfig, Copied, Hypercalls, Loaded, MAX_CMDLINE, MAX_CPUS, load, load_with};
pub use module::Module;
pub use multiboot::BadMultiboot;
pub use protocol::Protocol;
pub use setup_header::SetupHeader;
pub use solo5::{Solo5Device, Solo5Kind, Solo5Properties};
