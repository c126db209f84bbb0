//! A machine in files: [`Control::snapshot`](crate::Control::snapshot) writes them,
//! [`Machine::restore`](crate::Machine::restore) makes a machine from them that goes on.

mod archive;
mod chain;
mod description;
mod error;
mod files;
mod flatten;
mod info;
mod lazy;
mod lineage;
pub mod memory_message;
mod restore;
mod restore_config;
mod saver;
mod serve;
mod state;
mod store;
mod subject;
mod take;
mod working_set;

pub use archive::{ArchiveInfo, archive_info, pack, pack_file, unpack, verify_archive};
pub(crate) use chain::Chain;
pub(crate) use description::{ConsoleEnd, Description, MetadataState, path_bytes};
pub use error::SnapshotError;
pub use files::{SnapshotFiles, SnapshotKind, SnapshotReport};
pub use flatten::flatten;
pub use info::{BaseInfo, DeviceInfo, SnapshotInfo};
pub(crate) use lazy::Lazy;
pub(crate) use lineage::Lineage;
pub(crate) use restore::{Cpus, Saved};
pub use restore_config::{Rebinding, RestoreConfig, WallClock};
pub(crate) use saver::Saver;
pub use serve::PageServer;
pub(crate) use state::MachineState;
pub(crate) use subject::{MSR_TSC, Subject};
pub(crate) use take::take;
pub use working_set::parse as parse_working_set;
pub(crate) use working_set::{Recording, load as load_working_set};
