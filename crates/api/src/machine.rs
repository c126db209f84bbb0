//! What the API drives.

use std::sync::Arc;
use std::time::Duration;

use goldcrest_monitor::{Metrics, Mmds};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_balloon::BalloonStatus;

use crate::Fault;
use crate::model::{
    BootSource, Drive, InstanceState, SnapshotCreate, SnapshotLoad, VmConfiguration,
};

/// A machine as the API drives it: one that is described, started once, and then controlled until it ends.
///
/// [`Runner`](crate::Runner) is the one that runs; fuzzers and tests have others.
pub trait Machine: Send {
    /// Whether what is to be booted can be read.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot.
    fn check_boot_source(&self, source: &BootSource) -> Result<(), Fault>;

    /// Whether the file of a disk can be opened.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot.
    fn check_drive(&self, drive: &Drive) -> Result<(), Fault>;

    /// Makes the machine and has it run, with a metadata service for the cards that are to have it. When this returns, it is at its first instruction or beyond.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot be made: it is as if nothing was asked then.
    fn start(
        &mut self,
        config: &VmConfiguration,
        metadata: Option<&Arc<Mmds>>,
    ) -> Result<(), Fault>;

    /// What it does. It may end by itself at any time, and is told to run then.
    fn state(&self) -> InstanceState;

    /// What it has done.
    fn metrics(&self) -> Metrics;

    /// How long ago it was started, and how it ended if it has.
    fn life(&self) -> (Option<Duration>, Option<String>);

    /// Halts it: when this returns, it does nothing.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it does not halt.
    fn pause(&mut self) -> Result<(), Fault>;

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot.
    fn resume(&mut self) -> Result<(), Fault>;

    /// Ends it.
    fn stop(&mut self);

    /// Presses Ctrl-Alt-Del on its keyboard.
    ///
    /// # Errors
    ///
    /// [`Fault`] if its guest does not read what is typed.
    fn press_ctrl_alt_del(&mut self) -> Result<(), Fault>;

    /// Saves it, which is paused.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot be.
    fn create_snapshot(&mut self, request: &SnapshotCreate) -> Result<(), Fault>;

    /// Makes it from a snapshot, with this metadata service for the cards that had one: what it is configured as then.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot be.
    fn load_snapshot(
        &mut self,
        request: &SnapshotLoad,
        metadata: &Arc<Mmds>,
    ) -> Result<VmConfiguration, Fault>;

    /// Gives a disk other limits, or another file. `index` is its place among the disks.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot have that.
    fn update_drive(
        &mut self,
        index: usize,
        rate: Option<RateConfig>,
        path: Option<&std::path::Path>,
    ) -> Result<(), Fault>;

    /// Gives a network card other limits: of what it receives and of what it sends. `index` is its place among the cards.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot have that.
    fn update_network(
        &mut self,
        index: usize,
        receive: Option<RateConfig>,
        send: Option<RateConfig>,
    ) -> Result<(), Fault>;

    /// Asks its balloon for another size in bytes, or for statistics at another interval.
    ///
    /// # Errors
    ///
    /// [`Fault`] if it cannot have that.
    fn update_balloon(
        &mut self,
        target: Option<u64>,
        interval: Option<Duration>,
    ) -> Result<(), Fault>;

    /// What its balloon is and has done.
    ///
    /// # Errors
    ///
    /// [`Fault`] if that is not known.
    fn balloon(&mut self) -> Result<BalloonStatus, Fault>;
}
