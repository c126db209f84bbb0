//! Working sets: recorded of one run, had by others before they need it, and not believed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::sync::{Arc, Mutex};

use goldcrest_monitor::{
    CloneConfig, Machine, MachineConfig, MonitorError, Notice, Outcome, RestoreConfig,
    SnapshotFiles, Template,
};
use goldcrest_vcpu::kvm::Kvm;
use nix::sys::resource::{UsageWho, getrusage};
use support::image;
use tempfile::TempDir;

/// Pages that the guest writes to.
const PAGES: i64 = 2048;

/// Writes to 2048 pages from 2 MiB on; ends with status 5.
const TOUCH: &[u8] = &[
    0xbf, 0x00, 0x00, 0x20, 0x00, // mov edi, 0x200000
    0xb9, 0x00, 0x08, 0x00, 0x00, // mov ecx, 2048
    // next:
    0x88, 0x07, // mov [rdi], al
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 0x1000
    0xff, 0xc9, // dec ecx
    0x75, 0xf4, // jnz next
    0xb8, 0x05, 0x00, 0x00, 0x00, // mov eax, 5
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xef, // out dx, eax
];

fn kvm() -> Option<Kvm> {
    if let Err(reason) = fs::File::open("/proc/self/pagemap") {
        println!("skipped: /proc/self/pagemap: {reason}");
        return None;
    }
    support::kvm()
}

/// A machine that has not run its first instruction.
fn frozen(kvm: &Kvm) -> (TempDir, SnapshotFiles) {
    let mut config = MachineConfig::new(image(TOUCH, &[], 0x1000));
    config.memory.size = 32 << 20;
    support::frozen(kvm, config)
}

fn record(kvm: &Kvm, files: &SnapshotFiles) {
    let said = Arc::<Mutex<Vec<String>>>::default();
    let saying = said.clone();
    let config = RestoreConfig {
        record_working_set: true,
        machine: CloneConfig {
            notice: Notice::new(move |text| saying.lock().unwrap().push(text.to_owned())),
            ..CloneConfig::default()
        },
        ..RestoreConfig::new(files.clone())
    };
    let outcome = Machine::restore(kvm, &config).unwrap().run();
    assert_ends_as_it_should(&outcome);
    assert_eq!(*said.lock().unwrap(), Vec::<String>::new());
}

fn assert_ends_as_it_should(outcome: &Result<Outcome, MonitorError>) {
    assert!(matches!(outcome, Ok(Outcome::Exit(5))), "{outcome:?}");
}

/// Faults of this thread while it does `work`.
fn faults(work: impl FnOnce()) -> i64 {
    let faults = || {
        getrusage(UsageWho::RUSAGE_THREAD)
            .unwrap()
            .minor_page_faults()
    };
    let before = faults();
    work();
    faults() - before
}

#[test]
fn what_one_run_touched_others_have_before_they_touch_it() {
    let Some(kvm) = kvm() else { return };
    let (_directory, files) = frozen(&kvm);
    record(&kvm, &files);
    let [with, without] = [
        Template::open(&files).unwrap(),
        Template::open(&files).unwrap().without_working_set(),
    ]
    .map(|template| {
        let machine = template
            .clone_machine(&kvm, CloneConfig::default())
            .unwrap();
        let mut spent = None;
        let first = faults(|| {
            let (outcome, left) = machine.run_and_keep();
            assert_ends_as_it_should(&outcome);
            spent = Some(left);
        });
        // Also one that is reset.
        let machine = template
            .reset(spent.unwrap(), CloneConfig::default())
            .unwrap();
        let again = faults(|| assert_ends_as_it_should(&machine.run()));
        first.max(again)
    });
    assert!(without >= PAGES, "{without}");
    assert!(with < PAGES / 8, "{with} faults, {without} without");

    let restored = RestoreConfig::new(files);
    let machine = Machine::restore(&kvm, &restored).unwrap();
    let restored = faults(|| assert_ends_as_it_should(&machine.run()));
    assert!(restored < PAGES / 8, "{restored} faults, {without} without");
}

#[test]
fn what_was_recorded_of_another_snapshot_means_nothing() {
    let Some(kvm) = kvm() else { return };
    let (_directory, files) = frozen(&kvm);
    let (_other_directory, other) = frozen(&kvm);
    record(&kvm, &files);
    fs::copy(files.working_set(), other.working_set()).unwrap();
    let template = Template::open(&other).unwrap();
    let machine = template
        .clone_machine(&kvm, CloneConfig::default())
        .unwrap();
    let faults = faults(|| assert_ends_as_it_should(&machine.run()));
    assert!(faults >= PAGES, "{faults}");
}

#[test]
fn a_working_set_that_is_damaged_is_refused_and_can_be_done_without() {
    let Some(kvm) = kvm() else { return };
    let (_directory, files) = frozen(&kvm);
    record(&kvm, &files);
    let good = fs::read(files.working_set()).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(files.working_set(), bad).unwrap();
        assert!(Template::open(&files).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        fs::write(files.working_set(), &good[..len]).unwrap();
        assert!(Template::open(&files).is_err(), "{len}");
    }
    // Extents that cannot be, with a right checksum.
    let mut bad = good.clone();
    let end = bad.len() - 4;
    bad[end - 1] = 0x7f;
    let sum = crc32fast::hash(&bad[..end]).to_le_bytes();
    bad[end..].copy_from_slice(&sum);
    fs::write(files.working_set(), bad).unwrap();
    let error = Machine::restore(&kvm, &RestoreConfig::new(files.clone()))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(error.contains("working set has"), "{error}");
    let config = RestoreConfig {
        use_working_set: false,
        ..RestoreConfig::new(files.clone())
    };
    assert_ends_as_it_should(&Machine::restore(&kvm, &config).unwrap().run());
    // And it is replaced by another run's.
    record(&kvm, &files);
    assert!(Template::open(&files).is_ok());
}
