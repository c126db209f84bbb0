//! A CPU that has run, put back to where it was.
//!
//! All that [`restore`](crate::Vcpu::restore) sets is set again. What is left is what a new CPU has by being new: that no
//! access is under way, that its time-stamp counter was never set, and registers that KVM keeps and does not list.

use super::KvmVcpu;
use super::saved::{FAR, MSR_TSC, Nobody, Put};
use crate::{VcpuError, VcpuState};

/// Registers that guests can write and `KVM_GET_MSR_INDEX_LIST` may lack (SDM vol. 4 §2.1): memory types and machine
/// checks. They are zero in a new CPU.
const UNLISTED: [(u32, usize); 7] = [
    (0x17a, 1),   // IA32_MCG_STATUS
    (0x200, 16),  // IA32_MTRR_PHYSBASE0 to IA32_MTRR_PHYSMASK7
    (0x250, 1),   // IA32_MTRR_FIX64K_00000
    (0x258, 2),   // IA32_MTRR_FIX16K_80000 and _A0000
    (0x268, 8),   // IA32_MTRR_FIX4K_C0000 to _F8000
    (0x2ff, 1),   // IA32_MTRR_DEF_TYPE
    (0x400, 128), // IA32_MC0_CTL to IA32_MC31_MISC
];

impl KvmVcpu {
    pub(super) fn put_again(&mut self, state: &VcpuState) -> Result<Vec<u32>, VcpuError> {
        // What the guest has read or written goes nowhere.
        self.complete_access(&mut Nobody::default())?;
        self.kicker.returned();
        // Takes in what other CPUs have sent to it (INIT, SIPI), which is pending otherwise.
        self.fd
            .get_mp_state()
            .map_err(VcpuError::call("KVM_GET_MP_STATE"))?;
        let mut before = match self.unlisted.take() {
            Some(unlisted) => unlisted,
            None => unlisted(),
        };
        if self.first {
            before.push((MSR_TSC, FAR));
        }
        let used = Put {
            new: false,
            taken: true,
        };
        let refused = self.put(state, &before, used)?;
        before.retain(|msr| msr.0 != MSR_TSC && !refused.contains(&msr.0));
        self.unlisted = Some(before);
        let listed = |index: &u32| state.msrs.iter().any(|msr| msr.0 == *index);
        Ok(refused.into_iter().filter(listed).collect())
    }
}

fn unlisted() -> Vec<(u32, u64)> {
    let ranges = UNLISTED
        .iter()
        .flat_map(|(first, count)| (*first..).take(*count));
    ranges.map(|index| (index, 0)).collect()
}
