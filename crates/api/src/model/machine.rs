//! Processors and memory.

use serde::{Deserialize, Serialize};

/// `PUT /machine-config`, and what `GET` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfiguration {
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// Guest RAM in MiB.
    pub mem_size_mib: u64,
    /// Simultaneous multithreading.
    #[serde(default)]
    pub smt: bool,
    /// A named template of processor features: none is known but `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<String>,
    /// Pages that the guest writes to are recorded, for incremental snapshots.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// What pages RAM is made of.
    #[serde(default)]
    pub huge_pages: HugePages,
}

impl Default for MachineConfiguration {
    /// One CPU and 128 MiB.
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
        }
    }
}

/// `PATCH /machine-config`: what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfigurationUpdate {
    /// Virtual CPUs.
    #[serde(default)]
    pub vcpu_count: Option<u32>,
    /// Guest RAM in MiB.
    #[serde(default)]
    pub mem_size_mib: Option<u64>,
    /// Simultaneous multithreading.
    #[serde(default)]
    pub smt: Option<bool>,
    /// A named template of processor features.
    #[serde(default)]
    pub cpu_template: Option<String>,
    /// Pages that the guest writes to are recorded.
    #[serde(default)]
    pub track_dirty_pages: Option<bool>,
    /// What pages RAM is made of.
    #[serde(default)]
    pub huge_pages: Option<HugePages>,
}

impl MachineConfigurationUpdate {
    /// What `old` becomes.
    pub fn apply(self, old: &MachineConfiguration) -> MachineConfiguration {
        MachineConfiguration {
            vcpu_count: self.vcpu_count.unwrap_or(old.vcpu_count),
            mem_size_mib: self.mem_size_mib.unwrap_or(old.mem_size_mib),
            smt: self.smt.unwrap_or(old.smt),
            cpu_template: self.cpu_template.or_else(|| old.cpu_template.clone()),
            track_dirty_pages: self.track_dirty_pages.unwrap_or(old.track_dirty_pages),
            huge_pages: self.huge_pages.unwrap_or(old.huge_pages),
        }
    }
}

/// What pages RAM is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Pages of 4 KiB.
    #[default]
    None,
    /// Huge ones where the host finds them.
    Transparent,
    /// Pages of 2 MiB from the host's reserved pool.
    #[serde(rename = "2M")]
    TwoMiB,
}
