//! What no capability tells: a guest of a few instructions shows it.

use std::time::{Duration, Instant};

use goldcrest_monitor::memory::{GuestRam, MemoryConfig};
use goldcrest_vcpu::cpuid::Cpuid;
use goldcrest_vcpu::kvm::{Kvm, KvmVcpu, MSR_KVM_SYSTEM_TIME_NEW};
use goldcrest_vcpu::{Exit, ExitHandler, Flow, Hypervisor, Vcpu, VcpuError, Vm};
use goldcrest_x86::Registers;

use super::Finding;

/// Where the code lies.
const CODE: u64 = 0x1000;
/// Instructions in the loop that is timed: enough to tell, little enough for a KVM that emulates each.
const LOOPS: u16 = 20_000;
/// The same where a guest waits for the answer.
const QUICK_LOOPS: u16 = 4_000;
/// `mov cx, LOOPS; loop $; out 0x80, al; jmp -2`: after the loop, an exit for each turn.
const fn program(loops: u16) -> [u8; 9] {
    let [low, high] = loops.to_le_bytes();
    [0xb9, low, high, 0xe2, 0xfe, 0xe6, 0x80, 0xeb, 0xfc]
}
/// More than this an instruction, and they are not the processor's own.
const EMULATED: Duration = Duration::from_nanos(50);
/// Exits that are timed.
const EXITS: u32 = 200;
/// How often the loop is timed before ring 0 is taken for being emulated: a busy machine may take its time, too.
const TRIES: u32 = 8;

/// Runs a guest and says what it showed.
pub(super) fn run(kvm: &Kvm) -> Vec<Finding> {
    match measure(kvm) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::bad(
            format!("a test guest does not run: {error}"),
            "look into the kernel's log (dmesg) for what KVM says",
        )],
    }
}

/// Whether code of ring 0 is emulated, by the quickest of a few tries: the first has a machine's memory and code to be
/// found.
pub(crate) fn emulates_ring_0(kvm: &Kvm) -> Result<bool, VcpuError> {
    let mut vcpu = guest(kvm, QUICK_LOOPS)?;
    for _ in 0..TRIES {
        vcpu.set_registers(&at_start())?;
        let loop_time = time_to_exit(&mut vcpu)?;
        let exit = time_to_exit(&mut vcpu)?;
        if loop_time.saturating_sub(exit) / u32::from(QUICK_LOOPS) <= EMULATED {
            return Ok(false);
        }
    }
    Ok(true)
}

fn measure(kvm: &Kvm) -> Result<Vec<Finding>, VcpuError> {
    let begin = Instant::now();
    let mut vcpu = guest(kvm, LOOPS)?;
    let made = begin.elapsed();
    let loop_time = time_to_exit(&mut vcpu)?;
    let begin = Instant::now();
    for _ in 0..EXITS {
        time_to_exit(&mut vcpu)?;
    }
    let exit = begin.elapsed() / EXITS;
    let instruction = loop_time.saturating_sub(exit) / u32::from(LOOPS);

    let mut findings = vec![
        Finding::good(format!("a machine is made in {} µs", made.as_micros())),
        Finding::good(format!(
            "an exit to the monitor and back takes {} ns",
            exit.as_nanos()
        )),
    ];
    findings.push(if instruction > EMULATED {
        Finding::limited(
            format!(
                "guest ring 0 is emulated: {} ns an instruction",
                instruction.as_nanos()
            ),
            "unikernels by direct entry run in ring 3 at full speed; Linux does not boot here, nor do disks",
        )
    } else {
        Finding::good("guest code runs on the processor itself")
    });
    findings.push(match vcpu.set_msrs(&[(MSR_KVM_SYSTEM_TIME_NEW, 0)]) {
        Ok(()) => Finding::good("kvmclock is offered"),
        Err(_) => Finding::limited(
            "kvmclock is not offered",
            "guests take the time from the time-stamp counter",
        ),
    });
    Ok(findings)
}

/// A CPU about to run the program in real mode.
fn guest(kvm: &Kvm, loops: u16) -> Result<KvmVcpu, VcpuError> {
    let ram = GuestRam::new(&MemoryConfig {
        size: 1 << 20,
        ..MemoryConfig::default()
    })
    .and_then(|ram| ram.write(CODE, &program(loops)).map(|()| ram))
    .map_err(|_| VcpuError::Missing("1 MiB of memory for a test guest"))?;
    let vm = kvm.create_vm(&ram)?;
    let mut vcpu = vm.create_vcpu(0, &Cpuid::default())?;
    let mut system = vcpu.system_registers()?;
    (system.cs.base, system.cs.selector) = (0, 0);
    vcpu.set_system_registers(&system)?;
    vcpu.set_registers(&at_start())?;
    Ok(vcpu)
}

fn at_start() -> Registers {
    Registers {
        rip: CODE,
        ..Registers::default()
    }
}

struct StopAtPort;

impl ExitHandler for StopAtPort {
    fn port_write(&mut self, _: u16, _: &[u8]) -> Flow {
        Flow::Break(())
    }
}

fn time_to_exit(vcpu: &mut KvmVcpu) -> Result<Duration, VcpuError> {
    let begin = Instant::now();
    match vcpu.run(&mut StopAtPort)? {
        Exit::Requested => Ok(begin.elapsed()),
        _ => Err(VcpuError::Missing(
            "a working guest: the test program was not run",
        )),
    }
}
