//! Who answers queries for names.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::DnsConfig;

/// The port of a resolver (RFC 1035 §4.2).
pub(crate) const PORT: u16 = 53;
/// How long an answer may take before another resolver is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the list has changed.
const LOOK: Duration = Duration::from_secs(1);
/// As many as the host's C library uses (resolv.conf(5)).
const MAX_SERVERS: usize = 3;
/// The longest list that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The resolvers, and which of them is asked now.
#[derive(Debug, Default)]
pub(crate) struct Resolvers {
    servers: Vec<SocketAddr>,
    current: usize,
    file: Option<PathBuf>,
    modified: Option<SystemTime>,
    looked_at: Duration,
}

impl Resolvers {
    pub(crate) fn new(config: &DnsConfig) -> Self {
        match config {
            DnsConfig::None => Self::default(),
            DnsConfig::Upstream(server) => Self {
                servers: vec![*server],
                ..Self::default()
            },
            DnsConfig::Host => Self::from_file("/etc/resolv.conf".into()),
        }
    }

    /// Those in a file. While it is not there, or cannot be read, they are those of before.
    fn from_file(path: PathBuf) -> Self {
        let mut resolvers = Self {
            file: Some(path),
            ..Self::default()
        };
        let _ = resolvers.read();
        resolvers
    }

    /// The resolver to ask.
    pub(crate) fn server(&mut self, now: Duration) -> Option<SocketAddr> {
        if now.saturating_sub(self.looked_at) >= LOOK {
            self.looked_at = now;
            let _ = self.read();
        }
        self.servers.get(self.current).copied()
    }

    /// The resolver has not answered: the next is asked from now on.
    pub(crate) fn failed(&mut self, server: SocketAddr) {
        if self.servers.get(self.current) == Some(&server) {
            self.current = (self.current + 1) % self.servers.len();
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified().ok();
        if modified.is_some() && modified == self.modified || metadata.len() > MAX_FILE {
            return Ok(());
        }
        let servers = parse(&fs::read_to_string(path)?);
        self.modified = modified;
        if servers != self.servers {
            self.servers = servers;
            self.current = 0;
        }
        Ok(())
    }
}

/// The servers in a file of the form of resolv.conf(5).
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = (words.next()? == "nameserver").then(|| words.next())??;
            // An address of a link has the link behind it, of which a guest can have no idea.
            let address: IpAddr = address.parse().ok()?;
            Some(SocketAddr::new(address, PORT))
        })
        .take(MAX_SERVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_servers_of_a_list_are_used() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 127.0.0.53\nnameserver\n  nameserver ::1 # own\n\
                    nameserver fe80::1%eth0\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n";
        let servers: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[::1]:53", "8.8.8.8:53"]);
    }

    #[test]
    fn a_list_that_changes_is_read_again_and_one_that_is_gone_is_kept() {
        let folder = std::env::temp_dir().join(format!("usernet-dns-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("resolv.conf");
        let mut resolvers = Resolvers::from_file(path.clone());
        assert_eq!(resolvers.server(Duration::ZERO), None);
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(resolvers.server(Duration::from_millis(1)), None);
        let first = resolvers.server(LOOK).unwrap();
        assert_eq!(first.to_string(), "192.0.2.1:53");
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(resolvers.server(2 * LOOK), Some(first));

        resolvers.failed(first);
        let second = resolvers.server(2 * LOOK).unwrap();
        assert_eq!(second.to_string(), "192.0.2.2:53");
        // What was asked of the first is no fault of the second.
        resolvers.failed(first);
        assert_eq!(resolvers.server(2 * LOOK), Some(second));
        resolvers.failed(second);
        assert_eq!(resolvers.server(2 * LOOK), Some(first));
    }
}
