//! A machine in files: [`Control::snapshot`](crate::Control::snapshot) writes them,
//! [`Machine::restore`](crate::Machine::restore) makes a machine from them that goes on.

mod description;
mod error;
mod files;
mod info;
mod lazy;
mod restore;
mod restore_config;
mod saver;
mod serve;
mod state;
mod store;
mod subject;
mod take;
mod working_set;

pub(crate) use description::{ConsoleEnd, Description, path_bytes};
pub use error::SnapshotError;
pub use files::{SnapshotFiles, SnapshotKind, SnapshotReport};
pub use info::{DeviceInfo, SnapshotInfo};
pub(crate) use lazy::Lazy;
pub(crate) use restore::{Cpus, Saved};
pub use restore_config::{Rebinding, RestoreConfig, WallClock};
pub(crate) use saver::Saver;
pub use serve::PageServer;
pub(crate) use state::MachineState;
pub(crate) use store::{open_image, read_state};
pub(crate) use subject::Subject;
pub(crate) use take::take;
pub(crate) use working_set::{Recording, load as load_working_set};
