//! What a person sets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::MmdsError;

/// How long the document may be, in bytes of JSON without white space, unless another limit is set.
pub const DEFAULT_LIMIT: usize = 51_200;
/// Where guests expect the service.
pub const DEFAULT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The greatest limit that can be set: a response is made in memory as a whole.
pub const MAX_LIMIT: usize = 16 << 20;

/// How a metadata service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmdsConfig {
    /// Whether a token is asked for.
    pub version: MmdsVersion,
    /// The service's address on the guest's link: a link-local one (RFC 3927 §2.1). It is taken when a card is made, so
    /// a machine that runs keeps the one that it began with.
    pub address: Ipv4Addr,
    /// How long the document may be, in bytes of JSON without white space.
    pub limit: usize,
    /// Answers are text whatever the guest accepts, as the service of Amazon's EC2 answers.
    pub imds_compat: bool,
}

impl Default for MmdsConfig {
    fn default() -> Self {
        Self {
            version: MmdsVersion::default(),
            address: DEFAULT_ADDRESS,
            limit: DEFAULT_LIMIT,
            imds_compat: false,
        }
    }
}

impl MmdsConfig {
    pub(crate) fn check(&self) -> Result<(), MmdsError> {
        // The first and the last 256 addresses of 169.254.0.0/16 are reserved.
        let is_usable =
            matches!(self.address.octets(), [169, 254, third, _] if (1..=254).contains(&third));
        if !is_usable {
            return Err(MmdsError::Address(self.address));
        }
        if self.limit > MAX_LIMIT {
            return Err(MmdsError::Limit {
                limit: self.limit,
                most: MAX_LIMIT,
            });
        }
        Ok(())
    }
}

/// Whether the guest must have a token to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MmdsVersion {
    /// It can have one, and needs none.
    #[default]
    V1,
    /// It needs one, so that a program in the guest that only passes requests on for others cannot read for them.
    V2,
}

impl FromStr for MmdsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "v1" | "V1" => Ok(Self::V1),
            "v2" | "V2" => Ok(Self::V2),
            _ => Err(format!("the version is v1 or v2, not {text:?}")),
        }
    }
}

impl fmt::Display for MmdsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "V1",
            Self::V2 => "V2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_link_can_be_the_services() {
        let refused = |address: [u8; 4]| {
            let config = MmdsConfig {
                address: address.into(),
                ..MmdsConfig::default()
            };
            config.check().map_err(|error| error.to_string()).err()
        };
        for usable in [
            [169, 254, 169, 254],
            [169, 254, 1, 0],
            [169, 254, 254, 255],
            [169, 254, 170, 2],
        ] {
            assert_eq!(refused(usable), None);
        }
        for other in [
            [169, 254, 0, 255],
            [169, 254, 255, 0],
            [10, 0, 2, 2],
            [127, 0, 0, 1],
        ] {
            let why = refused(other).unwrap();
            assert!(why.contains("169.254.1.0 to 169.254.254.255"), "{why}");
        }
    }

    #[test]
    fn versions_are_written_as_they_are_read() {
        for version in [MmdsVersion::V1, MmdsVersion::V2] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert!(MmdsVersion::from_str("v3").unwrap_err().contains("\"v3\""));
    }
}
