//! What a person sets, and what the driver reads.

use goldcrest_rate_limiter::RateConfig;

use crate::spec::{config, feature, queue};
use crate::{MacAddress, NetBackend, NetError};

/// A network device, as it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address; a random one if there is none, for as long as the device exists.
    pub mac: Option<MacAddress>,
    /// The most bytes of a frame's payload, if the driver is to be told.
    pub mtu: Option<u16>,
    /// Pairs of queues, from 1 to as many as the backend has.
    pub queue_pairs: u16,
    /// Limits what the guest receives: bytes of frames without their virtio headers, operations are frames.
    pub rx_rate: RateConfig,
    /// Limits what the guest sends.
    pub tx_rate: RateConfig,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            mac: None,
            mtu: None,
            queue_pairs: 1,
            rx_rate: RateConfig::default(),
            tx_rate: RateConfig::default(),
        }
    }
}

impl NetConfig {
    pub(crate) fn check(&self, backend: &impl NetBackend) -> Result<(), NetError> {
        let most = backend.queue_pairs().min(queue::MAX_PAIRS);
        if !(1..=most).contains(&self.queue_pairs) {
            let pairs = self.queue_pairs;
            return Err(NetError::Pairs { pairs, most });
        }
        match self.mtu {
            Some(mtu) if mtu < config::MIN_MTU => Err(NetError::Mtu(mtu)),
            _ => Ok(()),
        }
    }

    /// What is offered, with what the backend can do: nothing that needs what is not.
    pub(crate) fn features(&self, backend: u64) -> u64 {
        let mut features = feature::MAC
            | feature::MRG_RXBUF
            | feature::STATUS
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_RX_EXTRA
            | feature::CTRL_MAC_ADDR
            | feature::GUEST_ANNOUNCE;
        features |= backend & (feature::HOST_OFFLOADS | feature::GUEST_OFFLOADS);
        if backend & feature::GUEST_OFFLOADS != 0 {
            features |= feature::CTRL_GUEST_OFFLOADS;
        }
        if self.queue_pairs > 1 {
            features |= feature::MQ;
        }
        if self.mtu.is_some() {
            features |= feature::MTU;
        }
        possible(features)
    }
}

/// What each feature needs, one of those named (§5.1.3.1).
const NEEDS: [(u64, u64); 19] = {
    use feature as f;
    [
        (f::GUEST_TSO4, f::GUEST_CSUM),
        (f::GUEST_TSO6, f::GUEST_CSUM),
        (f::GUEST_UFO, f::GUEST_CSUM),
        (f::GUEST_USO4, f::GUEST_CSUM),
        (f::GUEST_USO6, f::GUEST_CSUM),
        (f::GUEST_ECN, f::GUEST_TSO4 | f::GUEST_TSO6),
        (f::HOST_TSO4, f::CSUM),
        (f::HOST_TSO6, f::CSUM),
        (f::HOST_UFO, f::CSUM),
        (f::HOST_USO, f::CSUM),
        (f::HOST_ECN, f::HOST_TSO4 | f::HOST_TSO6),
        (f::CTRL_RX, f::CTRL_VQ),
        (f::CTRL_VLAN, f::CTRL_VQ),
        (f::CTRL_RX_EXTRA, f::CTRL_VQ),
        (f::GUEST_ANNOUNCE, f::CTRL_VQ),
        (f::MQ, f::CTRL_VQ),
        (f::CTRL_MAC_ADDR, f::CTRL_VQ),
        (f::CTRL_GUEST_OFFLOADS, f::CTRL_VQ),
        (f::CTRL_RX_EXTRA, f::CTRL_RX),
    ]
};

/// Those of `features` that have what they need.
pub(crate) fn possible(features: u64) -> u64 {
    // What ECN needs comes before it, so that once is enough.
    NEEDS.iter().fold(
        features,
        |all, (one, needs)| {
            if all & needs == 0 { all & !one } else { all }
        },
    )
}

/// The configuration (§5.1.4) as it is now.
pub(crate) fn bytes(mac: [u8; 6], status: u16, pairs: u16, mtu: u16) -> [u8; config::LEN] {
    let [a, b, c, d, e, f] = mac;
    let [[g, h], [i, j], [k, l]] = [status, pairs, mtu].map(u16::to_le_bytes);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_goes_with_what_it_needs() {
        use feature::*;
        assert_eq!(possible(GUEST_TSO4 | GUEST_ECN), 0);
        assert_eq!(possible(HOST_ECN | CSUM), CSUM);
        let all = GUEST_CSUM | GUEST_TSO6 | GUEST_ECN | CTRL_VQ | MQ;
        assert_eq!(possible(all), all);
        assert_eq!(possible(MQ | CTRL_RX | CTRL_MAC_ADDR | MAC), MAC);
        assert_eq!(possible(CTRL_VQ | CTRL_RX_EXTRA), CTRL_VQ);
    }
}
