//! Commands of the driver's (§5.1.6.5).

use goldcrest_virtio::{Chain, DeviceError, DeviceIo, Features, QueueError, Reader};

use crate::device::misused;
use crate::spec::{control, feature};
use crate::stats::count;
use crate::{MacAddress, Net, NetBackend};

/// What a command was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Done, and the configuration is another.
    Changed,
    /// Done, and this many pairs of queues are to be in use.
    Pairs(u16),
    Refused,
}

impl<B: NetBackend> Net<B> {
    /// Carries out what the driver wants.
    pub(crate) fn control(&mut self, index: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        if !self.has(feature::CTRL_VQ) {
            return Ok(());
        }
        // One at a time: a command may change what other queues do.
        loop {
            let Some(mut queue) = io.queue(index) else {
                return Ok(());
            };
            let Some(mut chain) = queue.pop().map_err(misused(index))? else {
                return Ok(());
            };
            let outcome = self.command(&mut chain).map_err(misused(index))?;
            let outcome = match outcome {
                Outcome::Pairs(pairs) if !self.can_use(pairs) => Outcome::Refused,
                outcome => outcome,
            };
            let answer = match outcome {
                Outcome::Refused => {
                    count(&mut self.stats.control_errors);
                    control::ERR
                }
                _ => control::OK,
            };
            let head = chain.head;
            chain.writable.write(&[answer]).map_err(misused(index))?;
            queue.push(head, 1);
            match outcome {
                Outcome::Changed => io.config_changed(),
                Outcome::Pairs(pairs) => self.use_pairs(pairs, io)?,
                _ => {}
            }
        }
    }

    /// Carries a command out, but for what concerns other queues.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if it does not lie in RAM.
    fn command(&mut self, chain: &mut Chain<'_>) -> Result<Outcome, QueueError> {
        let data = &mut chain.readable;
        if data.left() < 2 {
            return Ok(Outcome::Refused);
        }
        let [class, command] = data.read_array()?;
        let needed = match (class, command) {
            (control::RX, control::RX_PROMISC | control::RX_ALLMULTI) => feature::CTRL_RX,
            (control::RX, _) => feature::CTRL_RX_EXTRA,
            (control::MAC, control::MAC_TABLE_SET) => feature::CTRL_RX,
            (control::MAC, control::MAC_ADDR_SET) => feature::CTRL_MAC_ADDR,
            (control::ANNOUNCE, control::ANNOUNCE_ACK) => feature::GUEST_ANNOUNCE,
            (control::MQ, control::MQ_VQ_PAIRS_SET) => feature::MQ,
            (control::GUEST_OFFLOADS, control::GUEST_OFFLOADS_SET) => feature::CTRL_GUEST_OFFLOADS,
            _ => return Ok(Outcome::Refused),
        };
        if !self.has(needed) {
            return Ok(Outcome::Refused);
        }
        match class {
            control::RX => self.set_mode(command, data),
            control::MAC if command == control::MAC_TABLE_SET => self.set_tables(data),
            control::MAC => self.set_address(data),
            control::ANNOUNCE => Ok(self.announced(data)),
            control::MQ => Ok(match exactly(data)? {
                Some(pairs) => Outcome::Pairs(u16::from_le_bytes(pairs)),
                None => Outcome::Refused,
            }),
            _ => self.set_offloads(data),
        }
    }

    fn set_mode(&mut self, mode: u8, data: &mut Reader<'_>) -> Result<Outcome, QueueError> {
        let done = match exactly(data)? {
            Some([on @ 0..=1]) => self.filter.set(mode, on != 0),
            _ => false,
        };
        self.set_filtered();
        Ok(done_or_refused(done))
    }

    fn set_tables(&mut self, data: &mut Reader<'_>) -> Result<Outcome, QueueError> {
        self.filter.set_tables(data).map(done_or_refused)
    }

    fn set_address(&mut self, data: &mut Reader<'_>) -> Result<Outcome, QueueError> {
        let address = exactly(data)?.map(MacAddress::try_from);
        Ok(match address {
            Some(Ok(address)) => {
                self.mac = address;
                Outcome::Changed
            }
            _ => Outcome::Refused,
        })
    }

    fn announced(&mut self, data: &Reader<'_>) -> Outcome {
        if data.left() != 0 {
            return Outcome::Refused;
        }
        match std::mem::take(&mut self.announce) {
            true => Outcome::Changed,
            false => Outcome::Done,
        }
    }

    fn set_offloads(&mut self, data: &mut Reader<'_>) -> Result<Outcome, QueueError> {
        let Some(bytes) = exactly(data)? else {
            return Ok(Outcome::Refused);
        };
        let offloads = u64::from_le_bytes(bytes);
        let Features(agreed) = self.active.unwrap_or_default();
        if offloads & !(agreed & feature::GUEST_OFFLOADS) != 0 {
            return Ok(Outcome::Refused);
        }
        let before = self.offloads.replace(offloads);
        if self.backend.start(self.agreed(), self.pairs).is_err() {
            self.offloads = before;
            return Ok(Outcome::Refused);
        }
        self.set_up();
        Ok(Outcome::Done)
    }

    /// Whether this many pairs of queues can be used.
    fn can_use(&mut self, pairs: u16) -> bool {
        (1..=self.config.queue_pairs).contains(&pairs)
            && self.backend.start(self.agreed(), pairs).is_ok()
    }

    /// The first `pairs` pairs of queues are in use from now on, the others are not.
    fn use_pairs(&mut self, pairs: u16, io: &mut DeviceIo<'_>) -> Result<(), DeviceError> {
        let before = std::mem::replace(&mut self.pairs, pairs);
        self.put_back(pairs, io);
        for lane in self.lanes.iter_mut().skip(pairs.into()) {
            lane.stop_sending();
        }
        self.sending.limited = self.sending.limited.filter(|(pair, _)| *pair < pairs);
        // What the driver did there before was not looked at.
        for pair in before..pairs {
            self.transmit(pair, io)?;
            self.receive(pair, io)?;
        }
        Ok(())
    }
}

fn done_or_refused(done: bool) -> Outcome {
    match done {
        true => Outcome::Done,
        false => Outcome::Refused,
    }
}

/// What is left, if it is as many bytes as are wanted.
fn exactly<const N: usize>(data: &mut Reader<'_>) -> Result<Option<[u8; N]>, QueueError> {
    match data.left() == N as u64 {
        true => data.read_array().map(Some),
        false => Ok(None),
    }
}
