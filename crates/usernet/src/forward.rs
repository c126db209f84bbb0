//! Ports of the host that lead to the guest.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Protocol, UsernetError};

/// A port of the host that leads to one of the guest.
///
/// Its text is `tcp:8080:80`, with the host's port first, or `udp:192.0.2.1:53:5353` with the address that is listened
/// on; an address of IPv6 is in brackets, as in `tcp:[::1]:8080:80`. Without one it is 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Which address of the guest is connected to; the one that it gets by DHCP if none is named.
    pub guest: Option<IpAddr>,
    /// Which port of the guest is connected to.
    pub guest_port: u16,
}

impl FromStr for Forward {
    type Err = UsernetError;

    /// Reads a forward as [`Forward`] describes it.
    ///
    /// # Errors
    ///
    /// [`UsernetError::Forward`].
    fn from_str(text: &str) -> Result<Self, UsernetError> {
        parse(text).map_err(|why| UsernetError::Forward {
            text: text.to_owned(),
            why,
        })
    }
}

impl fmt::Display for Forward {
    /// Writes what [`from_str`](Self::from_str) reads, which knows of no address of the guest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.protocol, self.host, self.guest_port)
    }
}

fn parse(text: &str) -> Result<Forward, &'static str> {
    const FORM: &str = "write tcp:8080:80 or udp:127.0.0.1:5353:53";
    let (protocol, rest) = text.split_once(':').ok_or(FORM)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err("the protocol is neither tcp nor udp"),
    };
    let (host, guest_port) = rest.rsplit_once(':').ok_or(FORM)?;
    let host = if host.contains(':') {
        host.parse()
            .map_err(|_| "what the host listens on is not an address and a port")?
    } else {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port(host)?))
    };
    let forward = Forward {
        protocol,
        host,
        guest: None,
        guest_port: port(guest_port)?,
    };
    forward.check_ports()?;
    Ok(forward)
}

fn port(text: &str) -> Result<u16, &'static str> {
    text.parse()
        .map_err(|_| "a port is not a number from 1 to 65535")
}

impl Forward {
    fn check_ports(&self) -> Result<(), &'static str> {
        if self.host.port() == 0 || self.guest_port == 0 {
            return Err("port 0 cannot be forwarded");
        }
        Ok(())
    }
}

/// Checks that each forward can be, beside the others.
pub(crate) fn check(forwards: &[Forward]) -> Result<(), UsernetError> {
    let mut places = HashSet::new();
    for forward in forwards {
        forward.check_ports().map_err(|why| UsernetError::Forward {
            text: forward.to_string(),
            why,
        })?;
        if !places.insert((forward.protocol, forward.host)) {
            return Err(UsernetError::ForwardedTwice {
                protocol: forward.protocol,
                at: forward.host,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_written_as_they_are_read() {
        for (text, again) in [
            ("tcp:8080:80", "tcp:127.0.0.1:8080:80"),
            ("udp:0.0.0.0:53:5353", "udp:0.0.0.0:53:5353"),
            ("tcp:[::1]:8080:80", "tcp:[::1]:8080:80"),
        ] {
            let forward: Forward = text.parse().unwrap();
            assert_eq!(forward.to_string(), again);
            assert_eq!(again.parse::<Forward>().unwrap(), forward);
        }
    }

    #[test]
    fn what_is_no_forward_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "write tcp"),
            ("tcp:80", "write tcp"),
            ("sctp:80:80", "neither tcp nor udp"),
            ("tcp:0:80", "port 0"),
            ("tcp:80:0", "port 0"),
            ("tcp:127.0.0.1:0:80", "port 0"),
            ("tcp:a:80", "not a number"),
            ("tcp:80:65536", "not a number"),
            ("tcp:host:80:80", "not an address"),
            ("tcp:::1:80:80", "not an address"),
        ] {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains(&format!("{text:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_port_is_forwarded_once_for_each_protocol() {
        let parse = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<Forward>>()
        };
        check(&parse(&["tcp:80:80", "udp:80:80", "tcp:127.0.0.2:80:80"])).unwrap();
        let error = check(&parse(&["tcp:80:80", "tcp:127.0.0.1:80:81"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tcp port 127.0.0.1:80 of the host is forwarded twice"
        );
        let mut zero = parse(&["tcp:80:80"]);
        zero[0].guest_port = 0;
        assert!(check(&zero).unwrap_err().to_string().contains("port 0"));
    }
}
