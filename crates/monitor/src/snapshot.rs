//! A machine in files: [`Control::snapshot`](crate::Control::snapshot) writes them,
//! [`Machine::restore`](crate::Machine::restore) makes a machine from them that goes on.

mod description;
mod error;
mod files;
mod info;
mod restore;
mod restore_config;
mod saver;
mod state;
mod store;
mod subject;
mod take;

pub(crate) use description::{ConsoleEnd, Description, path_bytes};
pub use error::SnapshotError;
pub use files::{SnapshotFiles, SnapshotKind, SnapshotReport};
pub use info::{DeviceInfo, SnapshotInfo};
pub(crate) use restore::{Cpus, Saved};
pub use restore_config::{Rebinding, RestoreConfig, WallClock};
pub(crate) use saver::Saver;
pub(crate) use state::MachineState;
pub(crate) use store::{open_image, read_state};
pub(crate) use subject::{MSR_TSC, Subject};
pub(crate) use take::take;
