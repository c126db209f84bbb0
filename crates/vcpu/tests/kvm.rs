//! Guests of a few instructions on the machine's real KVM.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::mpsc;
use std::time::Duration;

use goldcrest_memory::{GuestRam, MemoryConfig};
use goldcrest_vcpu::cpuid::Cpuid;
use goldcrest_vcpu::kvm::{Kvm, KvmVcpu, KvmVm};
use goldcrest_vcpu::{Exit, ExitHandler, Flow, Hypervisor, Report, Vcpu, VcpuState, Vm};
use goldcrest_x86::Registers;

const CODE: u64 = 0x1000;

struct Machine {
    vcpu: KvmVcpu,
    vm: KvmVm,
    ram: GuestRam,
    cpuid: Cpuid,
}

/// A machine whose CPU 0 is about to run `code` in real mode, or None where there is no KVM.
fn machine(code: &[u8]) -> Option<Machine> {
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let ram = GuestRam::new(&MemoryConfig::default()).unwrap();
    ram.write(CODE, code).unwrap();
    let vm = kvm.create_vm(&ram).unwrap();
    let cpuid = kvm.cpuid().unwrap();
    let mut vcpu = vm.create_vcpu(0, &cpuid.for_cpu(0, 1)).unwrap();
    let mut system = vcpu.system_registers().unwrap();
    system.cs.base = 0;
    system.cs.selector = 0;
    vcpu.set_system_registers(&system).unwrap();
    vcpu.set_registers(&Registers {
        rip: CODE,
        rsp: 0x8000,
        ..Registers::default()
    })
    .unwrap();
    Some(Machine {
        vcpu,
        vm,
        ram,
        cpuid,
    })
}

#[derive(Default)]
struct Log {
    written: Vec<(u64, Vec<u8>)>,
    stop_at_port: Option<u16>,
}

impl ExitHandler for Log {
    fn port_read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(port.to_le_bytes()[0]);
    }
    fn port_write(&mut self, port: u16, data: &[u8]) -> Flow {
        self.written.push((port.into(), data.to_vec()));
        if self.stop_at_port == Some(port) {
            Flow::Break(())
        } else {
            Flow::Continue(())
        }
    }
    fn memory_read(&mut self, _address: u64, data: &mut [u8]) {
        data.fill(0x77);
    }
    fn memory_write(&mut self, address: u64, data: &[u8]) -> Flow {
        self.written.push((address, data.to_vec()));
        Flow::Break(())
    }
}

/// mov al, 'G'; out 0x10, al; in al, 0x20; out 0x11, al; jmp $
const PORTS: [u8; 10] = [0xb0, b'G', 0xe6, 0x10, 0xe4, 0x20, 0xe6, 0x11, 0xeb, 0xfe];

#[test]
fn port_accesses_reach_the_handler() {
    let Some(mut machine) = machine(&PORTS) else {
        return;
    };
    let mut log = Log {
        stop_at_port: Some(0x11),
        ..Log::default()
    };
    assert_eq!(machine.vcpu.run(&mut log).unwrap(), Exit::Requested);
    assert_eq!(log.written, [(0x10, vec![b'G']), (0x11, vec![0x20])]);
}

#[test]
fn a_kick_before_entry_is_not_lost_and_one_while_running_interrupts() {
    let Some(mut machine) = machine(&[0xeb, 0xfe]) else {
        return;
    };
    let kicker = machine.vcpu.kicker();
    kicker.kick();
    assert_eq!(machine.vcpu.run(&mut Log::default()).unwrap(), Exit::Kicked);

    for _ in 0..200 {
        let (sender, receiver) = mpsc::channel();
        let kicker = kicker.clone();
        let watch = std::thread::spawn(move || {
            kicker.kick();
            receiver
                .recv_timeout(Duration::from_secs(10))
                .expect("a kick was lost");
        });
        assert_eq!(machine.vcpu.run(&mut Log::default()).unwrap(), Exit::Kicked);
        sender.send(()).unwrap();
        watch.join().unwrap();
    }
}

#[test]
fn a_saved_cpu_goes_on_elsewhere_after_the_access_it_was_in() {
    // mov al, 7; out 0x10, al; inc al; out 0x11, al; jmp $
    let code = [0xb0, 7, 0xe6, 0x10, 0xfe, 0xc0, 0xe6, 0x11, 0xeb, 0xfe];
    let (Some(mut first), Some(mut second)) = (machine(&code), machine(&code)) else {
        return;
    };
    let mut log = Log {
        stop_at_port: Some(0x10),
        ..Log::default()
    };
    assert_eq!(first.vcpu.run(&mut log).unwrap(), Exit::Requested);
    let saved = first.vcpu.save().unwrap();
    assert_eq!(saved.registers.rip, CODE + 4);
    assert_eq!(saved.apic_base, 0xfee0_0900, "the boot CPU's, enabled");
    let again = first.vcpu.save().unwrap();
    assert_eq!(again.registers, saved.registers, "saving changes nothing");
    // The state that FPUs have after reset: all exceptions masked (SDM vol. 1 §8.1.5, §11.6.4).
    assert_eq!(saved.xsave[..2], [0x7f, 0x03]);
    assert_eq!(saved.xsave[24..28], [0x80, 0x1f, 0, 0]);

    let bytes = postcard::to_allocvec(&saved).unwrap();
    let state: VcpuState = postcard::from_bytes(&bytes).unwrap();
    second.vcpu.restore(&state).unwrap();
    let mut log = Log {
        stop_at_port: Some(0x11),
        ..Log::default()
    };
    assert_eq!(second.vcpu.run(&mut log).unwrap(), Exit::Requested);
    assert_eq!(log.written, [(0x11, vec![8])]);
}

#[test]
fn a_saved_state_that_lies_is_refused() {
    let Some(mut machine) = machine(&PORTS) else {
        return;
    };
    let saved = machine.vcpu.save().unwrap();
    for change in [
        |s: &mut VcpuState| s.xsave.truncate(100),
        |s: &mut VcpuState| s.local_apic.clear(),
        |s: &mut VcpuState| s.events.push(0),
        |s: &mut VcpuState| s.xcrs = vec![(0, 1); 100],
        |s: &mut VcpuState| s.mp_state = u32::MAX,
        // Long mode without paging.
        |s: &mut VcpuState| s.system.efer = 0x500,
    ] {
        let mut state = saved.clone();
        change(&mut state);
        assert!(machine.vcpu.restore(&state).is_err());
    }
    machine.vcpu.restore(&saved).unwrap();
}

#[test]
fn a_state_that_was_taken_before_is_the_same_at_once_and_when_it_runs() {
    // mov al, 7; out 0x10, al; inc al; out 0x11, al; jmp $
    let code = [0xb0, 7, 0xe6, 0x10, 0xfe, 0xc0, 0xe6, 0x11, 0xeb, 0xfe];
    let (Some(mut first), Some(mut second)) = (machine(&code), machine(&code)) else {
        return;
    };
    let mut log = Log {
        stop_at_port: Some(0x10),
        ..Log::default()
    };
    assert_eq!(first.vcpu.run(&mut log).unwrap(), Exit::Requested);
    let mut state = first.vcpu.save().unwrap();
    let vcpu = &mut second.vcpu;
    vcpu.restore_taken(&state).unwrap();
    assert_eq!(vcpu.registers().unwrap(), state.registers);
    assert_eq!(vcpu.system_registers().unwrap(), state.system);
    let saved = vcpu.save().unwrap();
    assert_eq!(
        (saved.registers, saved.system, saved.events),
        (state.registers, state.system, state.events.clone())
    );
    // What is set after it counts, and nothing of it is set twice.
    vcpu.restore_taken(&state).unwrap();
    let mut registers = state.registers;
    registers.rax = 40;
    vcpu.set_registers(&registers).unwrap();
    assert_eq!(vcpu.registers().unwrap(), registers);
    let mut log = Log {
        stop_at_port: Some(0x11),
        ..Log::default()
    };
    assert_eq!(vcpu.run(&mut log).unwrap(), Exit::Requested);
    assert_eq!(log.written, [(0x11, vec![41])]);
    vcpu.revert(&state).unwrap();
    let mut log = Log {
        stop_at_port: Some(0x11),
        ..Log::default()
    };
    assert_eq!(vcpu.run(&mut log).unwrap(), Exit::Requested);
    assert_eq!(log.written, [(0x11, vec![8])]);

    // One that lies is found out when it is to run, at the latest: long mode without paging.
    state.system.efer = 0x500;
    let restored = vcpu.revert(&state);
    assert!(restored.is_err() || vcpu.run(&mut Log::default()).is_err());
}

#[test]
fn cpus_have_their_number_and_the_topology() {
    let Some(machine) = machine(&PORTS) else {
        return;
    };
    let mut second = machine
        .vm
        .create_vcpu(1, &machine.cpuid.for_cpu(1, 2))
        .unwrap();
    let state = second.save().unwrap();
    assert_eq!(state.cpuid.leaf(1).unwrap().ebx >> 24, 1);
    assert_eq!(state.apic_base, 0xfee0_0800, "not the boot CPU's");
    assert!(
        machine.vm.create_vcpu(1, &machine.cpuid).is_err(),
        "there is a CPU 1"
    );
}

#[test]
fn a_report_shows_where_a_guest_ended() {
    let Some(mut machine) = machine(&PORTS) else {
        return;
    };
    let mut log = Log {
        stop_at_port: Some(0x10),
        ..Log::default()
    };
    let exit = machine.vcpu.run(&mut log).unwrap();
    let report = Report::new(0, exit, &machine.vcpu, &machine.ram.view()).to_string();
    assert!(report.contains("(ring 0, 16 bits)"), "{report}");
    assert!(report.contains("\n  code "), "{report}");
}

#[test]
fn a_device_that_is_not_kvm_is_refused() {
    let open = |path: &str| Kvm::open_at(path.as_ref()).unwrap_err().to_string();
    assert!(open("/nonexistent/kvm").contains("no KVM"));
    assert!(open("/dev/null").contains("version"));
}
