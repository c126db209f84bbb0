//! What it saves that pages are there before the guest touches them.

use std::path::Path;
use std::sync::Arc;

use goldcrest_monitor::{Machine, Output, RestoreConfig, SnapshotFiles, StopReason, Template};
use goldcrest_vcpu::kvm::Kvm;
use nix::sys::resource::{UsageWho, getrusage};

use crate::first_byte::FirstByte;
use crate::{Failure, print_all, to_first_byte};

/// Records which pages a machine touches until its first output, and says how long others take to that from nothing, and
/// how many faults this process has while they run: without what was recorded, and with it.
pub(crate) fn measure(directory: &Path, count: usize) -> Result<(), Failure> {
    let kvm = Kvm::open()?;
    let files = SnapshotFiles::in_directory(directory);
    record(&kvm, &files)?;
    let templates = [
        ("without", Template::open(&files)?.without_working_set()),
        ("with", Template::open(&files)?),
    ];
    let mut times = [Vec::new(), Vec::new()];
    let mut faults = [Vec::new(), Vec::new()];
    // In turn, so that both see the same noise.
    for _ in 0..count {
        for ((_, template), (times, faults)) in
            templates.iter().zip(times.iter_mut().zip(&mut faults))
        {
            let mut made = Ok(0);
            let (took, spent) = to_first_byte(|config| {
                let machine = template.clone_machine(&kvm, config);
                made = minor_faults();
                machine
            })?;
            faults.push(minor_faults()? - made?);
            times.push(took);
            drop(spent);
        }
    }
    for ((name, _), (times, faults)) in templates.iter().zip(times.iter().zip(faults)) {
        print_all(name, times);
        print_all(&format!("faults-{name}"), &faults);
    }
    Ok(())
}

fn record(kvm: &Kvm, files: &SnapshotFiles) -> Result<(), Failure> {
    let mut config = RestoreConfig {
        record_working_set: true,
        ..RestoreConfig::new(files.clone())
    };
    let control = Arc::clone(&config.machine.control);
    let first = FirstByte::new(move || control.stop(StopReason::Escape));
    config.machine.output = Output::new(first);
    Machine::restore(kvm, &config)?.run()?;
    Ok(())
}

/// Faults of this process so far that needed no disk.
fn minor_faults() -> Result<u128, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(u128::try_from(usage.minor_page_faults())?)
}
