//! A machine that is none: for tests and fuzzers of what stands above it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use goldcrest_monitor::{Metrics, Mmds};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_virtio_balloon::BalloonStatus;

use crate::model::{
    BootSource, Drive, InstanceState, SnapshotCreate, SnapshotLoad, VmConfiguration,
};
use crate::{Fault, Machine};

/// A machine that does what it is asked, without a guest, and writes down what that was.
#[derive(Debug, Clone, Default)]
pub struct ScriptedMachine {
    /// What it was asked, in order.
    pub asked: Vec<String>,
    /// Whether it fails at whatever it is asked next.
    pub fails: bool,
    started: bool,
    paused: bool,
}

impl ScriptedMachine {
    fn note(&mut self, what: impl Into<String>) -> Result<(), Fault> {
        self.asked.push(what.into());
        match self.fails {
            true => Err(Fault::new("it fails")),
            false => Ok(()),
        }
    }
}

impl Machine for ScriptedMachine {
    fn check_boot_source(&self, source: &BootSource) -> Result<(), Fault> {
        match source.kernel_image_path == Path::new("missing") {
            true => Err(Fault::new("there is no such kernel")),
            false => Ok(()),
        }
    }

    fn check_drive(&self, drive: &Drive) -> Result<(), Fault> {
        match drive.path_on_host.as_deref() == Some(Path::new("missing")) {
            true => Err(Fault::new("there is no such disk")),
            false => Ok(()),
        }
    }

    fn start(
        &mut self,
        config: &VmConfiguration,
        metadata: Option<&Arc<Mmds>>,
    ) -> Result<(), Fault> {
        let metadata = if metadata.is_some() {
            " and metadata"
        } else {
            ""
        };
        self.note(format!(
            "start with {} drives{metadata}",
            config.drives.len()
        ))?;
        self.started = true;
        Ok(())
    }

    fn state(&self) -> InstanceState {
        match (self.started, self.paused) {
            (false, _) => InstanceState::NotStarted,
            (true, false) => InstanceState::Running,
            (true, true) => InstanceState::Paused,
        }
    }

    fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    fn life(&self) -> (Option<Duration>, Option<String>) {
        (self.started.then_some(Duration::from_secs(1)), None)
    }

    fn pause(&mut self) -> Result<(), Fault> {
        self.note("pause")?;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Fault> {
        self.note("resume")?;
        self.paused = false;
        Ok(())
    }

    fn stop(&mut self) {
        self.asked.push("stop".into());
    }

    fn press_ctrl_alt_del(&mut self) -> Result<(), Fault> {
        self.note("press Ctrl-Alt-Del")
    }

    fn create_snapshot(&mut self, request: &SnapshotCreate) -> Result<(), Fault> {
        self.note(format!("save to {}", request.snapshot_path.display()))
    }

    fn load_snapshot(
        &mut self,
        request: &SnapshotLoad,
        _: &Arc<Mmds>,
    ) -> Result<VmConfiguration, Fault> {
        self.note(format!("load {}", request.snapshot_path.display()))?;
        self.started = true;
        self.paused = !request.resume_vm;
        Ok(VmConfiguration::default())
    }

    fn update_drive(
        &mut self,
        index: usize,
        rate: Option<RateConfig>,
        path: Option<&Path>,
    ) -> Result<(), Fault> {
        if path == Some(Path::new("missing")) {
            return Err(Fault::new("there is no such disk"));
        }
        let rate = rate.map(|rate| rate.to_string());
        self.note(format!("drive {index}: {rate:?}, {path:?}"))
    }

    fn update_network(
        &mut self,
        index: usize,
        receive: Option<RateConfig>,
        send: Option<RateConfig>,
    ) -> Result<(), Fault> {
        let text = |rate: Option<RateConfig>| rate.map(|rate| rate.to_string());
        self.note(format!(
            "card {index}: {:?}, {:?}",
            text(receive),
            text(send)
        ))
    }

    fn update_balloon(
        &mut self,
        target: Option<u64>,
        interval: Option<Duration>,
    ) -> Result<(), Fault> {
        self.note(format!("balloon: {target:?}, {interval:?}"))
    }

    fn balloon(&mut self) -> Result<BalloonStatus, Fault> {
        self.note("balloon's status")?;
        Ok(BalloonStatus::default())
    }
}
