//! Between our plain data and KVM's structures.

use goldcrest_x86::{DescriptorTable, Registers, Segment, SystemRegisters};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_dtable, kvm_regs, kvm_segment,
    kvm_sregs,
};

use crate::cpuid::{Cpuid, CpuidEntry};

pub(super) fn from_kvm_cpuid(cpuid: &CpuId) -> Cpuid {
    let entries = cpuid.as_slice().iter().map(|e| CpuidEntry {
        leaf: e.function,
        subleaf: (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(e.index),
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
    });
    Cpuid {
        entries: entries.collect(),
    }
}

/// None if there are more leaves than KVM takes.
pub(super) fn to_kvm_cpuid(cpuid: &Cpuid) -> Option<CpuId> {
    let entries: Vec<_> = cpuid
        .entries
        .iter()
        .map(|e| kvm_cpuid_entry2 {
            function: e.leaf,
            index: e.subleaf.unwrap_or(0),
            flags: e.subleaf.map_or(0, |_| KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
            eax: e.eax,
            ebx: e.ebx,
            ecx: e.ecx,
            edx: e.edx,
            ..kvm_cpuid_entry2::default()
        })
        .collect();
    CpuId::from_entries(&entries).ok()
}

pub(super) fn from_kvm_regs(r: &kvm_regs) -> Registers {
    Registers {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

pub(super) fn to_kvm_regs(r: &Registers) -> kvm_regs {
    kvm_regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

pub(super) fn from_kvm_sregs(s: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        cs: from_segment(&s.cs),
        ds: from_segment(&s.ds),
        es: from_segment(&s.es),
        fs: from_segment(&s.fs),
        gs: from_segment(&s.gs),
        ss: from_segment(&s.ss),
        tr: from_segment(&s.tr),
        ldt: from_segment(&s.ldt),
        gdt: from_table(&s.gdt),
        idt: from_table(&s.idt),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
    }
}

pub(super) fn to_kvm_sregs(s: &SystemRegisters, apic_base: u64) -> kvm_sregs {
    kvm_sregs {
        cs: to_segment(&s.cs),
        ds: to_segment(&s.ds),
        es: to_segment(&s.es),
        fs: to_segment(&s.fs),
        gs: to_segment(&s.gs),
        ss: to_segment(&s.ss),
        tr: to_segment(&s.tr),
        ldt: to_segment(&s.ldt),
        gdt: to_table(s.gdt),
        idt: to_table(s.idt),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

fn from_segment(s: &kvm_segment) -> Segment {
    Segment {
        selector: s.selector,
        base: s.base,
        limit: s.limit,
        kind: s.type_,
        code_or_data: s.s != 0,
        privilege: s.dpl,
        present: s.present != 0,
        long: s.l != 0,
        default_32: s.db != 0,
        granularity: s.g != 0,
        available: s.avl != 0,
        unusable: s.unusable != 0,
    }
}

fn to_segment(s: &Segment) -> kvm_segment {
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.kind,
        present: s.present.into(),
        dpl: s.privilege,
        db: s.default_32.into(),
        s: s.code_or_data.into(),
        l: s.long.into(),
        g: s.granularity.into(),
        avl: s.available.into(),
        unusable: s.unusable.into(),
        padding: 0,
    }
}

fn from_table(t: &kvm_dtable) -> DescriptorTable {
    DescriptorTable {
        base: t.base,
        limit: t.limit,
    }
}

fn to_table(t: DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: t.base,
        limit: t.limit,
        padding: [0; 3],
    }
}
