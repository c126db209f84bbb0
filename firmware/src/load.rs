//! From a program on a disk to a kernel in memory, ready to start.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use goldcrest_firmware::entry::LinuxProgram;
use goldcrest_firmware::linux::{BootParams, ENTRY_64, Handover, Header, KernelError, MemoryRange};
use goldcrest_guest::area::Area;
use goldcrest_guest::{boot, heap};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Initial RAM disks lie one behind the other, each at a multiple of this (Linux,
/// `Documentation/driver-api/early-userspace/buffer-format.rst`).
const INITRD_ALIGN: u64 = 4;

/// A kernel in memory.
pub(crate) struct Loaded {
    pub(crate) kernel: Area,
    /// The entry point, from the beginning of the kernel.
    pub(crate) entry: u64,
    pub(crate) boot_params: Area,
    /// How long it took is to be said.
    pub(crate) time: bool,
}

/// Loads a Linux kernel; `words` are appended to its command line.
pub(crate) fn linux(program: &LinuxProgram, words: &str) -> Result<Loaded, String> {
    let parts = [program.cmdline.as_str(), words];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let fail = |error: KernelError| error.to_string();
    let header = Header::read(&program.kernel).map_err(fail)?;
    let cmdline = header.command_line(&parts.join(" ")).map_err(fail)?;

    let mut kernel = area("the kernel", header.memory_size, header.alignment)?;
    fill(&mut kernel, 0, header.kernel_size, |bytes| {
        program.kernel.read(header.kernel_offset, bytes)
    })?;
    let initrd = initrds(program, &header)?;
    let mut command_line = area("the command line", len(&cmdline), 16)?;
    fill(&mut command_line, 0, len(&cmdline), |bytes| {
        bytes.copy_from_slice(&cmdline);
        Ok::<_, String>(())
    })?;

    let map = boot::memory_map().iter().map(|region| MemoryRange {
        start: region.start,
        len: region.len,
        kind: region.kind,
    });
    let map: Vec<_> = map.collect();
    let handover = Handover {
        kernel: kernel.address(),
        cmdline: command_line.address(),
        initrd: initrd
            .as_ref()
            .map_or((0, 0), |(area, size)| (area.address(), *size)),
        rsdp: boot::info().map_or(0, |info| info.rsdp),
        memory_map: &map,
    };
    let params = BootParams::new(&header, &handover);
    let mut boot_params = area("boot_params", len(params.as_bytes()), 4096)?;
    fill(&mut boot_params, 0, len(params.as_bytes()), |bytes| {
        bytes.copy_from_slice(params.as_bytes());
        Ok::<_, String>(())
    })?;
    // They are the kernel's from now on.
    core::mem::forget((command_line, initrd));
    Ok(Loaded {
        kernel,
        entry: ENTRY_64,
        boot_params,
        time: false,
    })
}

/// The initial RAM disks in memory, one behind the other, and their bytes; `None` if there are none.
fn initrds(program: &LinuxProgram, header: &Header) -> Result<Option<(Area, u64)>, String> {
    let mut size = 0_u64;
    for part in &program.initrds {
        size = size
            .next_multiple_of(INITRD_ALIGN)
            .saturating_add(part.size());
        if size > heap::free_bytes() {
            let limit = heap::free_bytes();
            return Err(KernelError::Initrd { size, limit }.to_string());
        }
    }
    if size == 0 {
        return Ok(None);
    }
    let mut area = area("the initial RAM disk", size, PAGE as u64)?;
    let last = area.address().saturating_add(size - 1);
    if last > header.initrd_max {
        let limit = header.initrd_max.saturating_sub(area.address());
        return Err(KernelError::Initrd { size, limit }.to_string());
    }
    let mut at = 0_u64;
    for part in &program.initrds {
        let start = at.next_multiple_of(INITRD_ALIGN);
        fill(&mut area, at, start - at, |bytes| {
            bytes.fill(0);
            Ok::<_, String>(())
        })?;
        fill(&mut area, start, part.size(), |bytes| part.read(0, bytes))?;
        at = start.saturating_add(part.size());
    }
    Ok(Some((area, size)))
}

/// Memory for something that will be the kernel's.
fn area(what: &str, size: u64, alignment: u64) -> Result<Area, String> {
    let sizes = usize::try_from(size)
        .ok()
        .zip(usize::try_from(alignment).ok());
    let area = sizes.and_then(|(size, alignment)| Area::new(size, alignment));
    area.ok_or_else(|| {
        format!(
            "{what} needs {size} bytes in one piece of {} that are free; give the machine more memory",
            heap::free_bytes()
        )
    })
}

/// Has a part of an area filled.
fn fill<E: ToString>(
    area: &mut Area,
    offset: u64,
    size: u64,
    read: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), String> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let part = area.bytes().get_mut(offset..).unwrap_or_default();
    let part = part
        .get_mut(..size)
        .ok_or("a part is larger than the memory for it")?;
    read(part).map_err(|error| error.to_string())
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
