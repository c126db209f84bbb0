//! A machine in files: [`Control::snapshot`](crate::Control::snapshot) writes them,
//! [`Machine::restore`](crate::Machine::restore) makes a machine from them that goes on.

mod description;
mod error;
mod files;
mod restore_config;
mod saver;

pub(crate) use description::{ConsoleEnd, Description, path_bytes};
pub use error::SnapshotError;
pub use files::{SnapshotFiles, SnapshotKind, SnapshotReport};
pub use restore_config::{Rebinding, RestoreConfig, WallClock};
pub(crate) use saver::Saver;
