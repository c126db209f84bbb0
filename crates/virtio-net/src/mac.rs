//! Addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NetError;

/// An Ethernet address of one interface: not a group's, and not zero.
///
/// ```
/// use goldcrest_virtio_net::MacAddress;
///
/// let address: MacAddress = "02:00:00:00:00:2a".parse()?;
/// assert_eq!(address.to_string(), "02:00:00:00:00:2a");
/// assert!("ff:ff:ff:ff:ff:ff".parse::<MacAddress>().is_err());
/// # Ok::<(), goldcrest_virtio_net::NetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 6]", into = "[u8; 6]")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// A random one of those that anyone may use ("locally administered").
    ///
    /// # Errors
    ///
    /// [`NetError::Random`] if the host has no random numbers.
    pub fn random() -> Result<Self, NetError> {
        let mut bytes = [0; 6];
        getrandom::fill(&mut bytes).map_err(|error| NetError::Random(error.into()))?;
        let [first, ..] = &mut bytes;
        *first = *first & !1 | 2;
        Ok(Self(bytes))
    }

    /// Its bytes, in the order in which they are sent.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = NetError;

    /// # Errors
    ///
    /// [`NetError::MacGroup`] or [`NetError::MacZero`].
    fn try_from(bytes: [u8; 6]) -> Result<Self, NetError> {
        match bytes {
            [first, ..] if first & 1 != 0 => Err(NetError::MacGroup(text(bytes))),
            [0, 0, 0, 0, 0, 0] => Err(NetError::MacZero),
            _ => Ok(Self(bytes)),
        }
    }
}

impl From<MacAddress> for [u8; 6] {
    fn from(address: MacAddress) -> Self {
        address.0
    }
}

impl FromStr for MacAddress {
    type Err = NetError;

    /// Parses six bytes in hexadecimal, each of two digits, divided by colons or by hyphens.
    ///
    /// # Errors
    ///
    /// [`NetError::MacText`], [`NetError::MacGroup`] or [`NetError::MacZero`].
    fn from_str(text: &str) -> Result<Self, NetError> {
        let malformed = || NetError::MacText(text.to_owned());
        let divider = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(divider);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(malformed)?;
        }
        match parts.next() {
            None => Self::try_from(bytes),
            Some(_) => Err(malformed()),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.0))
    }
}

fn text(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_address_of_an_interface_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "six bytes"),
            ("02:00:00:00:00", "six bytes"),
            ("02:00:00:00:00:00:01", "six bytes"),
            ("2:00:00:00:00:00", "six bytes"),
            ("02:00:00:00:00:+1", "six bytes"),
            ("02:00:00-00:00:01", "six bytes"),
            ("02:00:00:00:00:0g", "six bytes"),
            ("01:00:5e:00:00:01", "group"),
            ("ff:ff:ff:ff:ff:ff", "group"),
            ("00:00:00:00:00:00", "zeros"),
        ] {
            let error = text.parse::<MacAddress>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(
            "02-AB-cd-00-00-01"
                .parse::<MacAddress>()
                .unwrap()
                .to_string(),
            "02:ab:cd:00:00:01"
        );
    }

    #[test]
    fn random_addresses_are_locally_administered_and_differ() {
        let [one, other] = [(); 2].map(|()| MacAddress::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.bytes()[0] & 3, 2);
    }

    proptest! {
        #[test]
        fn what_is_written_parses_the_same(bytes: [u8; 6]) {
            if let Ok(address) = MacAddress::try_from(bytes) {
                prop_assert_eq!(address.to_string().parse::<MacAddress>().unwrap(), address);
            }
        }
    }
}
