//! The machine as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::{
    Balloon, BootSource, CpuConfig, Drive, Entropy, Logger, MachineConfiguration, Metrics,
    MmdsConfiguration, NetworkInterface, Serial, Vsock,
};

/// What `GET /` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceInfo {
    /// What it was called when it was started.
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// The version of this program.
    pub vmm_version: String,
    /// The name of this program.
    pub app_name: String,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum InstanceState {
    /// It is being configured.
    #[serde(rename = "Not started")]
    NotStarted,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
}

/// What `GET /version` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The version of Firecracker whose API is spoken.
    pub firecracker_version: String,
}

/// `PUT /actions`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Which.
    pub action_type: ActionType,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ActionType {
    /// That the machine is made and runs.
    InstanceStart,
    /// That metrics are written.
    FlushMetrics,
    /// That Ctrl-Alt-Del is pressed.
    SendCtrlAltDel,
}

/// `PATCH /vm`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// What the machine is to do.
    pub state: VmState,
}

/// What a machine that was started can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum VmState {
    /// To stand still.
    Paused,
    /// To go on.
    Resumed,
}

/// All that is configured: what `GET /vm/config` answers, and what `--config-file` has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfiguration {
    /// The balloon.
    #[serde(default)]
    pub balloon: Option<Balloon>,
    /// Disks, the root device first.
    #[serde(default)]
    pub drives: Vec<Drive>,
    /// What is booted.
    #[serde(default)]
    pub boot_source: Option<BootSource>,
    /// A template of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_config: Option<CpuConfig>,
    /// Where logs go.
    #[serde(default)]
    pub logger: Option<Logger>,
    /// Processors and memory.
    #[serde(default)]
    pub machine_config: Option<MachineConfiguration>,
    /// Where metrics go.
    #[serde(default)]
    pub metrics: Option<Metrics>,
    /// The metadata service.
    #[serde(default)]
    pub mmds_config: Option<MmdsConfiguration>,
    /// Network cards.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Sockets.
    #[serde(default)]
    pub vsock: Option<Vsock>,
    /// The source of entropy.
    #[serde(default)]
    pub entropy: Option<Entropy>,
    /// The serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
}

impl VmConfiguration {
    /// Reads a configuration file. What is null in it is as if it was not there, also what is not known: some clients
    /// write so of what they do not use. A processor template may be in another file, whose path is there then.
    ///
    /// # Errors
    ///
    /// If it is no JSON, or names what there is not.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut parts: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text)?;
        parts.retain(|_, part| !part.is_null());
        if let Some(template) = parts.get_mut("cpu-config")
            && let Some(path) = template.as_str()
        {
            *template = read_template(path)?;
        }
        serde_json::from_slice(&serde_json::to_vec(&parts)?)
    }
}

/// The most bytes of a file with a template.
const MAX_TEMPLATE: u64 = 1 << 20;

fn read_template(path: &str) -> Result<serde_json::Value, serde_json::Error> {
    let failed = |error: io::Error| {
        serde::de::Error::custom(format_args!("cannot read the cpu-config {path}: {error}"))
    };
    let mut text = Vec::new();
    // A named pipe is not waited for.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let read = file.and_then(|file| file.take(MAX_TEMPLATE).read_to_end(&mut text));
    read.map_err(failed)?;
    serde_json::from_slice(&text)
}

/// What `GET /goldcrest/v1/status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What the machine was called when it was started.
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// The process.
    pub pid: u32,
    /// How long ago the machine was started, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// How the machine ended, if it has and the process is still there.
    pub outcome: Option<String>,
}
