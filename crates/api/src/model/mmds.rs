//! The metadata service.

use std::net::Ipv4Addr;

use goldcrest_monitor::{MmdsConfig, MmdsVersion};
use serde::{Deserialize, Serialize};

/// `PUT /mmds/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfiguration {
    /// Whether the guest needs a token.
    #[serde(default)]
    pub version: MetadataVersion,
    /// The cards on which the guest finds the service.
    pub network_interfaces: Vec<String>,
    /// Its address there.
    #[serde(default)]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Answers are text whatever the guest accepts.
    #[serde(default)]
    pub imds_compat: bool,
}

/// Whether the guest needs a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataVersion {
    /// It does not.
    #[default]
    V1,
    /// It does.
    V2,
}

impl MmdsConfiguration {
    /// That of a service on no cards.
    pub fn of(config: &MmdsConfig) -> Self {
        Self {
            version: match config.version {
                MmdsVersion::V1 => MetadataVersion::V1,
                MmdsVersion::V2 => MetadataVersion::V2,
            },
            network_interfaces: Vec::new(),
            ipv4_address: Some(config.address),
            imds_compat: config.imds_compat,
        }
    }

    /// The service's configuration, with what is not said here as in `old`.
    pub fn config(&self, old: MmdsConfig) -> MmdsConfig {
        MmdsConfig {
            version: match self.version {
                MetadataVersion::V1 => MmdsVersion::V1,
                MetadataVersion::V2 => MmdsVersion::V2,
            },
            address: self.ipv4_address.unwrap_or(MmdsConfig::default().address),
            imds_compat: self.imds_compat,
            ..old
        }
    }
}
