//! How a guest ended, for people.

use std::fmt;

use goldcrest_memory::{GuestView, PAGE_SIZE};
use goldcrest_x86::{Registers, SystemRegisters};

use crate::{Exit, Vcpu};

/// Longest instruction (SDM vol. 2A §2.3.11).
const MAX_INSTRUCTION: usize = 15;

/// What is known of a vCPU that stopped: shown as a block of a few lines.
#[derive(Debug, Clone)]
pub struct Report {
    cpu: u32,
    exit: Exit,
    registers: Option<Registers>,
    system: Option<SystemRegisters>,
    code: Vec<u8>,
}

impl Report {
    /// Reads the state of `vcpu`, which stopped with `exit`, and the code that it was at.
    pub fn new(cpu: u32, exit: Exit, vcpu: &impl Vcpu, memory: &GuestView) -> Self {
        let registers = vcpu.registers().ok();
        let system = vcpu.system_registers().ok();
        let code = match (&registers, &system) {
            // In 64-bit mode the processor ignores the base (SDM vol. 1 §3.4.2.1).
            (Some(r), Some(s)) if s.cs.long => code_at(r.rip, vcpu, memory),
            (Some(r), Some(s)) => code_at(s.cs.base.wrapping_add(r.rip), vcpu, memory),
            _ => Vec::new(),
        };
        Self {
            cpu,
            exit,
            registers,
            system,
            code,
        }
    }
}

/// Up to one longest instruction; less where its page ends or nothing is mapped.
fn code_at(address: u64, vcpu: &impl Vcpu, memory: &GuestView) -> Vec<u8> {
    let in_page = PAGE_SIZE - address % PAGE_SIZE;
    let len = usize::try_from(in_page).map_or(MAX_INSTRUCTION, |n| n.min(MAX_INSTRUCTION));
    let mut code = vec![0; len];
    match vcpu.translate(address) {
        Some(physical) if memory.read(physical, &mut code).is_ok() => code,
        _ => Vec::new(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {} ended: {}", self.cpu, self.exit)?;
        if let Exit::InternalError { data, .. } = &self.exit
            && !data.is_empty()
        {
            write!(f, " (data {data:x?})")?;
        }
        if let Some(r) = &self.registers {
            write_registers(f, r)?;
        }
        if let Some(s) = &self.system {
            write_system(f, s)?;
        }
        if let (Some(r), false) = (&self.registers, self.code.is_empty()) {
            write!(f, "\n  code")?;
            for byte in &self.code {
                write!(f, " {byte:02x}")?;
            }
            let bits = self.system.as_ref().map_or(64, |s| code_bits(&s.cs));
            write_instruction(f, &self.code, r.rip, bits)?;
        }
        Ok(())
    }
}

fn write_registers(f: &mut fmt::Formatter<'_>, r: &Registers) -> fmt::Result {
    let rows = [
        [("rip", r.rip), ("rsp", r.rsp), ("flags", r.rflags)],
        [("rax", r.rax), ("rbx", r.rbx), ("rcx", r.rcx)],
        [("rdx", r.rdx), ("rsi", r.rsi), ("rdi", r.rdi)],
        [("rbp", r.rbp), ("r8", r.r8), ("r9", r.r9)],
        [("r10", r.r10), ("r11", r.r11), ("r12", r.r12)],
        [("r13", r.r13), ("r14", r.r14), ("r15", r.r15)],
    ];
    rows.iter().try_for_each(|row| write_row(f, row))
}

fn write_system(f: &mut fmt::Formatter<'_>, s: &SystemRegisters) -> fmt::Result {
    write_row(f, &[("cr0", s.cr0), ("cr2", s.cr2), ("cr3", s.cr3)])?;
    write_row(f, &[("cr4", s.cr4), ("efer", s.efer), ("gdt", s.gdt.base)])?;
    write!(
        f,
        "\n  cs {:#06x} (ring {}, {} bits)  ss {:#06x}  idt {:#x}+{:#x}",
        s.cs.selector,
        s.cs.privilege,
        code_bits(&s.cs),
        s.ss.selector,
        s.idt.base,
        s.idt.limit,
    )
}

fn write_row(f: &mut fmt::Formatter<'_>, row: &[(&str, u64)]) -> fmt::Result {
    write!(f, "\n ")?;
    row.iter()
        .try_for_each(|(name, value)| write!(f, " {name:<5} {value:016x} "))
}

fn code_bits(cs: &goldcrest_x86::Segment) -> u32 {
    match (cs.long, cs.default_32) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    }
}

#[cfg(feature = "disassemble")]
fn write_instruction(f: &mut fmt::Formatter<'_>, code: &[u8], rip: u64, bits: u32) -> fmt::Result {
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    let mut decoder = Decoder::with_ip(bits, code, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return write!(f, "\n  (not an instruction)");
    }
    let mut text = String::new();
    NasmFormatter::new().format(&instruction, &mut text);
    write!(f, "\n  {text}")
}

#[cfg(not(feature = "disassemble"))]
fn write_instruction(_: &mut fmt::Formatter<'_>, _: &[u8], _: u64, _: u32) -> fmt::Result {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hypervisor;
    use crate::scripted::Scripted;
    use crate::{Vm, cpuid::Cpuid};
    use goldcrest_memory::{GuestRam, MemoryConfig};

    #[test]
    fn shows_reason_registers_and_instruction() {
        let ram = GuestRam::new(&MemoryConfig::default()).unwrap();
        ram.write(0x5000, &[0x0f, 0xae, 0x10]).unwrap();
        let vm = Scripted::new([]).create_vm(&ram).unwrap();
        let mut vcpu = vm.create_vcpu(0, &Cpuid::default()).unwrap();
        let system = SystemRegisters {
            cs: goldcrest_x86::Segment::code64(8, 0),
            ..SystemRegisters::default()
        };
        vcpu.set_system_registers(&system).unwrap();
        vcpu.set_registers(&Registers {
            rip: 0x5000,
            r15: 0xabc,
            ..Registers::default()
        })
        .unwrap();
        let exit = Exit::InternalError {
            suberror: 1,
            data: vec![],
        };
        let text = Report::new(3, exit, &vcpu, &ram.view()).to_string();
        assert!(text.starts_with("cpu 3 ended: the hypervisor cannot emulate an instruction"));
        assert!(text.contains("rip   0000000000005000"), "{text}");
        assert!(text.contains("r15   0000000000000abc"), "{text}");
        assert!(text.contains("code 0f ae 10"), "{text}");
        #[cfg(feature = "disassemble")]
        assert!(text.contains("ldmxcsr [rax]"), "{text}");
    }

    #[test]
    fn code_outside_ram_is_left_out() {
        let ram = GuestRam::new(&MemoryConfig::default()).unwrap();
        let vm = Scripted::new([]).create_vm(&ram).unwrap();
        let mut vcpu = vm.create_vcpu(0, &Cpuid::default()).unwrap();
        for rip in [u64::MAX, 1 << 40, (128 << 20) - 1] {
            vcpu.set_registers(&Registers {
                rip,
                ..Registers::default()
            })
            .unwrap();
            let text = Report::new(0, Exit::Shutdown, &vcpu, &ram.view()).to_string();
            assert!(text.contains("triple fault"), "{text}");
        }
    }
}
