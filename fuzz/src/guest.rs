//! Guests made of fuzzed images: the memory they are loaded into, and what must hold of each that is ready to start.

use std::ops::Range;

use arbitrary::{Result, Unstructured};
use goldcrest_boot::{
    Area, AreaKind, BootConfig, Hardware, Hypercalls, Image, Inspection, Loaded, Module, Protocol,
    inspect_as, load_with,
};
use goldcrest_memory::{GuestRam, HugePages, MemoryConfig, PAGE_SIZE};
use goldcrest_x86::cr0;

const MIB: u64 = 1 << 20;
/// Memory for most runs, shared: nothing that is loaded reads it.
const SMALL: u64 = 24 * MIB;
/// Memory on both sides of the hole below 4 GiB, made anew for each run, as no run touches much of it.
const LARGE: u64 = 4096 * MIB;

thread_local! {
    static RAM: GuestRam = ram(SMALL);
}

fn ram(size: u64) -> GuestRam {
    let config = MemoryConfig {
        size,
        huge_pages: HugePages::None,
        ..MemoryConfig::default()
    };
    GuestRam::new(&config).expect("address space can be had")
}

/// Loads the image at the start of `data`, in the way that its last bytes choose.
pub(crate) fn load_with_trailer(data: &[u8]) {
    let trailer_len = data.len().min(2);
    let (bytes, trailer) = data.split_at(data.len() - trailer_len);
    let _ = load_any(bytes, &mut Unstructured::new(trailer));
}

/// Loads the image at the start of `data` by a protocol, in the way that its last two bytes choose.
pub(crate) fn load_as_with_trailer(data: &[u8], asked: Protocol) {
    let trailer_len = data.len().min(2);
    let (bytes, trailer) = data.split_at(data.len() - trailer_len);
    let _ = load_as(bytes, &mut Unstructured::new(trailer), asked);
}

/// Puts a header at an offset of an image: its first fields, and the checksum by which those and `fields - 1` in all sum
/// to zero. An image that is too short stays as it is.
pub(crate) fn set_header<const N: usize>(
    image: &mut [u8],
    at: usize,
    first: [u32; N],
    fields: usize,
) {
    let Some(header) = image.get_mut(at..at + fields * 4) else {
        return;
    };
    let (words, _) = header.as_chunks_mut::<4>();
    for (word, value) in words.iter_mut().zip(first) {
        *word = value.to_le_bytes();
    }
    if let Some((checksum, words)) = words.split_last_mut() {
        let sum = words.iter().map(|word| u32::from_le_bytes(*word));
        let sum = sum.fold(0u32, u32::wrapping_add);
        *checksum = sum.wrapping_neg().to_le_bytes();
    }
}

/// Inspects and loads an image, in a way that `input` chooses by two bytes.
pub(crate) fn load_any(bytes: &[u8], input: &mut Unstructured<'_>) -> Result<()> {
    let [way, more]: [u8; 2] = [input.arbitrary()?, input.arbitrary()?];
    let asked = match way & 7 {
        0 => Some(Protocol::Direct),
        1 => Some(Protocol::Pvh),
        2 => Some(Protocol::LinuxElf),
        3 => Some(Protocol::LinuxBzImage),
        _ => None,
    };
    load_in_way(bytes, [way, more], asked, &[]);
    Ok(())
}

/// The same by a protocol that has modules: by none, or by itself, as the first byte chooses.
pub(crate) fn load_as(bytes: &[u8], input: &mut Unstructured<'_>, asked: Protocol) -> Result<()> {
    let [way, more]: [u8; 2] = [input.arbitrary()?, input.arbitrary()?];
    let module = |len: u8, arguments: &str| Module {
        image: Image::from_bytes("module", vec![0x5a; usize::from(len) + 1]).expect("not empty"),
        arguments: arguments.into(),
    };
    let modules = [module(more, "first"), module(0, "")];
    let modules = modules
        .get(..usize::from(more >> 6).min(2))
        .unwrap_or_default();
    let asked = (way & 4 == 0).then_some(asked);
    load_in_way(
        bytes,
        [way, more],
        asked,
        if asked.is_some() { modules } else { &[] },
    );
    Ok(())
}

fn load_in_way(bytes: &[u8], [way, more]: [u8; 2], asked: Option<Protocol>, modules: &[Module]) {
    let Ok(image) = Image::from_bytes("fuzzed", bytes.to_vec()) else {
        assert!(bytes.is_empty());
        return;
    };
    let initrd = Image::from_bytes("initrd", vec![0xa5; usize::from(more) + 1]).expect("not empty");
    let config = BootConfig {
        protocol: asked,
        modules,
        cmdline: if way & 0x80 == 0 { "" } else { "console=ttyS0" },
        initrd: (way & 0x40 != 0).then_some(&initrd),
        gigabyte_pages: way & 0x20 != 0,
        pvclock: way & 0x10 != 0,
        cpus: u32::from(more & 0xf) + 1,
        ..BootConfig::default()
    };
    if way & 0xf == 0xf {
        check(&image, &ram(LARGE), &config);
    } else {
        RAM.with(|ram| check(&image, ram, &config));
    }
}

/// Inspects and loads an image as the only guest of a machine with this hardware and one CPU, in a way that the last byte
/// of `data` chooses.
pub(crate) fn load_alone(data: &[u8], hardware: impl Fn(u8) -> Hardware<'static>) {
    let Some((way, bytes)) = data.split_last() else {
        return;
    };
    let Ok(image) = Image::from_bytes("fuzzed", bytes.to_vec()) else {
        return;
    };
    let config = BootConfig {
        cmdline: if way & 0x80 == 0 { "" } else { "-v -- one two" },
        tsc_khz: u64::from(*way) * 1000,
        gigabyte_pages: way & 0x20 != 0,
        ..BootConfig::default()
    };
    RAM.with(|ram| check_with(&image, ram, &config, &hardware(*way)));
}

fn check(image: &Image, ram: &GuestRam, config: &BootConfig<'_>) {
    check_with(image, ram, config, &Hardware::default());
}

fn check_with(image: &Image, ram: &GuestRam, config: &BootConfig<'_>, hardware: &Hardware<'_>) {
    let inspection = inspect_as(image, config.protocol).expect("bytes in memory can be read");
    assert!(inspection.to_string().lines().count() < 200);
    assert_eq!(inspection.offers.is_empty(), inspection.problem.is_some());
    check_segments(&inspection);
    match load_with(image, ram, config, hardware) {
        Ok(loaded) => {
            let offered = |offer: &goldcrest_boot::Offer| offer.protocol == loaded.protocol;
            assert!(inspection.offers.iter().any(offered));
            check_loaded(ram, config, &loaded);
        }
        Err(error) => assert!(error.to_string().len() < 4096),
    }
}

/// Segments have their bytes in the image, and lie apart.
fn check_segments(inspection: &Inspection) {
    let segments = &inspection.segments;
    for segment in segments {
        assert!(segment.file_size <= segment.memory_size);
        assert!(segment.offset + segment.file_size <= inspection.size);
    }
    assert!(segments.is_sorted_by(|below, above| below.range().end <= above.physical_address));
}

/// What must hold of a guest that is ready to start.
pub(crate) fn check_loaded(ram: &GuestRam, config: &BootConfig<'_>, loaded: &Loaded) {
    assert!(config.protocol.is_none_or(|asked| asked == loaded.protocol));
    check_areas(ram, &loaded.areas);
    let info = loaded.boot_info.expect("all protocols have one");
    assert!(kind_at(&loaded.areas, info) == Some(AreaKind::BootInfo));
    if loaded.system.cr0 & cr0::PG != 0 {
        let entry = translate(ram, loaded.system.cr3, loaded.registers.rip);
        let entry = entry.expect("the entry point is mapped");
        assert!(entry.execute);
    }
    let entry = loaded.system.cs.base + loaded.registers.rip;
    assert_eq!(kind_at(&loaded.areas, entry), Some(AreaKind::Image));
    for area in &loaded.areas {
        // What 32-bit guests are told of, they must reach.
        let is_low = area.range.end <= 1 << 32;
        assert!(is_low || area.kind != AreaKind::Module, "{area:?}");
    }
    if loaded.protocol == Protocol::Direct {
        check_direct(ram, loaded);
    }
    if let Hypercalls::Solo5 { handles, read_only } = &loaded.hypercalls {
        assert!((1..=64).contains(&handles.len()));
        check_solo5(ram, loaded, read_only);
    }
}

fn check_areas(ram: &GuestRam, areas: &[Area]) {
    for area in areas {
        let inside = |region: goldcrest_memory::Region| {
            region.start <= area.range.start && area.range.end <= region.start + region.len
        };
        assert!(ram.regions().any(inside), "{area:?}");
        assert!(!area.range.is_empty());
    }
    assert!(areas.is_sorted_by(|below, above| below.range.end <= above.range.start));
}

/// Direct entry: no page is both written and executed, ring 3 cannot reach the processor's tables, and guard pages are
/// not mapped.
fn check_direct(ram: &GuestRam, loaded: &Loaded) {
    let ring_3 = loaded.system.cs.selector & 3 == 3;
    for area in &loaded.areas {
        // A guest may have gigabytes: both ends of each area say enough.
        for address in ends(&area.range) {
            let page = translate(ram, loaded.system.cr3, address);
            if let Some(page) = page {
                assert!(!(page.write && page.execute), "{address:#x} in {area:?}");
            }
            match area.kind {
                AreaKind::Guard => assert!(page.is_none(), "{address:#x} in {area:?}"),
                AreaKind::Tables => assert!(page.is_none_or(|page| !page.user)),
                _ => assert!(page.is_some_and(|page| page.user == ring_3)),
            }
        }
    }
    let stack = translate(ram, loaded.system.cr3, loaded.registers.rsp);
    assert!(stack.is_some_and(|page| page.write && !page.execute));
}

/// Solo5: no page is both written and executed, what hypercalls may not write the guest cannot write, and it cannot reach
/// the processor's tables.
fn check_solo5(ram: &GuestRam, loaded: &Loaded, read_only: &[Range<u64>]) {
    let page = |address| translate(ram, loaded.system.cr3, address);
    for area in &loaded.areas {
        for address in ends(&area.range) {
            let page = page(address);
            assert!(page.is_none_or(|page| !(page.user || page.write && page.execute)));
            let hidden = matches!(area.kind, AreaKind::Tables | AreaKind::Guard);
            assert!(!hidden || page.is_none_or(|page| !page.write), "{area:?}");
        }
    }
    assert!(read_only.is_sorted_by_key(|range| range.start));
    for range in read_only {
        for address in ends(range) {
            assert!(page(address).is_none_or(|page| !page.write), "{range:?}");
        }
    }
    let stack = page(loaded.registers.rsp);
    assert!(stack.is_some_and(|page| !page.execute));
}

fn ends(range: &Range<u64>) -> [u64; 2] {
    [range.start, range.end - 1]
}

fn kind_at(areas: &[Area], address: u64) -> Option<AreaKind> {
    let area = areas.iter().find(|area| area.range.contains(&address))?;
    Some(area.kind)
}

/// What the processor may do with a page.
#[derive(Debug, Clone, Copy)]
struct Page {
    write: bool,
    execute: bool,
    user: bool,
}

/// Walks 4-level page tables as a processor does (SDM vol. 3A §4.5). Fails if they lead out of RAM or
/// to another address.
fn translate(ram: &GuestRam, cr3: u64, address: u64) -> Option<Page> {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let mut page = Page {
        write: true,
        execute: true,
        user: true,
    };
    let mut table = cr3 & ADDRESS;
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        let at = table + (address >> shift & 0x1ff) * 8;
        ram.view().read(at, &mut entry).expect("tables lie in RAM");
        let entry = u64::from_le_bytes(entry);
        if entry & 1 == 0 {
            return None;
        }
        page.write &= entry & 1 << 1 != 0;
        page.user &= entry & 1 << 2 != 0;
        page.execute &= entry >> 63 == 0;
        if level == 0 || entry & 1 << 7 != 0 {
            let inside = (PAGE_SIZE << (9 * level)) - 1;
            assert_eq!(
                entry & ADDRESS & !inside,
                address & !inside,
                "not its own address"
            );
            return Some(page);
        }
        table = entry & ADDRESS;
    }
    None
}
