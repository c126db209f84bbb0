//! Bodies of requests and answers: fields and their meaning are those of Firecracker's public API.
//!
//! A field that is not known is refused, as there: a client that means something by it would be misled otherwise.

mod balloon;
mod boot;
mod cpu;
mod devices;
mod drive;
mod machine;
mod mmds;
mod observe;
mod rate;
mod snapshot;
mod vm;

pub use balloon::{Balloon, BalloonStatistics, BalloonStatisticsUpdate, BalloonUpdate};
pub use boot::BootSource;
pub use cpu::{CpuConfig, CpuidModifier, MsrModifier, Register, RegisterModifier};
pub use devices::{Entropy, NetworkInterface, NetworkInterfaceUpdate, Serial, Vsock};
pub use drive::{CacheType, Drive, DriveUpdate, IoEngine};
pub use machine::{HugePages, MachineConfiguration, MachineConfigurationUpdate};
pub use mmds::{MetadataVersion, MmdsConfiguration};
pub use observe::{Level, Logger, Metrics};
pub use rate::{RateLimiter, TokenBucket};
pub use snapshot::{
    BackendType, MemoryBackend, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
    VsockOverride,
};
pub use vm::{
    Action, ActionType, InstanceInfo, InstanceState, Status, Version, Vm, VmConfiguration, VmState,
};
