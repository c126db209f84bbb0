//! Many machines that live at once, each on its thread in the middle of an output.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use goldcrest_monitor::{CloneConfig, Control, Output, StopReason, Template};
use goldcrest_vcpu::kvm::Kvm;

use crate::Failure;
use crate::first_byte::FirstByte;

/// After how many machines it is said how it stands.
const MARKS: [usize; 6] = [1, 50, 100, 500, 1000, 2000];
/// The latest machines that a time is of.
const LATEST: usize = 50;

/// Bytes of this process that it shares with nobody.
#[derive(Default, Clone, Copy)]
struct Memory {
    /// In mappings of the memory file: what guests wrote.
    guests: u64,
    others: u64,
    page_tables: u64,
}

/// Makes machines until so many are there. Prints `alive`, their number, the times in nanoseconds of the latest, and, by
/// `memory`, KiB for each: what guests wrote, the rest of the process, and page tables.
pub(crate) fn measure(
    kvm: &Kvm,
    template: &Arc<Template>,
    file: &Path,
    alive: usize,
) -> Result<(), Failure> {
    let before = memory(file)?;
    let mut machines: Vec<(Arc<Control>, FirstByte, thread::JoinHandle<()>)> = Vec::new();
    let mut times = Vec::new();
    for count in 1..=alive {
        let (control, first, thread) = start(kvm, template)?;
        times.push(first.wait());
        machines.push((control, first, thread));
        if MARKS.contains(&count) || count == alive {
            let latest = times
                .get(count.saturating_sub(LATEST)..)
                .unwrap_or_default();
            crate::print_all(&format!("alive {count}"), latest);
            let now = memory(file)?;
            let each = |now: u64, before: u64| now.saturating_sub(before) / count as u64;
            println!(
                "memory {count} {} {} {}",
                each(now.guests, before.guests),
                each(now.others, before.others),
                each(now.page_tables, before.page_tables)
            );
        }
    }
    for (control, first, _) in &machines {
        control.stop(StopReason::Escape);
        first.release();
    }
    for (_, _, thread) in machines {
        thread.join().map_err(|_| "a machine's thread panicked")?;
    }
    Ok(())
}

/// Starts a machine that waits in its first output.
fn start(
    kvm: &Kvm,
    template: &Arc<Template>,
) -> Result<(Arc<Control>, FirstByte, thread::JoinHandle<()>), Failure> {
    let config = CloneConfig::default();
    let control = config.control.clone();
    let first = FirstByte::new(|| {});
    first.hold();
    let config = CloneConfig {
        output: Output::new(first.clone()),
        ..config
    };
    let machine = template.clone_machine(kvm, config)?;
    let thread = thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            if let Err(error) = machine.run() {
                eprintln!("clones: {error}");
            }
        })?;
    Ok((control, first, thread))
}

/// What this process has of its own, in KiB, by `/proc/self/smaps` and `/proc/self/status`.
fn memory(file: &Path) -> Result<Memory, Failure> {
    let file = file.canonicalize()?;
    let name = file.to_str().ok_or("the memory file's name is not text")?;
    let mut memory = Memory::default();
    let mut of_guest = false;
    for line in std::fs::read_to_string("/proc/self/smaps")?.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Private_Clean:" | "Private_Dirty:"), Some(size)) => {
                let size: u64 = size.parse()?;
                match of_guest {
                    true => memory.guests += size,
                    false => memory.others += size,
                }
            }
            (Some(first), Some(_)) if !first.ends_with(':') => of_guest = line.ends_with(name),
            _ => {}
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let page_tables = status.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    let size = page_tables.and_then(|line| line.split_whitespace().next());
    memory.page_tables = size.map_or(Ok(0), str::parse)?;
    Ok(memory)
}
