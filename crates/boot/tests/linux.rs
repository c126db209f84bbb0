//! Linux's 64-bit boot protocol as the kernel finds it, and every way in which a bzImage can lie.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod images;

use std::io::Write;

use goldcrest_abi::power;
use goldcrest_boot::{
    Announce, AreaKind, BootConfig, Hardware, Image, Loaded, MmioDevice, Protocol, load, load_with,
};
use goldcrest_memory::GuestRam;
use images::*;

fn load_into(bytes: Vec<u8>, size: u64, config: &BootConfig<'_>) -> (GuestRam, Loaded) {
    let ram = ram(size);
    let image = Image::from_bytes("kernel", bytes).unwrap();
    let loaded = load(&image, &ram, config).unwrap();
    (ram, loaded)
}

fn header_u16(at: usize, value: u16) -> Vec<u8> {
    patch(bzimage(), at, &value.to_le_bytes())
}

fn header_u32(at: usize, value: u32) -> Vec<u8> {
    patch(bzimage(), at, &value.to_le_bytes())
}

fn refused(image: Vec<u8>, message: &str) {
    assert_eq!(refusal(image), format!("kernel: {message}"));
}

#[test]
fn a_bzimage_lies_where_it_prefers_and_gets_its_header_back() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        cmdline: "console=ttyS0",
        initrd: Some(&initrd),
        ..BootConfig::default()
    };
    let (ram, loaded) = load_into(bzimage(), 64 * MIB, &config);
    assert_eq!(loaded.protocol, Protocol::LinuxBzImage);
    assert_eq!(loaded.registers.rip, 0x100_0200);
    assert_eq!(read(&ram, 0x100_0000, 0x2000), bzimage()[KERNEL_OFFSET..]);
    let params = loaded.registers.rsi;
    assert_eq!(loaded.boot_info, Some(params));
    let page = read(&ram, params, 4096);
    assert!(page[..0x70].iter().all(|byte| *byte == 0));
    assert_eq!(page[0x202..0x206], *b"HdrS");
    assert_eq!(page[0x268..0x26c], [0x78, 0x56, 0x34, 0x12]);
    assert_eq!(page[0x210], 0xff);
    let u32_at = |at| u64::from(read_u32(&ram, params + at));
    assert_eq!(u32_at(0x214), 0x100_0000);
    let cmdline = u32_at(0x228);
    assert_eq!(read(&ram, cmdline, 14), b"console=ttyS0\0");
    let (initrd, len) = (u32_at(0x218), u32_at(0x21c));
    assert_eq!((initrd, len), (64 * MIB - 0x2000, 5000));
    assert_eq!(read(&ram, initrd, 5000), [7; 5000]);
    let rsdp = read_u64(&ram, params + 0x70);
    assert_eq!(read(&ram, rsdp, 8), b"RSD PTR ");
    let map = memory_map(&ram, params + 0x2d0, page[0x1e8].into(), 20);
    assert_eq!(map, pc_memory_map(64 * MIB));
}

#[test]
fn the_processor_is_in_64_bit_mode_on_an_identity_map() {
    let (ram, loaded) = load_into(bzimage(), 64 * MIB, &BootConfig::default());
    let system = &loaded.system;
    assert_eq!(
        (system.cr0, system.cr4, system.efer),
        (0x8000_0011, 0x20, 0x500)
    );
    assert_eq!((system.cs.selector, system.ds.selector), (0x10, 0x18));
    assert_eq!(
        read_u64(&ram, system.gdt.base + 0x10),
        0x00af_9b00_0000_ffff
    );
    assert_eq!(
        read_u64(&ram, system.gdt.base + 0x18),
        0x00cf_9300_0000_ffff
    );
    assert_eq!(loaded.registers.rflags, 2);
    let table = |entry: u64| entry & 0xf_ffff_f000;
    let upper = table(read_u64(&ram, system.cr3));
    let directory = table(read_u64(&ram, upper));
    for page in 0..512 {
        let entry = read_u64(&ram, directory + page * 8);
        assert_eq!(entry, page << 21 | 0xe3);
    }
}

#[test]
fn gigabyte_pages_save_the_page_directory() {
    let config = BootConfig {
        gigabyte_pages: true,
        ..BootConfig::default()
    };
    let (ram, loaded) = load_into(bzimage(), 64 * MIB, &config);
    let upper = read_u64(&ram, loaded.system.cr3) & 0xf_ffff_f000;
    assert_eq!(read_u64(&ram, upper), 0xe3);
}

#[test]
fn the_kernel_is_mapped_from_a_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // Three sectors of setup code and the boot sector are a page: the kernel begins at the second one.
    let mut bytes = bzimage();
    bytes[0x1f1] = 7;
    bytes.splice(KERNEL_OFFSET..KERNEL_OFFSET, [0; 3 * 512]);
    file.write_all(&bytes).unwrap();
    let image = Image::open(file.path()).unwrap();
    let ram = ram(64 * MIB);
    let loaded = load(&image, &ram, &BootConfig::default()).unwrap();
    assert_eq!(loaded.copied.mapped, 0x2000);
    assert_eq!(read(&ram, 0x100_0000, 0x2000), bytes[4096..]);
}

#[test]
fn a_relocatable_kernel_moves_down_if_memory_is_short() {
    let (ram, loaded) = load_into(bzimage(), 8 * MIB, &BootConfig::default());
    assert_eq!(loaded.registers.rip, 0x20_0200);
    assert_eq!(read(&ram, 0x20_0000, 16), bzimage()[KERNEL_OFFSET..][..16]);
    let image = Image::from_bytes("kernel", patch(bzimage(), 0x234, &[0])).unwrap();
    let ram = images::ram(8 * MIB);
    let error = load(&image, &ram, &BootConfig::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel: the kernel (init_size) takes 0x1000000-0x10fffff, where the guest has no RAM (0x0-0x7fffff): \
         give the guest more memory or link the image lower"
    );
}

#[test]
fn a_vmlinux_gets_a_header_made_for_it() {
    let config = BootConfig {
        cmdline: "quiet",
        ..BootConfig::default()
    };
    let (ram, loaded) = load_into(vmlinux(), 64 * MIB, &config);
    assert_eq!(loaded.protocol, Protocol::LinuxElf);
    assert_eq!(loaded.registers.rip, 0x100_0040);
    let params = loaded.registers.rsi;
    assert_eq!(read(&ram, params + 0x1fe, 2), [0x55, 0xaa]);
    assert_eq!(read(&ram, params + 0x202, 6), *b"HdrS\x0f\x02");
    let cmdline = read_u32(&ram, params + 0x228);
    assert_eq!(read(&ram, cmdline.into(), 6), b"quiet\0");
    assert_eq!(read_u64(&ram, params + 0x218), 0);
}

#[test]
fn memory_above_4_gib_is_told_and_the_ram_disk_stays_below() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        initrd: Some(&initrd),
        ..BootConfig::default()
    };
    let (ram, loaded) = load_into(vmlinux(), 5 << 30, &config);
    let params = loaded.registers.rsi;
    assert_eq!(read_u32(&ram, params + 0x218), 0xbfff_e000);
    let count = read(&ram, params + 0x1e8, 1)[0];
    let map = memory_map(&ram, params + 0x2d0, count.into(), 20);
    assert_eq!(map[2], (0x10_0000, 0xbff0_0000, 1));
    assert_eq!(map[3], (1 << 32, 2 << 30, 1));
    assert_eq!(map.len(), 4);
}

#[test]
fn the_ram_disk_respects_the_kernels_limit() {
    let initrd = Image::from_bytes("initrd", vec![7; 5000]).unwrap();
    let config = BootConfig {
        initrd: Some(&initrd),
        ..BootConfig::default()
    };
    let limited = header_u32(0x22c, 0x1ff_ffff);
    let (_, loaded) = load_into(limited, 64 * MIB, &config);
    let disk = loaded.areas.iter().find(|a| a.kind == AreaKind::Initrd);
    assert_eq!(disk.unwrap().range, 0x1ff_e000..0x200_0000);

    let large = Image::from_bytes("initrd", vec![7; 48 << 20]).unwrap();
    let config = BootConfig {
        initrd: Some(&large),
        ..BootConfig::default()
    };
    let error = load_bytes(bzimage(), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the initial RAM disk of 50331648 bytes does not fit below 0x80000000: give the guest more memory \
         (0x0-0x3ffffff now)"
    );

    let error = load_bytes(header_u32(0x22c, 0x1ff_ffff), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the initial RAM disk of 50331648 bytes does not fit below 0x2000000: make it smaller or leave it more room, \
         as more memory would lie above (0x0-0x3ffffff now)"
    );
}

#[test]
fn the_code_at_the_reset_vector_writes_the_reset_register() {
    let [low, high] = power::RESET.to_le_bytes();
    let mov_dx = [0xba, low, high];
    let mov_al = [0xb0, power::RESET_VALUE];
    let (out_dx_al, cli, hlt) = ([0xee], [0xfa], [0xf4]);
    let code = [&mov_dx[..], &mov_al, &out_dx_al, &cli, &hlt].concat();
    for image in [
        bzimage(),
        vmlinux(),
        pvh_kernel(&0x100_0000u32.to_le_bytes()),
    ] {
        let (ram, _) = load_into(image, 64 * MIB, &BootConfig::default());
        assert_eq!(read(&ram, 0xf_fff0, code.len()), code);
    }
}

#[test]
fn command_lines_are_as_long_as_the_kernel_says() {
    let longest = "x".repeat(2047);
    let too_long = "x".repeat(2048);
    for image in [bzimage(), vmlinux()] {
        let config = BootConfig {
            cmdline: &longest,
            ..BootConfig::default()
        };
        assert!(load_bytes(image.clone(), &config).is_ok());
        let config = BootConfig {
            cmdline: &too_long,
            ..BootConfig::default()
        };
        assert_eq!(
            load_bytes(image, &config).unwrap_err().to_string(),
            "the command line has 2048 bytes; kernel takes at most 2047"
        );
    }
}

#[test]
fn setup_headers_that_are_too_old_or_of_another_kind() {
    refused(
        header_u16(0x1fe, 0x1234),
        "boot flag 0x1234 at 0x1fe: expected 0xaa55",
    );
    refused(
        header_u16(0x206, 0x0207),
        "boot protocol 2.07: at least 2.12 is needed, with a 64-bit entry (Linux 3.8)",
    );
    refused(
        patch(bzimage(), 0x211, &[0]),
        "a zImage, which is loaded below 1 MiB: expected a bzImage (LOADED_HIGH)",
    );
    refused(
        header_u16(0x236, 2),
        "no 64-bit entry point (xloadflags 0x2 without XLF_KERNEL_64): is it a 32-bit kernel?",
    );
    refused(
        patch(bzimage(), 0x201, &[0x20]),
        "the setup header ends at 0x222: expected 0x264 to 0x290",
    );
    refused(
        patch(bzimage(), 0x201, &[0xff]),
        "the setup header ends at 0x301: expected 0x264 to 0x290",
    );
}

#[test]
fn setup_headers_that_lie_about_sizes() {
    let len = bzimage().len();
    refused(
        patch(bzimage(), 0x1f1, &[64]),
        &format!(
            "the real-mode part with the kernel's entry ends at byte 33793, but the image has {len}: it is truncated \
             or damaged"
        ),
    );
    refused(
        header_u32(0x1f4, u32::MAX),
        &format!(
            "the kernel ends at byte 68719479280, but the image has {len}: it is truncated or damaged"
        ),
    );
    refused(
        header_u32(0x1f4, 32),
        "a kernel of 512 bytes (syssize): expected more than 512",
    );
    refused(
        header_u32(0x260, u32::MAX),
        "the kernel (init_size) takes 0x200000-0x1001ffffe, where the guest has no RAM (0x0-0x3ffffff): \
         give the guest more memory or link the image lower",
    );
    let cut = bzimage()[..0x240].to_vec();
    assert!(refusal(cut).contains("it is truncated or damaged"));
}

#[test]
fn setup_headers_that_lie_about_places() {
    for alignment in [0, 3] {
        refused(
            header_u32(0x230, alignment),
            &format!("kernel alignment {alignment:#x}: expected a power of two"),
        );
    }
    let image = patch(bzimage(), 0x258, &0x100_1000u64.to_le_bytes());
    refused(
        image,
        "preferred address 0x1001000 is not a multiple of the kernel's alignment 0x200000",
    );
    let high = patch(bzimage(), 0x258, &0xffff_ffff_ffe0_0000u64.to_le_bytes());
    let pinned = patch(high, 0x234, &[0]);
    assert!(refusal(pinned).contains("where the guest has no RAM"));
    let low = patch(bzimage(), 0x258, &0u64.to_le_bytes());
    assert!(refusal(low).contains("which overlaps page 0 or a guard page"));
}

#[test]
fn a_kernel_whose_last_16_bytes_are_partial_is_taken_whole() {
    let mut image = bzimage();
    image.truncate(image.len() - 5);
    let (ram, _) = load_into(image.clone(), 64 * MIB, &BootConfig::default());
    let len = image.len() - KERNEL_OFFSET;
    assert_eq!(read(&ram, 0x100_0000, len), image[KERNEL_OFFSET..]);
    image.truncate(image.len() - 11);
    assert!(refusal(image).contains("the kernel ends at byte"));
}

#[test]
fn devices_are_bounded() {
    let device = MmioDevice {
        base: 0xd000_0000,
        len: 0x1000,
        interrupt: 5,
        edge: false,
    };
    let image = Image::from_bytes("kernel", bzimage()).unwrap();
    let load = |count, cpus| {
        let devices = vec![device; count];
        let hardware = Hardware {
            mmio: &devices,
            ..Hardware::default()
        };
        let config = BootConfig {
            cpus,
            ..BootConfig::default()
        };
        load_with(&image, &ram(64 * MIB), &config, &hardware).map(|_| ())
    };
    assert!(load(1024, 1).is_ok());
    assert!(load(0, 4096).is_ok());
    assert_eq!(
        load(1025, 1).unwrap_err().to_string(),
        "1025 virtio-mmio devices: at most 1024 can be announced"
    );
    assert!(load(1024, 4096).is_ok(), "the limits are such that all fit");
}

#[test]
fn devices_are_announced_on_the_command_line_within_its_limit() {
    let device = MmioDevice {
        base: 0xd000_0000,
        len: 0x1000,
        interrupt: 5,
        edge: true,
    };
    let hardware = Hardware {
        mmio: &[device; 2],
        announce: Announce::CommandLine,
        ..Hardware::default()
    };
    let words = " virtio_mmio.device=4K@0xd0000000:5".repeat(2);
    for (bytes, at) in [(bzimage(), 0x228), (vmlinux(), 0x228)] {
        let (image, ram) = (Image::from_bytes("kernel", bytes).unwrap(), ram(64 * MIB));
        let config = BootConfig {
            cmdline: "quiet -- -s",
            ..BootConfig::default()
        };
        let loaded = load_with(&image, &ram, &config, &hardware).unwrap();
        let cmdline = read_u32(&ram, loaded.registers.rsi + at);
        let expected = format!("quiet{words} -- -s\0");
        let found = read(&ram, cmdline.into(), expected.len());
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }
    let image = Image::from_bytes("kernel", vmlinux()).unwrap();
    let with_length = |len: usize| {
        let cmdline = "x".repeat(len);
        let config = BootConfig {
            cmdline: &cmdline,
            ..BootConfig::default()
        };
        load_with(&image, &ram(64 * MIB), &config, &hardware).map(|_| ())
    };
    with_length(2047 - words.len()).unwrap();
    assert_eq!(
        with_length(2048 - words.len()).unwrap_err().to_string(),
        "the command line has 2048 bytes; kernel takes at most 2047"
    );
}
