//! A backend that plays exits from a list: exit loops and devices are tested and fuzzed without KVM, threads or time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use goldcrest_irq::{Msi, MsiSink};
use goldcrest_memory::GuestRam;
use goldcrest_x86::{Registers, SystemRegisters};

use crate::cpuid::Cpuid;
use crate::{Exit, ExitHandler, Flow, Hypervisor, Kick, Vcpu, VcpuError, VcpuState, Vm};

/// What the guest does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reads so many bytes from a port.
    PortRead(u16, usize),
    /// Writes bytes to a port.
    PortWrite(u16, Vec<u8>),
    /// Reads so many bytes, up to 8, at an address.
    MemoryRead(u64, usize),
    /// Writes bytes at an address.
    MemoryWrite(u64, Vec<u8>),
    /// Acknowledges the level-triggered interrupt with this vector.
    EndOfInterrupt(u8),
    /// Makes [`Vcpu::run`] return.
    Exit(Exit),
}

/// What came of it: visible through [`Scripted::log`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Log {
    /// What the guest's reads gave, in order.
    pub reads: Vec<Vec<u8>>,
    /// The messages that the local APICs got.
    pub messages: Vec<Msi>,
}

type SharedLog = Arc<Mutex<Log>>;

/// A hypervisor whose guests play a script. When it ends, the guest is [`Exit::Halted`]. All CPUs play the same.
#[derive(Debug, Clone)]
pub struct Scripted {
    script: Vec<Step>,
    log: SharedLog,
}

impl Scripted {
    /// A hypervisor with this script.
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self {
            script: script.into_iter().collect(),
            log: SharedLog::default(),
        }
    }

    /// What has happened so far in all its machines.
    pub fn log(&self) -> Log {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Hypervisor for Scripted {
    type Vm = Scripted;

    fn create_vm(&self, _ram: &GuestRam) -> Result<Self, VcpuError> {
        Ok(self.clone())
    }

    fn cpuid(&self) -> Result<Cpuid, VcpuError> {
        Ok(Cpuid::default())
    }

    fn max_cpus(&self) -> u32 {
        64
    }
}

impl Vm for Scripted {
    type Vcpu = ScriptedVcpu;

    fn create_vcpu(&self, _id: u32, cpuid: &Cpuid) -> Result<ScriptedVcpu, VcpuError> {
        Ok(ScriptedVcpu {
            steps: self.script.clone().into(),
            log: self.log.clone(),
            kicker: Arc::new(Kicker::default()),
            state: VcpuState {
                registers: Registers::default(),
                system: SystemRegisters::default(),
                apic_base: 0,
                cpuid: cpuid.clone(),
                msrs: Vec::new(),
                xcrs: Vec::new(),
                xsave: Vec::new(),
                local_apic: Vec::new(),
                events: Vec::new(),
                debug: Vec::new(),
                mp_state: 0,
                tsc_khz: 0,
            },
        })
    }

    fn msi_sink(&self) -> Arc<dyn MsiSink> {
        Arc::new(Sink(self.log.clone()))
    }

    fn clock(&self) -> Result<u64, VcpuError> {
        Ok(0)
    }

    fn set_clock(&self, _: u64) -> Result<(), VcpuError> {
        Ok(())
    }

    fn forget_translations(&self) -> Result<(), VcpuError> {
        Ok(())
    }
}

struct Sink(SharedLog);

impl MsiSink for Sink {
    fn signal(&self, message: Msi) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .messages
            .push(message);
    }
}

#[derive(Default)]
struct Kicker(AtomicBool);

impl Kick for Kicker {
    fn kick(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A CPU that plays a script.
pub struct ScriptedVcpu {
    steps: VecDeque<Step>,
    log: SharedLog,
    kicker: Arc<Kicker>,
    state: VcpuState,
}

impl ScriptedVcpu {
    fn read(&self, len: usize, read: impl FnOnce(&mut [u8])) {
        let mut data = vec![0xff; len.clamp(1, 8)];
        read(&mut data);
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reads
            .push(data);
    }
}

impl Vcpu for ScriptedVcpu {
    fn run(&mut self, handler: &mut dyn ExitHandler) -> Result<Exit, VcpuError> {
        loop {
            if self.kicker.0.swap(false, Ordering::SeqCst) {
                return Ok(Exit::Kicked);
            }
            let flow = match self.steps.pop_front() {
                Some(Step::PortRead(port, len)) => {
                    self.read(len, |data| handler.port_read(port, data));
                    Flow::Continue(())
                }
                Some(Step::MemoryRead(address, len)) => {
                    self.read(len, |data| handler.memory_read(address, data));
                    Flow::Continue(())
                }
                Some(Step::PortWrite(port, data)) => handler.port_write(port, &data),
                Some(Step::MemoryWrite(address, data)) => handler.memory_write(address, &data),
                Some(Step::EndOfInterrupt(vector)) => {
                    handler.end_of_interrupt(vector);
                    Flow::Continue(())
                }
                Some(Step::Exit(exit)) => return Ok(exit),
                None => return Ok(Exit::Halted),
            };
            if flow.is_break() {
                return Ok(Exit::Requested);
            }
        }
    }

    fn set_cpuid(&mut self, cpuid: &Cpuid) -> Result<(), VcpuError> {
        self.state.cpuid = cpuid.clone();
        Ok(())
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicker.clone()
    }

    fn registers(&self) -> Result<Registers, VcpuError> {
        Ok(self.state.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), VcpuError> {
        self.state.registers = *registers;
        Ok(())
    }

    fn system_registers(&self) -> Result<SystemRegisters, VcpuError> {
        Ok(self.state.system)
    }

    fn set_system_registers(&mut self, registers: &SystemRegisters) -> Result<(), VcpuError> {
        self.state.system = *registers;
        Ok(())
    }

    fn msr(&self, index: u32) -> Result<u64, VcpuError> {
        self.state
            .msrs
            .iter()
            .find(|msr| msr.0 == index)
            .map(|msr| msr.1)
            .ok_or(VcpuError::Msr(index))
    }

    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), VcpuError> {
        for msr in msrs {
            self.state.msrs.retain(|old| old.0 != msr.0);
            self.state.msrs.push(*msr);
        }
        Ok(())
    }

    fn tsc_khz(&self) -> u64 {
        0
    }

    fn translate(&self, address: u64) -> Option<u64> {
        Some(address)
    }

    fn finish_access(&mut self, _: &mut dyn ExitHandler) -> Result<Option<Exit>, VcpuError> {
        Ok(None)
    }

    fn save(&mut self) -> Result<VcpuState, VcpuError> {
        Ok(self.state.clone())
    }

    fn restore(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.state = state.clone();
        Ok(Vec::new())
    }

    fn revert(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        self.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Handler(Vec<String>);

    impl ExitHandler for Handler {
        fn port_read(&mut self, port: u16, data: &mut [u8]) {
            self.0.push(format!("in {port:#x} {}", data.len()));
            data.fill(1);
        }
        fn memory_write(&mut self, address: u64, data: &[u8]) -> Flow {
            self.0.push(format!("write {address:#x} {data:?}"));
            if address == 0 {
                Flow::Break(())
            } else {
                Flow::Continue(())
            }
        }
        fn end_of_interrupt(&mut self, vector: u8) {
            self.0.push(format!("eoi {vector}"));
        }
    }

    #[test]
    fn a_script_reaches_the_handler_in_order() {
        let hypervisor = Scripted::new([
            Step::PortRead(0x60, 1),
            Step::MemoryRead(0x1000, 100),
            Step::EndOfInterrupt(0x30),
            Step::MemoryWrite(0, vec![9]),
            Step::PortWrite(1, vec![2]),
        ]);
        let mut vcpu = hypervisor.create_vcpu(0, &Cpuid::default()).unwrap();
        let mut handler = Handler(Vec::new());
        assert_eq!(vcpu.run(&mut handler).unwrap(), Exit::Requested);
        vcpu.kicker().kick();
        assert_eq!(vcpu.run(&mut handler).unwrap(), Exit::Kicked);
        assert_eq!(vcpu.run(&mut handler).unwrap(), Exit::Halted);
        assert_eq!(handler.0, ["in 0x60 1", "eoi 48", "write 0x0 [9]"]);
        assert_eq!(hypervisor.log().reads, [vec![1], vec![0xff; 8]]);
    }
}
