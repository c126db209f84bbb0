//! What a guest's `cpuid` instruction says (Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E).

use serde::{Deserialize, Serialize};

/// One leaf or subleaf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub struct CpuidEntry {
    /// The leaf: `eax` before the instruction.
    pub leaf: u32,
    /// The subleaf: `ecx` before the instruction, where it matters.
    pub subleaf: Option<u32>,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// All leaves of a CPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpuid {
    /// The leaves, in no particular order.
    pub entries: Vec<CpuidEntry>,
}

/// Leaf 1 ECX.
const MONITOR: u32 = 1 << 3;
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: the logical processor count in EBX is valid.
const HTT: u32 = 1 << 28;
/// Leaf 6 EAX: the local APIC's timer runs always.
const ARAT: u32 = 1 << 2;
/// Leaf 8000_0001h ECX.
const CMP_LEGACY: u32 = 1 << 1;
const SVM: u32 = 1 << 2;
/// Leaf 8000_0001h EDX.
const PAGE_1GB: u32 = 1 << 26;

/// Types of level in leaf 0Bh ECX[15:8].
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

impl Cpuid {
    /// The leaf, or its subleaf 0.
    pub fn leaf(&self, leaf: u32) -> Option<&CpuidEntry> {
        self.entries
            .iter()
            .find(|e| e.leaf == leaf && matches!(e.subleaf, None | Some(0)))
    }

    /// Whether 1 GiB pages can be used.
    pub fn has_gigabyte_pages(&self) -> bool {
        self.leaf(0x8000_0001)
            .is_some_and(|e| e.edx & PAGE_1GB != 0)
    }

    /// Takes away what guests are not given (nested virtualization, MONITOR, performance counters) and adds what the
    /// local APIC has.
    pub(crate) fn filter(&mut self, tsc_deadline: bool) {
        // 5: MONITOR. 0Ah: performance counters. 0Bh, 1Fh: set anew per CPU. 12h: enclaves. 14h: processor trace.
        self.entries
            .retain(|e| !matches!(e.leaf, 0x5 | 0xa | 0xb | 0x12 | 0x14 | 0x1f));
        for entry in &mut self.entries {
            match entry.leaf {
                0x1 => {
                    entry.ecx &= !(MONITOR | VMX);
                    entry.ecx |= HYPERVISOR | X2APIC;
                    if tsc_deadline {
                        entry.ecx |= TSC_DEADLINE;
                    }
                }
                // Of thermal and power, that the timer never stops: else Linux has no precise timers on Intel.
                0x6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & ARAT, 0, 0, 0),
                0x8000_0001 => entry.ecx &= !SVM,
                _ => {}
            }
        }
    }

    /// The leaves of CPU `id` of `count`: its number, and a topology of one socket with `count` cores of one thread.
    pub fn for_cpu(&self, id: u32, count: u32) -> Self {
        let mut cpuid = self.clone();
        let count = count.clamp(1, 255);
        // Bits of the APIC identifier that number cores.
        let core_bits = count.next_power_of_two().trailing_zeros();
        let last_core = count.saturating_sub(1);
        for entry in &mut cpuid.entries {
            match entry.leaf {
                0x1 => {
                    entry.ebx =
                        entry.ebx & 0x0000_ffff | (count.min(255) << 16) | (id.min(255) << 24);
                    entry.edx = with(entry.edx, HTT, count > 1);
                }
                // EAX[31:26]: cores less one; EAX[25:14]: threads that share the cache, less one.
                0x4 if entry.eax & 0x1f != 0 => {
                    let shared = cache_sharers(entry.eax, last_core);
                    entry.eax =
                        entry.eax & 0x3fff | (shared.min(0xfff) << 14) | (last_core.min(63) << 26);
                }
                0x8000_0001 => entry.ecx = with(entry.ecx, CMP_LEGACY, count > 1),
                // ECX[15:12]: bits of the APIC identifier; ECX[7:0]: cores less one.
                0x8000_0008 => {
                    entry.ecx = entry.ecx & !0xf0ff | (core_bits << 12) | last_core.min(255);
                }
                0x8000_001d if entry.eax & 0x1f != 0 => {
                    let shared = cache_sharers(entry.eax, last_core);
                    entry.eax = entry.eax & 0x3fff | (shared.min(0xfff) << 14);
                }
                // EBX: core number, one thread each; ECX: one node.
                0x8000_001e => {
                    (entry.eax, entry.ebx, entry.ecx) = (id, id.min(255), 0);
                }
                _ => {}
            }
        }
        cpuid.add_topology(0xb, id, count, core_bits);
        cpuid
    }

    /// The extended topology leaf (SDM vol. 2A, leaf 0Bh): threads, then cores.
    fn add_topology(&mut self, leaf: u32, id: u32, count: u32, core_bits: u32) {
        let level = |subleaf: u32, shift, processors, kind: u32| CpuidEntry {
            leaf,
            subleaf: Some(subleaf),
            eax: shift,
            ebx: processors,
            ecx: subleaf | kind << 8,
            edx: id,
        };
        self.entries.extend([
            level(0, 0, 1, LEVEL_SMT),
            level(1, core_bits, count, LEVEL_CORE),
            level(2, 0, 0, 0),
        ]);
        let highest = self.leaf(0).map_or(0, |e| e.eax);
        if highest < leaf
            && let Some(entry) = self.entries.iter_mut().find(|e| e.leaf == 0)
        {
            entry.eax = leaf;
        }
    }
}

/// How many CPUs beside the asking one share a cache: all share level 3 and above, none share what is below.
fn cache_sharers(eax: u32, last_core: u32) -> u32 {
    if eax >> 5 & 7 >= 3 { last_core } else { 0 }
}

fn with(value: u32, bit: u32, set: bool) -> u32 {
    if set { value | bit } else { value & !bit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Cpuid {
        let entry = |leaf, subleaf, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
            leaf,
            subleaf,
            eax,
            ebx,
            ecx,
            edx,
        };
        Cpuid {
            entries: vec![
                entry(0, None, [0x10, 0, 0, 0]),
                entry(1, None, [0, 0x0503_1234, VMX | MONITOR, 0]),
                entry(4, Some(0), [0xfc00_4021, 0, 0, 0]),
                entry(4, Some(3), [0xfc00_4063, 0, 0, 0]),
                entry(0xa, None, [1, 1, 1, 1]),
                entry(0xb, Some(0), [9, 9, 9, 9]),
                entry(0x8000_0001, None, [0, 0, SVM, PAGE_1GB]),
                entry(0x8000_0008, None, [0, 0, 0xf0ff, 0]),
                entry(0x8000_001e, None, [7, 0x107, 7, 0]),
            ],
        }
    }

    #[test]
    fn guests_get_no_nested_virtualization_and_no_counters() {
        let mut cpuid = host();
        cpuid.filter(true);
        let one = cpuid.leaf(1).unwrap();
        assert_eq!(one.ecx, HYPERVISOR | X2APIC | TSC_DEADLINE);
        assert_eq!(cpuid.leaf(0x8000_0001).unwrap().ecx, 0);
        assert!(cpuid.leaf(0xa).is_none());
        assert!(cpuid.leaf(0xb).is_none());
        assert!(cpuid.has_gigabyte_pages());
    }

    #[test]
    fn topology_is_one_socket_of_single_threaded_cores() {
        let mut host = host();
        host.filter(false);
        let cpu = host.for_cpu(2, 3);
        let one = cpu.leaf(1).unwrap();
        assert_eq!(one.ebx, 0x0203_1234);
        assert_ne!(one.edx & HTT, 0);
        let caches: Vec<_> = cpu.entries.iter().filter(|e| e.leaf == 4).collect();
        assert_eq!(caches[0].eax >> 14, 2 << 12, "level 1 is private");
        assert_eq!(caches[1].eax >> 14, 2 << 12 | 2, "level 3 is shared");
        let levels: Vec<_> = cpu
            .entries
            .iter()
            .filter(|e| e.leaf == 0xb)
            .map(|e| (e.eax, e.ebx, e.ecx, e.edx))
            .collect();
        assert_eq!(levels, [(0, 1, 0x100, 2), (2, 3, 0x201, 2), (0, 0, 2, 2)]);
        assert_eq!(cpu.leaf(0x8000_0008).unwrap().ecx, 0x2002);
        let node = cpu.leaf(0x8000_001e).unwrap();
        assert_eq!((node.eax, node.ebx, node.ecx), (2, 2, 0));
    }

    #[test]
    fn one_cpu_has_no_siblings() {
        let cpu = host().for_cpu(0, 1);
        assert_eq!(cpu.leaf(1).unwrap().edx & HTT, 0);
        assert_eq!(cpu.leaf(0x8000_0001).unwrap().ecx & CMP_LEGACY, 0);
        assert_eq!(cpu.leaf(0x8000_0008).unwrap().ecx, 0);
    }
}
