//! Network cards, as a person sets them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use goldcrest_mmds::{Endpoint, Mmds};
use goldcrest_rate_limiter::RateConfig;
use goldcrest_usernet::{Action, DnsConfig, Network, NetworkConfig, Rule};
use goldcrest_virtio_net::{
    MacAddress, Net, NetBackend, NetConfig as CardConfig, NetError, Tap, TapConfig,
};

use serde::{Deserialize, Serialize};

use crate::mmds::MmdsBackend;
use crate::options::{OptionError, parts};
use crate::snapshot::Description;
use crate::user_net::UserNet;
use crate::{DeviceFailure, VirtioConfig};

/// A network card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetConfig {
    /// What is at the other end of its wire.
    pub link: NetLink,
    /// Its address; a random one if none is given.
    pub mac: Option<MacAddress>,
    /// The largest packet, in bytes, that the guest is told of.
    pub mtu: Option<u16>,
    /// Pairs of queues.
    pub queues: u16,
    /// How much the guest may receive.
    pub rx_rate: RateConfig,
    /// How much it may send.
    pub tx_rate: RateConfig,
    /// The metadata service that the guest finds on this card, if it does.
    #[serde(skip)]
    pub mmds: Option<Arc<Mmds>>,
}

/// What a network card is connected to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NetLink {
    /// A tap of the host with this name.
    Tap(String),
    /// A network in this process, which needs no privilege.
    User(Box<NetworkConfig>),
}

const FORM: &str = "tap=NAME[,queues=N] or user[,fwd=tcp:HOST:GUEST][,allow=WHERE][,deny=WHERE][,dns=ADDRESS], \
                    then [,mac=MAC][,mtu=BYTES][,rx-rate=RATE][,tx-rate=RATE]";

impl FromStr for NetConfig {
    type Err = OptionError;

    /// `tap=NAME` or `user`, and options.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut parts = parts(text).into_iter();
        let link = match parts.next().unwrap_or_default().split_once('=') {
            Some(("tap", "")) => return Err(refuse("the tap's name is missing")),
            Some(("tap", name)) => NetLink::Tap(name.into()),
            _ if text == "user" || text.starts_with("user,") => NetLink::User(Box::default()),
            _ => return Err(refuse(format!("a network card cannot be on {text:?}"))),
        };
        let mut config = Self {
            link,
            mac: None,
            mtu: None,
            queues: 1,
            rx_rate: RateConfig::default(),
            tx_rate: RateConfig::default(),
            mmds: None,
        };
        parts.try_for_each(|part| config.set(&part))?;
        Ok(config)
    }
}

impl NetConfig {
    /// One option.
    fn set(&mut self, part: &str) -> Result<(), OptionError> {
        let unknown = || refuse(format!("a network card has no option {part:?}"));
        let (name, text) = part.split_once('=').ok_or_else(unknown)?;
        match (name, &mut self.link) {
            ("mac", _) => self.mac = Some(value(text)?),
            ("mtu", _) => self.mtu = Some(number(name, text)?),
            ("rx-rate", _) => self.rx_rate = value(text)?,
            ("tx-rate", _) => self.tx_rate = value(text)?,
            ("queues", NetLink::Tap(_)) => self.queues = number(name, text)?,
            ("fwd", NetLink::User(network)) => network.forwards.push(value(text)?),
            ("allow", NetLink::User(network)) => network.rules.push(rule(text, Action::Allow)?),
            ("deny", NetLink::User(network)) => network.rules.push(rule(text, Action::Deny)?),
            ("dns", NetLink::User(network)) => network.dns = DnsConfig::Upstream(resolver(text)?),
            ("queues", _) => return Err(refuse("a network in user mode has one queue")),
            ("fwd" | "allow" | "deny" | "dns", _) => {
                return Err(refuse(format!("a tap has no option {name:?}")));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// The device.
    ///
    /// # Errors
    ///
    /// [`NetError`] if the host has no random numbers for its address.
    pub fn device(self) -> Result<VirtioConfig, NetError> {
        let mac = match self.mac {
            Some(mac) => mac,
            None => MacAddress::random()?,
        };
        let description = Description::Net {
            config: Self {
                mac: Some(mac),
                ..self.clone()
            },
            metadata: self.mmds.as_ref().map(|mmds| mmds.config().into()),
        };
        let card = CardConfig {
            mac: Some(mac),
            mtu: self.mtu,
            queue_pairs: self.queues,
            rx_rate: self.rx_rate,
            tx_rate: self.tx_rate,
        };
        let mmds = self.mmds;
        Ok(match self.link {
            NetLink::Tap(name) => {
                let mut config = TapConfig::new(&name);
                config.queues = self.queues;
                let tap = move || -> Made { Ok(Box::new(Tap::open(&config)?)) };
                card_on(
                    format!("net {name}"),
                    description,
                    card,
                    mmds,
                    Box::new(tap),
                )
            }
            NetLink::User(mut network) => {
                network.mtu = self.mtu.unwrap_or(network.mtu);
                let user = move || -> Made {
                    Ok(Box::new(UserNet::new(Network::new((*network).clone())?)))
                };
                card_on("net user".into(), description, card, mmds, Box::new(user))
            }
        })
    }
}

/// A network, as all cards have it: what a card does is a lot of code, which is there once.
type Made = Result<Box<dyn NetBackend>, DeviceFailure>;

/// A card on a network, with the metadata service before it if there is one.
fn card_on(
    name: String,
    description: Description,
    card: CardConfig,
    mmds: Option<Arc<Mmds>>,
    network: Box<dyn Fn() -> Made + Send + Sync>,
) -> VirtioConfig {
    VirtioConfig::described(name, description, move || {
        let mut network = network()?;
        if let Some(mmds) = &mmds {
            network = Box::new(MmdsBackend::new(network, Endpoint::new(mmds.clone())?));
        }
        Ok(Net::new(network, &card)?)
    })
}

fn refuse(what: impl Into<String>) -> OptionError {
    OptionError::new(what, FORM)
}

/// What follows the `=` of an option, of any type that says why it cannot be.
fn value<T: FromStr<Err: ToString>>(text: &str) -> Result<T, OptionError> {
    text.parse::<T>().map_err(|error| refuse(error.to_string()))
}

fn number(name: &str, text: &str) -> Result<u16, OptionError> {
    text.parse()
        .map_err(|_| refuse(format!("{name} is a number up to 65535, not {text:?}")))
}

fn rule(text: &str, action: Action) -> Result<Rule, OptionError> {
    let rule: Rule = value(text)?;
    match rule.action {
        Action::Allow => Ok(Rule { action, ..rule }),
        Action::Deny => Err(refuse(format!("destination {text:?}: it begins with !"))),
    }
}

/// An address, with or without a port.
fn resolver(text: &str) -> Result<SocketAddr, OptionError> {
    let address = text
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DNS_PORT));
    address.or_else(|_| text.parse()).map_err(|_| {
        refuse(format!(
            "dns is an address, with or without a port, not {text:?}"
        ))
    })
}

/// Where resolvers listen (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetConfig, String> {
        text.parse::<NetConfig>().map_err(|error| error.to_string())
    }

    fn network(text: &str) -> NetworkConfig {
        match parse(text).unwrap().link {
            NetLink::User(network) => *network,
            NetLink::Tap(name) => panic!("tap {name}"),
        }
    }

    #[test]
    fn cards_are_what_their_options_say() {
        let card = parse("tap=gc0,mac=02:00:00:00:00:01,queues=4,mtu=9000,rx-rate=1M").unwrap();
        assert!(matches!(&card.link, NetLink::Tap(name) if name == "gc0"));
        assert_eq!(card.mac, "02:00:00:00:00:01".parse().ok());
        assert_eq!((card.queues, card.mtu), (4, Some(9000)));
        assert_eq!(Ok(card.rx_rate), "1M".parse());
        assert_eq!(card.tx_rate, RateConfig::default());
        let user = network(
            "user,fwd=tcp:8080:80,fwd=udp:[::1]:53:5353,allow=127.0.0.1:5432,deny=0.0.0.0/0,dns=192.0.2.1",
        );
        let forwards: Vec<_> = user.forwards.iter().map(ToString::to_string).collect();
        assert_eq!(forwards, ["tcp:127.0.0.1:8080:80", "udp:[::1]:53:5353"]);
        let rules: Vec<_> = user.rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["127.0.0.1/32:5432-5432", "!0.0.0.0/0"]);
        assert_eq!(user.dns, DnsConfig::Upstream(([192, 0, 2, 1], 53).into()));
        let other = network("user,dns=[::1]:5353").dns;
        assert_eq!(other, DnsConfig::Upstream("[::1]:5353".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "cannot be on \"\""),
            ("bridge=x", "cannot be on \"bridge=x\""),
            ("username", "cannot be on \"username\""),
            ("tap=", "name is missing"),
            ("user,queues=2", "one queue"),
            ("tap=a,queues=many", "not \"many\""),
            ("tap=a,fwd=tcp:1:1", "a tap has no option \"fwd\""),
            ("user,speed=1", "no option \"speed=1\""),
            ("user,mac=ff:ff:ff:ff:ff:ff", "group"),
            ("user,mac=1", "six bytes"),
            ("user,fwd=tcp:0:80", "port 0"),
            ("user,fwd=80:80", "neither tcp nor udp"),
            ("user,allow=everything", "everything"),
            ("user,deny=!10.0.0.0/8", "begins with !"),
            ("user,dns=here", "not \"here\""),
            ("user,rx-rate=fast", "fast"),
            ("user,mtu=70000", "not \"70000\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(why) && error.contains("; write tap=NAME"),
                "{text}: {error}"
            );
        }
    }
}
