//! What is said about a trap that nobody handles.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::TrapFrame;
use crate::exit::{exit, status};

/// Set while a report is being made: a trap within it must not make another.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// Prints what happened and ends the machine.
pub(super) fn fatal(frame: &TrapFrame) -> ! {
    if !REPORTING.swap(true, Ordering::Relaxed) {
        crate::println!("{}", Report(frame));
    }
    exit(status::FAULT)
}

/// Formats a frame as a report.
struct Report<'a>(&'a TrapFrame);

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = self.0;
        write!(
            out,
            "fault: {} (vector {}, error code {:#x})",
            name(f.vector),
            f.vector,
            f.error_code
        )?;
        if f.vector == u64::from(super::vector::PAGE_FAULT) {
            write!(
                out,
                "\n  {} {:#x}: {}",
                access(f.error_code),
                f.cr2,
                cause(f.error_code)
            )?;
        }
        write!(out, "\n  in ring {} at rip {:#x}", f.cs & 3, f.rip)?;
        let registers = [
            ("rax", f.rax),
            ("rbx", f.rbx),
            ("rcx", f.rcx),
            ("rdx", f.rdx),
            ("rsi", f.rsi),
            ("rdi", f.rdi),
            ("rbp", f.rbp),
            ("rsp", f.rsp),
            ("r8 ", f.r8),
            ("r9 ", f.r9),
            ("r10", f.r10),
            ("r11", f.r11),
            ("r12", f.r12),
            ("r13", f.r13),
            ("r14", f.r14),
            ("r15", f.r15),
            ("rip", f.rip),
            ("rfl", f.rflags),
            ("cr2", f.cr2),
            ("cs ", f.cs),
            ("ss ", f.ss),
        ];
        for (index, (name, value)) in registers.iter().enumerate() {
            let before = if index % 3 == 0 { "\n " } else { "" };
            write!(out, "{before} {name} {value:016x}")?;
        }
        Ok(())
    }
}

/// The name of an exception (SDM vol. 3A §6.15).
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point exception",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point exception",
        21 => "control protection exception",
        9 | 15 | 20 | 22..32 => "exception",
        _ => "unexpected interrupt",
    }
}

/// What was attempted, from a page fault's error code (SDM vol. 3A §4.7).
fn access(error_code: u64) -> &'static str {
    match (error_code & 1 << 4 != 0, error_code & 1 << 1 != 0) {
        (true, _) => "executing",
        (_, true) => "writing to",
        _ => "reading",
    }
}

/// Why it was refused.
fn cause(error_code: u64) -> &'static str {
    if error_code & 1 == 0 {
        "nothing is mapped there"
    } else {
        "the page does not allow it"
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const FRAME: TrapFrame = TrapFrame {
        r15: 15,
        r14: 14,
        r13: 13,
        r12: 12,
        r11: 11,
        r10: 10,
        r9: 9,
        r8: 8,
        rdi: 7,
        rsi: 6,
        rbp: 5,
        rbx: 4,
        rdx: 3,
        rcx: 2,
        rax: 1,
        cr2: 0xdead_b000,
        vector: 14,
        error_code: 6,
        rip: 0x10_1234,
        cs: 0x23,
        rflags: 0x3202,
        rsp: 0x8_fff0,
        ss: 0x1b,
    };

    #[test]
    fn a_page_fault_says_what_where_and_why() {
        let report = Report(&FRAME).to_string();
        assert!(report.starts_with(
            "fault: page fault (vector 14, error code 0x6)\n  writing to 0xdeadb000: nothing is mapped there\n  in ring 3 at rip 0x101234\n"
        ));
        assert!(
            report.contains("rax 0000000000000001 rbx 0000000000000004 rcx 0000000000000002\n")
        );
        assert!(report.ends_with("cr2 00000000deadb000 cs  0000000000000023 ss  000000000000001b"));
    }

    #[test]
    fn other_faults_have_no_address() {
        let report = Report(&TrapFrame {
            vector: 6,
            error_code: 0,
            ..FRAME
        })
        .to_string();
        assert!(
            report.starts_with("fault: invalid opcode (vector 6, error code 0x0)\n  in ring 3")
        );
        assert_eq!(name(200), "unexpected interrupt");
        assert_eq!(
            (access(0x15), cause(0x15)),
            ("executing", "the page does not allow it")
        );
    }
}
