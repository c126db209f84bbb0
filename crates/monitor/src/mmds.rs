//! A network card on which the metadata service is served: what is for the service never reaches the card's network.

use std::io::{self, Read};
use std::time::Duration;

use goldcrest_mmds::{Endpoint, HEAD};
use goldcrest_rate_limiter::{Clock, MonotonicClock};
use goldcrest_usernet::RxOffload;
use goldcrest_virtio::{Features, Ram, Segment, Waits};
use goldcrest_virtio_net::{Header, NetBackend, total};

use crate::user_net::{Bytes, give, rx_offload, tx_offload};

/// A network, with the service before it.
///
/// Frames of the service and of the network take turns only in so far as the service's come first: they are few, since
/// each answers something that the guest has sent.
pub(crate) struct MmdsBackend<B> {
    network: B,
    service: Endpoint,
    offload: RxOffload,
}

impl<B> MmdsBackend<B> {
    pub(crate) fn new(network: B, service: Endpoint) -> Self {
        Self {
            network,
            service,
            offload: RxOffload::default(),
        }
    }

    /// By one clock for all cards: a token that was got by one is good on the others.
    fn now(&self) -> Duration {
        MonotonicClock.now()
    }
}

impl<B: NetBackend> NetBackend for MmdsBackend<B> {
    fn features(&self) -> u64 {
        self.network.features()
    }

    fn queue_pairs(&self) -> u16 {
        self.network.queue_pairs()
    }

    fn start(&mut self, agreed: Features, pairs: u16) -> io::Result<()> {
        self.network.start(agreed, pairs)?;
        self.offload = rx_offload(agreed);
        Ok(())
    }

    fn send(
        &mut self,
        pair: u16,
        ram: Ram<'_>,
        header: &Header,
        frame: &[Segment],
    ) -> io::Result<()> {
        let mut head = [0; HEAD];
        let len = total(frame);
        let head = head.get_mut(..len.min(HEAD)).unwrap_or_default();
        // What does not lie in RAM is the network's to refuse.
        let is_read = Bytes::new(ram, frame).read_exact(head).is_ok();
        if !is_read || !self.service.wants(head) {
            return self.network.send(pair, ram, header, frame);
        }
        let mut bytes = Bytes::new(ram, frame);
        let now = self.now();
        self.service.send(len, &mut bytes, tx_offload(header), now);
        Ok(())
    }

    fn flush(&mut self) {
        self.network.flush();
    }

    fn receive(&mut self, pair: u16, ram: Ram<'_>, room: &[Segment]) -> io::Result<usize> {
        if self.service.has_frame() {
            let (now, offload) = (self.now(), self.offload);
            let given = give(ram, room, |most, bytes| {
                self.service.receive(most, offload, bytes, now)
            });
            match given {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                given => return given,
            }
        }
        self.network.receive(pair, ram, room)
    }

    /// It is never the service's that is too long.
    fn discard(&mut self, pair: u16) {
        self.network.discard(pair);
    }

    fn has_frames(&self) -> bool {
        self.service.has_frame() || self.network.has_frames()
    }

    fn waits(&self, pair: u16, receive: bool, send: bool, waits: &mut Waits) {
        self.network.waits(pair, receive, send, waits);
        if let Some(delay) = self.service.timeout(self.now()) {
            waits.within(delay);
        }
    }

    fn poll(&mut self) {
        self.network.poll();
        let now = self.now();
        self.service.process(now);
    }

    fn link_up(&self) -> bool {
        self.network.link_up()
    }

    fn reset(&mut self) {
        self.network.reset();
        self.offload = RxOffload::default();
    }
}
