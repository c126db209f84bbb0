//! Devices besides disks and balloon.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RateLimiter, TokenBucket};

/// `PUT /network-interfaces/{iface_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its name, the same as in the path.
    pub iface_id: String,
    /// The tap of the host's.
    pub host_dev_name: String,
    /// Its address; one that is chosen at random if none is given.
    #[serde(default)]
    pub guest_mac: Option<String>,
    /// The largest packet that the guest is told of, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// How much the guest may receive.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// How much it may send.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PATCH /network-interfaces/{iface_id}`, of a machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfaceUpdate {
    /// Its name, the same as in the path.
    pub iface_id: String,
    /// How much the guest may receive from now on.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// How much it may send from now on.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PUT /vsock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// A name that nothing depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_id: Option<String>,
    /// The guest's CID.
    pub guest_cid: u64,
    /// The socket that programs on the host connect to.
    pub uds_path: PathBuf,
}

/// `PUT /entropy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// How much the guest may have.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PUT /serial`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// The file or pipe that the serial port's output is written to.
    #[serde(default)]
    pub serial_out_path: Option<PathBuf>,
    /// A limit of it, which is not possible here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucket>,
}
