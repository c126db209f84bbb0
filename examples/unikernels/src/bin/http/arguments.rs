//! What the command line says.

use alloc::format;
use alloc::string::String;
use core::str::FromStr;

use goldcrest_guest::args;
use goldcrest_guest::virtio::is_announcement;
use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

/// The arguments.
pub struct Arguments {
    /// The server's address; by DHCP if there is none.
    pub ip: Option<Ipv4Cidr>,
    pub gateway: Option<Ipv4Address>,
    pub port: u16,
    /// Clients that are served at once.
    pub connections: usize,
}

impl Arguments {
    pub fn parse() -> Result<Self, String> {
        let mut arguments = Self {
            ip: None,
            gateway: None,
            port: 80,
            connections: 512,
        };
        for word in args().filter(|word| !is_announcement(word)) {
            match word.split_once('=') {
                Some(("ip", value)) => arguments.ip = Some(cidr(word, value)?),
                Some(("gw", value)) => arguments.gateway = Some(parsed(word, value)?),
                Some(("port", value)) => arguments.port = parsed(word, value)?,
                Some(("connections", value)) => arguments.connections = parsed(word, value)?,
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        if arguments.port == 0 || arguments.connections == 0 {
            return Err("port and connections cannot be 0".into());
        }
        Ok(arguments)
    }
}

fn cidr(word: &str, value: &str) -> Result<Ipv4Cidr, String> {
    let (address, prefix) = value.split_once('/').unwrap_or((value, "24"));
    let (address, prefix) = (parsed(word, address)?, parsed(word, prefix)?);
    if prefix > 32 {
        return Err(format!("{word}: a prefix has at most 32 bits"));
    }
    Ok(Ipv4Cidr::new(address, prefix))
}

fn parsed<T: FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{word} makes no sense"))
}
