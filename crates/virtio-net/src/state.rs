//! Saved state.

use goldcrest_rate_limiter::RateState;
use goldcrest_snapshot::{RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::spec::{MAX_FRAME, feature};
use crate::{MacAddress, Net, NetBackend};

/// What is saved of a [`Net`]. Frames that wait stay where they are: in the driver's queues, and with the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// Its address when it is reset.
    pub own_mac: MacAddress,
    /// Its address now.
    pub mac: MacAddress,
    /// Pairs of queues that it has.
    pub queue_pairs: u16,
    /// Pairs in use.
    pub pairs: u16,
    /// The MTU that the driver is told.
    pub mtu: Option<u16>,
    /// What the driver takes of the offloads that were agreed on, if it has said.
    pub offloads: Option<u64>,
    /// Which frames the driver wants.
    pub filter: Filter,
    /// The driver is to announce its address.
    pub announce: bool,
    /// What the guest may still receive.
    pub rx_rate: RateState,
    /// Bytes of the last frame that it received, if they are not accounted for in that.
    pub rx_owed: u64,
    /// What it may still send.
    pub tx_rate: RateState,
}

fn refuse(what: &'static str, value: u64, limit: &'static str) -> RestoreError {
    RestoreError {
        kind: "virtio-net",
        what,
        value,
        limit,
    }
}

/// A device must be quiesced before it is saved. It is restored into one that was just made with the same configuration;
/// the address is the saved one's. A driver that can is asked to announce it.
impl<B: NetBackend> Snapshot for Net<B> {
    type State = NetState;
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;

    fn save(&self) -> NetState {
        let now = self.clock.now();
        NetState {
            own_mac: self.own_mac,
            mac: self.mac,
            queue_pairs: self.config.queue_pairs,
            pairs: self.pairs,
            mtu: self.config.mtu,
            offloads: self.offloads,
            filter: self.filter.clone(),
            announce: self.announce,
            rx_rate: self.receiving.limiter.save(now),
            rx_owed: self.receiving.owed,
            tx_rate: self.sending.limiter.save(now),
        }
    }

    fn restore(&mut self, state: NetState) -> Result<(), RestoreError> {
        self.check(&state)?;
        let now = self.clock.now();
        let mut limiters = [self.receiving.limiter.clone(), self.sending.limiter.clone()];
        for (limiter, saved) in limiters.iter_mut().zip([state.rx_rate, state.tx_rate]) {
            let limit = "not one that this device's limit can have";
            limiter
                .restore(saved, now)
                .map_err(|_| refuse("rate", 0, limit))?;
        }
        [self.receiving.limiter, self.sending.limiter] = limiters;
        self.receiving.owed = state.rx_owed;
        (self.own_mac, self.mac) = (state.own_mac, state.mac);
        self.pairs = state.pairs;
        self.offloads = state.offloads;
        self.filter = state.filter;
        self.announce = state.announce;
        self.announce_due = true;
        Ok(())
    }
}

impl<B: NetBackend> Net<B> {
    fn check(&self, state: &NetState) -> Result<(), RestoreError> {
        let config = &self.config;
        if state.queue_pairs != config.queue_pairs {
            let limit = "not as many as this device has";
            return Err(refuse("queue pairs", state.queue_pairs.into(), limit));
        }
        if !(1..=config.queue_pairs).contains(&state.pairs) {
            let limit = "not from 1 to as many as there are";
            return Err(refuse("queue pairs in use", state.pairs.into(), limit));
        }
        if state.mtu != config.mtu {
            let mtu = state.mtu.unwrap_or(0).into();
            return Err(refuse("MTU", mtu, "not this device's"));
        }
        let offloads = state.offloads.unwrap_or(0);
        if offloads & !(self.offered & feature::GUEST_OFFLOADS) != 0 {
            return Err(refuse("offloads", offloads, "not all are offered"));
        }
        if !state.filter.is_possible() {
            return Err(refuse("filter", 0, "one that no driver can set"));
        }
        if state.rx_owed > MAX_FRAME as u64 {
            let limit = "longer than a frame can be";
            return Err(refuse("received bytes", state.rx_owed, limit));
        }
        Ok(())
    }
}
