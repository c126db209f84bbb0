//! What of the host's processor guests see otherwise.

use goldcrest_vcpu::Vcpu;
use goldcrest_vcpu::cpuid::{Cpuid, CpuidEntry};

use crate::MonitorError;

/// Changes to what the processor is to its guest, the same for all CPUs: so that hosts of several kinds look alike, or a
/// feature is not seen. What Goldcrest itself sets (topology, numbers of CPUs) comes after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuTemplate {
    /// To the `cpuid` instruction.
    pub cpuid: Vec<CpuidChange>,
    /// To model-specific registers, when the guest starts.
    pub msrs: Vec<MsrChange>,
}

/// A change to a register of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidChange {
    /// The leaf: `eax` before the instruction.
    pub leaf: u32,
    /// The subleaf: `ecx` before the instruction.
    pub subleaf: u32,
    /// Which register.
    pub register: CpuidRegister,
    /// Bits that are set as `value` has them.
    pub mask: u32,
    /// Their values.
    pub value: u32,
}

/// A register that the `cpuid` instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A change to a model-specific register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrChange {
    /// Which.
    pub index: u32,
    /// Bits that are set as `value` has them.
    pub mask: u64,
    /// Their values.
    pub value: u64,
}

impl CpuTemplate {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.cpuid.is_empty() && self.msrs.is_empty()
    }

    /// Changes what `cpuid` says.
    pub(crate) fn apply(&self, cpuid: &mut Cpuid) -> Result<(), MonitorError> {
        for change in &self.cpuid {
            let is_it = |entry: &&mut CpuidEntry| {
                entry.leaf == change.leaf && entry.subleaf.unwrap_or(0) == change.subleaf
            };
            let entry = cpuid.entries.iter_mut().find(is_it);
            let entry = entry.ok_or(MonitorError::CpuidLeaf {
                leaf: change.leaf,
                subleaf: change.subleaf,
            })?;
            let register = match change.register {
                CpuidRegister::Eax => &mut entry.eax,
                CpuidRegister::Ebx => &mut entry.ebx,
                CpuidRegister::Ecx => &mut entry.ecx,
                CpuidRegister::Edx => &mut entry.edx,
            };
            *register = *register & !change.mask | change.value & change.mask;
        }
        Ok(())
    }

    /// Changes registers of a CPU that has not run.
    pub(crate) fn set_msrs(&self, vcpu: &mut impl Vcpu) -> Result<(), MonitorError> {
        for change in &self.msrs {
            let before = vcpu.msr(change.index)?;
            let value = before & !change.mask | change.value & change.mask;
            vcpu.set_msrs(&[(change.index, value)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(leaf: u32, subleaf: u32, mask: u32, value: u32) -> CpuTemplate {
        let register = CpuidRegister::Ecx;
        CpuTemplate {
            cpuid: vec![CpuidChange {
                leaf,
                subleaf,
                register,
                mask,
                value,
            }],
            ..CpuTemplate::default()
        }
    }

    #[test]
    fn bits_of_the_leaf_change_and_no_others() {
        let entry = |leaf, subleaf| CpuidEntry {
            leaf,
            subleaf,
            ecx: 0b1010,
            ..CpuidEntry::default()
        };
        let cpuid = Cpuid {
            entries: vec![entry(1, None), entry(7, Some(0)), entry(7, Some(1))],
        };
        for (leaf, subleaf, at) in [(1, 0, 0), (7, 0, 1), (7, 1, 2)] {
            let mut changed = cpuid.clone();
            let template = change(leaf, subleaf, 0b0110, 0b1100);
            template.apply(&mut changed).unwrap();
            for (index, entry) in changed.entries.iter().enumerate() {
                let wanted = if index == at { 0b1100 } else { 0b1010 };
                assert_eq!(entry.ecx, wanted, "{leaf}, {subleaf}");
                assert_eq!((entry.eax, entry.ebx, entry.edx), (0, 0, 0));
            }
        }
        let error = change(7, 2, 1, 1).apply(&mut cpuid.clone()).unwrap_err();
        assert!(
            error.to_string().contains("leaf 0x7, subleaf 0x2"),
            "{error}"
        );
    }
}
