#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use goldcrest_boot::Image;
use goldcrest_vcpu::kvm::{Kvm, KvmVm};
use goldcrest_vcpu::{Vcpu, VcpuState};
use tempfile::TempDir;

use super::*;
use crate::images::{ElfBuilder, R, W, X, direct_note, segment};
use crate::{MachineConfig, Output, SnapshotKind, StopReason, run};

/// `IA32_TIME_STAMP_COUNTER`.
const TSC: u32 = 0x10;
/// `HV_X64_MSR_VP_RUNTIME` and `HV_X64_MSR_TIME_REF_COUNT`, which KVM lists also where they are not offered to the guest.
const VP_RUNTIME: u32 = 0x4000_0010;
const TIME_REF_COUNT: u32 = 0x4000_0020;

/// Writes wherever it can in ring 0 (RAM, devices, registers, an interrupt that stays pending), then `!`, and ends with
/// status 0.
const WRITE_ALL: &[u8] = &[
    0xbf, 0x00, 0x00, 0x20, 0x00, // mov edi, 0x200000
    0xb9, 0x00, 0x00, 0x08, 0x00, // mov ecx, 0x80000
    0x48, 0xb8, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, // mov rax, 0xa5a5a5a5a5a5a5a5
    0xf3, 0x48, 0xab, // rep stosq
    0xf3, 0x0f, 0x6f, 0x3c, 0x25, 0x00, 0x00, 0x20, 0x00, // movdqu xmm7, [0x200000]
    0x66, 0xba, 0xff, 0x03, 0xee, // the serial port's scratch register
    0x66, 0xba, 0x21, 0x00, 0xee, // the first 8259's mask
    0x66, 0xba, 0x70, 0x00, 0xb0, 0x0a, 0xee, // the real-time clock's index
    0xb8, 0x34, 0x12, 0x00, 0x00, // mov eax, 0x1234
    0x31, 0xd2, // xor edx, edx
    0xb9, 0x02, 0x01, 0x00, 0xc0, 0x0f, 0x30, // wrmsr IA32_KERNEL_GS_BASE
    0xb9, 0x03, 0x04, 0x00, 0x00, 0x0f, 0x30, // wrmsr IA32_MC0_MISC
    0xb8, 0x06, 0x00, 0x00, 0x00, // mov eax, 6
    0xb9, 0x00, 0x02, 0x00, 0x00, 0x0f, 0x30, // wrmsr IA32_MTRR_PHYSBASE0
    0xb8, 0x00, 0x10, 0x00, 0x00, // mov eax, 0x1000
    0x0f, 0x22, 0xd0, // mov cr2, rax
    0x0f, 0x23, 0xc0, // mov dr0, rax
    0xbb, 0x00, 0x00, 0xe0, 0xfe, // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00, // enable the local APIC
    0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x55, 0x00, 0x04,
    0x00, // interrupt oneself, by vector 0x55
    0xc7, 0x83, 0x20, 0x03, 0x00, 0x00, 0x34, 0x00, 0x00,
    0x00, // the timer interrupts by 0x34
    0xc7, 0x83, 0x80, 0x03, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, // in 0x1000 ticks
    0x49, 0x89, 0xc7, // mov r15, rax
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x21, 0xee, // '!' to the serial port
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0x31, 0xc0, // xor eax, eax
    0xef, // out dx, eax
];

/// Adds one to a byte and ends with it as its status.
const COUNT: &[u8] = &[
    0xfe, 0x04, 0x25, 0x00, 0x00, 0x11, 0x00, // inc byte [0x110000]
    0x0f, 0xb6, 0x04, 0x25, 0x00, 0x00, 0x11, 0x00, // movzx eax, byte [0x110000]
    0x66, 0xba, 0x04, 0x0e, // mov dx, doorbell::EXIT
    0xef, // out dx, eax
];

fn kvm() -> Option<Kvm> {
    match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn save(control: &crate::Control, directory: &Path) {
    let files = SnapshotFiles::in_directory(directory);
    let snapshot = || control.snapshot(&files, SnapshotKind::Full);
    let mut result = snapshot();
    let begun = Instant::now();
    while matches!(result, Err(SnapshotError::NotRunning)) && begun.elapsed().as_secs() < 60 {
        thread::yield_now();
        result = snapshot();
    }
    control.stop(StopReason::Escape);
    result.unwrap();
}

/// A template of a machine of 8 MiB that has not run its first instruction.
fn template(kvm: &Kvm, ring: u32, code: &[u8]) -> (TempDir, Template) {
    let text = segment(R | X, 0x10_0000, code, 0x1000);
    let data = segment(R | W, 0x11_0000, &[], 0x1000);
    let mut note = direct_note(0x10_0000);
    note.ring = ring;
    let elf = ElfBuilder::new(0x10_0000, vec![text, data]).direct(&note);
    let image = Image::from_bytes("guest", elf.build()).unwrap();
    let mut config = MachineConfig::new(image);
    config.memory.size = 8 << 20;
    config.control.pause();
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let machine = scope.spawn(|| run(kvm, &config));
        save(&config.control, directory.path());
        machine.join().unwrap().unwrap();
    });
    let template = Template::open(&SnapshotFiles::in_directory(directory.path())).unwrap();
    (directory, template)
}

fn paused() -> CloneConfig {
    CloneConfig {
        paused: true,
        ..CloneConfig::default()
    }
}

/// The state and the RAM of a machine that is paused.
fn saved(
    machine: Machine<KvmVm>,
    control: &crate::Control,
) -> (MachineState, Vec<u8>, Spent<KvmVm>) {
    let directory = tempfile::tempdir().unwrap();
    let spent = thread::scope(|scope| {
        let machine = scope.spawn(|| machine.run_and_keep());
        save(control, directory.path());
        machine.join().unwrap().1
    });
    let state = Chain::open(&SnapshotFiles::in_directory(directory.path()), &[])
        .unwrap()
        .state;
    let mut memory = std::fs::read(directory.path().join("memory")).unwrap();
    memory.truncate(8 << 20);
    // Of all memory, this alone is another one each time.
    let at = usize::try_from(state.generation_id.unwrap()).unwrap();
    memory[at..at + 16].fill(0);
    (state, memory, spent)
}

/// Registers that no state has: `IA32_MC0_MISC` and `IA32_MTRR_PHYSBASE0`.
fn unlisted(spent: &Spent<KvmVm>) -> [Option<u64>; 2] {
    [0x403, 0x200].map(|index| spent.0.vcpus[0].msr(index).ok())
}

/// Milliseconds between two states, by the CPU's counter.
fn ticked(before: &MachineState, after: &MachineState) -> u128 {
    let [before, now] = [before, after].map(|state| {
        let mut msrs = state.cpus[0].msrs.iter();
        msrs.find(|msr| msr.0 == TSC).unwrap().1
    });
    u128::from((now - before) / after.cpus[0].tsc_khz)
}

/// All that does not pass by itself.
fn timeless(state: &MachineState) -> (Vec<VcpuState>, String) {
    let mut cpus = state.cpus.clone();
    for cpu in &mut cpus {
        cpu.msrs
            .retain(|msr| ![TSC, VP_RUNTIME, TIME_REF_COUNT].contains(&msr.0));
    }
    (cpus, format!("{:?} {:?}", state.chipset, state.devices))
}

#[test]
fn nothing_of_a_run_is_left_after_a_reset() {
    let Some(kvm) = kvm() else { return };
    let (_directory, template) = template(&kvm, 0, WRITE_ALL);
    // So that the counter shows whether it was set.
    thread::sleep(Duration::from_millis(100));
    let config = paused();
    let control = config.control.clone();
    let cloned = Instant::now();
    let (fresh, fresh_memory, unused) =
        saved(template.clone_machine(&kvm, config).unwrap(), &control);
    let sets_counters = ticked(&template.state, &fresh) <= cloned.elapsed().as_millis() + 1;
    assert_eq!(timeless(&fresh), timeless(&template.state));

    let (output, text) = Output::capture();
    let config = CloneConfig {
        output,
        ..CloneConfig::default()
    };
    let begun = Instant::now();
    let (outcome, spent) = template.clone_machine(&kvm, config).unwrap().run_and_keep();
    assert!(matches!(outcome, Ok(Outcome::Exit(0))), "{outcome:?}");
    assert_eq!(text.take(), b"!");
    assert_ne!(unlisted(&spent), unlisted(&unused), "it wrote nothing");
    // So that the counter would show it.
    thread::sleep(Duration::from_millis(200).saturating_sub(begun.elapsed()));

    let reset = Instant::now();
    let config = paused();
    let control = config.control.clone();
    let (again, memory, reused) = saved(template.reset(spent, config).unwrap(), &control);
    let most = reset.elapsed().as_millis() + 1;
    assert_eq!(timeless(&again), timeless(&fresh));
    assert!(memory == fresh_memory, "RAM is another");
    assert_eq!(unlisted(&reused), unlisted(&unused));
    match sets_counters {
        true => {
            let passed = ticked(&template.state, &again);
            assert!(passed <= most, "{passed} ms of at most {most}");
        }
        // One whose guests have the host's counter.
        false => println!("skipped: this KVM does not set time-stamp counters"),
    }
    let passed = u128::from((again.clock - template.state.clock) / 1_000_000);
    assert!(passed <= most, "{passed} ms of at most {most} by its clock");
}

#[test]
fn clocks_are_saved_as_they_were_when_the_machine_paused() {
    let Some(kvm) = kvm() else { return };
    let (_directory, template) = template(&kvm, 3, COUNT);
    let config = paused();
    let control = config.control.clone();
    let machine = template.clone_machine(&kvm, config).unwrap();
    let [first, second] = thread::scope(|scope| {
        let machine = scope.spawn(|| machine.run());
        let directory = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::in_directory(directory.path());
        let states = [(); 2].map(|()| {
            control.snapshot(&files, SnapshotKind::Full).unwrap();
            thread::sleep(Duration::from_millis(20));
            Chain::open(&files, &[]).unwrap().state
        });
        control.stop(StopReason::Escape);
        machine.join().unwrap().unwrap();
        states
    });
    assert_eq!(first.clock, second.clock);
    assert_eq!(first.saved_at, second.saved_at);
    assert_eq!(ticked(&first, &second), 0);
    assert_eq!(timeless(&first), timeless(&second));
}

#[test]
fn a_machine_can_be_reset_again_and_again() {
    let Some(kvm) = kvm() else { return };
    let (_directory, template) = template(&kvm, 3, COUNT);
    let mut machine = template
        .clone_machine(&kvm, CloneConfig::default())
        .unwrap();
    for _ in 0..20 {
        let (outcome, spent) = machine.run_and_keep();
        assert!(matches!(outcome, Ok(Outcome::Exit(1))), "{outcome:?}");
        machine = template.reset(spent, CloneConfig::default()).unwrap();
    }
}

#[test]
fn clones_write_to_themselves_alone() {
    let Some(kvm) = kvm() else { return };
    let (_directory, template) = template(&kvm, 3, COUNT);
    let template = Arc::new(template);
    let pool = Pool::new(template.clone(), kvm.clone(), 2).unwrap();
    for _ in 0..10 {
        let machine = pool.clone_machine(CloneConfig::default()).unwrap();
        let (outcome, left) = machine.run_and_keep();
        assert!(matches!(outcome, Ok(Outcome::Exit(1))), "{outcome:?}");
        pool.give_back(left);
    }
    while pool.ready() < 2 {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_of_another_template_is_refused() {
    let Some(kvm) = kvm() else { return };
    let (_one, one) = template(&kvm, 3, COUNT);
    let (_two, two) = template(&kvm, 3, COUNT);
    let blank = one.prepare(&kvm).unwrap();
    let refused = two.fill(blank, CloneConfig::default()).err().unwrap();
    assert!(
        matches!(
            refused,
            MonitorError::Snapshot(SnapshotError::NotOfTemplate { .. })
        ),
        "{refused}"
    );
}
